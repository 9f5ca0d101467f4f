"""Text cut into clauses: where they end, that nothing is lost, and that the pieces it comes in make no difference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls.clauses import LONGEST_WORDS, Clauses, clauses, speakable

WORDS = ["Sure,", "and", "well;", "the", "office", "opens", "at", "8:30.", "Yes!", "Dr.", "a.m.", "(really?)", "—", "x"]
TEXTS = st.lists(st.sampled_from([*WORDS, "on", "7.", "**now**", "- ", "\n", "...", "because"])).map(" ".join)
ANY_TEXT = st.text(max_size=60) | st.text(st.sampled_from("ab1 .,!?\n-*and "), max_size=200) | TEXTS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("We close at six.", ["We close at six."]),
        ("Yes, we do. Bring it in, please.", ["Yes, we do.", "Bring it in, please."]),
        ("No. We never do.", ["No.", "We never do."]),
        ("I'm sorry to hear that, Anna. Let me check.", ["I'm sorry to hear that,", "Anna.", "Let me check."]),
        ("Next time, look at the dashboard.", ["Next time,", "look at the dashboard."]),
        ("Sure — we can.", ["Sure —", "we can."]),
        ("So, (really!) we can.", ["So, (really!)", "we can."]),
        ("It costs £4,500 or 9.50 a day. Fine?", ["It costs £4,500 or 9.50 a day.", "Fine?"]),
        ("Dr. Lee opens at 8.30 a.m. on Monday.", ["Dr. Lee opens at 8.30 a.m. on Monday."]),
        ("Dr. Lee is in at 8:30 a.m. tomorrow, as usual", ["Dr. Lee is in at 8:30 a.m. tomorrow,", "as usual"]),
        (
            "We are open from eight to six, Monday to Friday, and on Saturday from nine to one, but never on Sunday.",
            [
                "We are open from eight to six,",
                "Monday to Friday, and on Saturday from nine to one,",
                "but never on Sunday.",
            ],
        ),
        (
            "We are open from Monday to Friday between half past eight and five and on Saturdays until noon",
            ["We are open from Monday to Friday", "between half past eight and five and on Saturdays until noon"],
        ),
        (
            "Yes, we can. You can pick it up after hours there by the blue gate of our yard because that is always lit",
            [
                "Yes, we can.",
                "You can pick it up after hours there by the blue gate of our yard",
                "because that is always lit",
            ],
        ),
        ("**Hours**\n- eight to six\n- closed on Sunday", ["Hours", "eight to six", "closed on Sunday"]),
        ("# Hours\n1. Monday at\n7.\n", ["Hours", "Monday at", "7."]),
        ("", []),
        (" . ", []),
        ("Yes. ...", ["Yes."]),
    ],
)
def test_where_clauses_end(text: str, expected: list[str]) -> None:
    assert clauses(text) == expected


def test_a_text_that_goes_on_need_not_begin_with_a_short_clause() -> None:
    text = "or move an appointment free of charge, until five the evening before."
    assert clauses(text)[0] == "or move an appointment free of charge,"
    assert clauses(text, begins=False) == [text]


def test_speakable_leaves_no_marks() -> None:
    assert speakable("1. **Bold** `code`\n2. [link]") == "Bold code link"
    assert speakable("It is\n - 7. of\n• * May\n8.") == "It is 7. of May 8."


@given(ANY_TEXT)
def test_joined_clauses_are_the_speakable_text(text: str) -> None:
    whole, joined = speakable(text), " ".join(clauses(text))
    assert whole.startswith(joined)
    assert not any(character.isalnum() for character in whole[len(joined) :])


@given(ANY_TEXT, st.lists(st.integers(1, 20), min_size=1))
def test_the_pieces_it_comes_in_make_no_difference(text: str, sizes: list[int]) -> None:
    cutter, given_out, position, number = Clauses(), [], 0, 0
    while position < len(text):
        size = sizes[number % len(sizes)]
        given_out += cutter.feed(text[position : position + size])
        position, number = position + size, number + 1
    assert [*given_out, *cutter.finish()] == clauses(text)


@given(TEXTS)
def test_a_clause_is_not_cut_again(text: str) -> None:
    """What the worker has spoken beforehand is then found under the clause that the agent asks for."""
    assert all(clauses(part, begins=False) == [part] for part in clauses(text))


@given(st.lists(st.sampled_from(["word", "longer", "and"]), max_size=80))
def test_no_clause_is_endless(words: list[str]) -> None:
    parts = clauses(" ".join(words))
    assert all(len(part.split()) <= LONGEST_WORDS for part in parts)
    if parts:
        assert len(parts[0].split()) <= 13


def test_a_clause_is_given_as_soon_as_it_is_certain() -> None:
    cutter = Clauses()
    assert cutter.feed("Yes, we do.") == []  # "do.it" would be one word
    assert cutter.feed(" Br") == ["Yes, we do."]
    assert cutter.feed("ing it in.") == []
    assert cutter.finish() == ["Bring it in."]
