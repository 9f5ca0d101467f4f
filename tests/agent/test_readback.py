"""Numbers and days, found in what was said and read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.readback import Details, details, spell


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("My number is 07700 900123.", Details(number="07700900123")),
        ("It's +44 7700 900 123", Details(number="+447700900123")),
        ("oh seven seven double zero nine double zero one two three", Details(number="07700900123")),
        ("five five five, oh one two three", Details(number="5550123")),
        ("call 555-0123 please", Details(number="5550123")),
        ("It's a 2019 Elantra with 82,000 miles", Details()),
        ("It has 120000 miles on it", Details()),
        ("It cost £1,200.50", Details()),
        ("I have one problem and two questions", Details()),
        ("My reg is ab12 cde", Details(plate="AB12CDE")),
        ("the number plate is K L 5 9 X Y Z, please", Details(plate="KL59XYZ")),
        ("next Tuesday at 3 pm", Details(when="next Tuesday at 3 pm")),
        ("on the fifth of May at half past nine", Details(when="the fifth of May at half past nine")),
        ("tomorrow morning", Details(when="tomorrow morning")),
        ("I may come", Details()),
    ],
)
def test_details(text: str, expected: Details) -> None:
    assert details(text) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("5550123", "five five five, zero one two three"),
        ("07700900123", "zero seven seven, zero zero nine, zero zero one, two three"),
        ("+4412", "plus four four, one two"),
        ("AB12CDE", "A B one, two C D E"),
        ("7", "seven"),
    ],
)
def test_spell(number: str, expected: str) -> None:
    assert spell(number) == expected


@given(number=st.text("0123456789", min_size=6, max_size=15))
def test_a_spelled_number_is_understood_as_the_same(number: str) -> None:
    assert details(spell(number)).number == number


def test_newer_details_win() -> None:
    first = Details(number="1", when="today")
    assert first.with_(Details(number="2")) == Details(number="2", when="today")
    assert not Details()
    assert first.written() == "number 1, when today"
