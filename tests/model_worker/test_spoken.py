from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_worker.spoken import cardinal, digits, ordinal, spoken


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("We open at 8:30.", "We open at eight thirty."),
        ("From 9:05 am to 17:00", "From nine oh five a m to five p m"),
        ("10:00 or 8:30 p.m. today", "ten o'clock or eight thirty p m today"),
        ("at 5 pm.", "at five p m."),
        ("Call 555-0134.", "Call five five five, zero one three four."),
        ("+1 (415) 555-2671", "plus one, four one five, five five five, two six seven one"),
        ("Your order 1234567 is here", "Your order one two three four five six seven is here"),
        ("It costs $4.50", "It costs four dollars and fifty cents"),
        ("$1, £2 or €1,200", "one dollar, two pounds or one thousand two hundred euros"),
        ("$0.99", "ninety nine cents"),
        ("Dr. Lee, Mrs. Day", "doctor Lee, missus Day"),
        ("12 St. Mary's, Main St. 5", "twelve Saint Mary's, Main Street five"),
        ("the 21st, 50% off", "the twenty first, fifty percent off"),
        ("open 9-12", "open nine to twelve"),
        ("in 2026, not 1905", "in twenty twenty six, not nineteen oh five"),
        ("on 2024-05-06", "on May sixth, twenty twenty four"),
        ("3.5 miles, 1,250 people", "three point five miles, one thousand two hundred fifty people"),
        ("code 007", "code zero zero seven"),
        ("**Sure!** Here's a list:\n- one\n- two", "Sure! Here's a list: one two"),
        ("mail info@bright.com", "mail info at bright dot com"),
        ("fish & chips 😀", "fish and chips"),
    ],
)
def test_written_and_said(written: str, said: str) -> None:
    assert spoken(written) == said


@given(st.text(max_size=80))
def test_nothing_that_only_eyes_can_read_is_left(text: str) -> None:
    said = spoken(text)
    assert not set(said) & set("0123456789$€£%@#*`_<>|")
    assert said == " ".join(said.split())


@given(st.text("0123456789:.,-+$ apmthsd/()", max_size=40))
def test_number_salad_is_survived(text: str) -> None:
    assert not any(character.isdigit() for character in spoken(text))


@given(st.text("abcdefghijklm ,;!?'", max_size=60))
def test_plain_words_are_left_alone(text: str) -> None:
    assert spoken(text).replace(" ", "") == "".join(text.split())


@given(st.integers(0, 10**13), st.integers(0, 10**13))
def test_different_numbers_sound_different(one: int, other: int) -> None:
    assert (cardinal(one) == cardinal(other)) == (one == other)


def test_ordinals_and_digits() -> None:
    said = [ordinal(n) for n in (1, 2, 3, 5, 8, 9, 12, 20, 21, 100)]
    assert ",".join(said) == "first,second,third,fifth,eighth,ninth,twelfth,twentieth,twenty first,one hundredth"
    assert digits("12-3") == "one two, three"
    assert cardinal(-7) == "minus seven"
