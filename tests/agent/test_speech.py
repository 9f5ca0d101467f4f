"""Clauses for the voice, and numbers and days read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.readback import Details, details, spell
from agent.speech import LONGEST_WORDS, Clauses, clauses, speakable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("We close at six.", ["We close at six."]),
        ("Yes, we do. Bring it in, please.", ["Yes, we do.", "Bring it in, please."]),
        ("It costs £4,500 or 9.50 a day. Fine?", ["It costs £4,500 or 9.50 a day.", "Fine?"]),
        ("Dr. Lee opens at 8.30 a.m. on Monday.", ["Dr. Lee opens at 8.30 a.m. on Monday."]),
        (
            "We are open from eight to six, Monday to Friday, and on Saturday from nine to one, but never on Sunday.",
            [
                "We are open from eight to six,",
                "Monday to Friday, and on Saturday from nine to one,",
                "but never on Sunday.",
            ],
        ),
        (
            "You can pick it up after hours from the locker by the blue gate of our yard because that is always open",
            [
                "You can pick it up after hours from the locker by the blue gate of our yard",
                "because that is always open",
            ],
        ),
        ("**Hours**\n- eight to six\n- closed on Sunday", ["Hours", "eight to six", "closed on Sunday"]),
        ("", []),
        (" . ", ["."]),
    ],
)
def test_clauses(text: str, expected: list[str]) -> None:
    assert clauses(text) == expected


@given(text=st.text(st.sampled_from("ab .,!?\n-*and "), max_size=200), cuts=st.lists(st.integers(1, 20), min_size=1))
def test_pieces_of_any_size_lose_no_word(text: str, cuts: list[int]) -> None:
    cutter, given_out, position, number = Clauses(), [], 0, 0
    while position < len(text):
        size = cuts[number % len(cuts)]
        given_out += list(cutter.feed(text[position : position + size]))
        position, number = position + size, number + 1
    given_out.append(cutter.rest())
    letters = [character for character in " ".join(given_out) if character.isalpha()]
    assert letters == [character for character in text if character.isalpha()]
    assert all(len(clause.split()) <= LONGEST_WORDS + 1 for clause in given_out)


def test_speakable_leaves_no_marks() -> None:
    assert speakable("1. **Bold** `code`\n2. [link]") == "Bold code link"


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
