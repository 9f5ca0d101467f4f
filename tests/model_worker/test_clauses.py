from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_worker.clauses import ClauseSplitter, clauses

WORDS = ["Sure,", "and", "well;", "the", "office", "opens", "at", "8:30.", "Yes!", "Dr.", "a.m.", "(really?)", "—", "x"]
REPLY = st.lists(st.sampled_from(WORDS))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Yes.", ["Yes."]),
        ("", []),
        ("I'm sorry to hear that, Anna. Let me check.", ["I'm sorry to hear that,", "Anna.", "Let me check."]),
        ("Dr. Lee is in at 8:30 a.m. tomorrow, as usual", ["Dr. Lee is in at 8:30 a.m. tomorrow,", "as usual"]),
        ("It is $4.50 today. OK?", ["It is $4.50 today.", "OK?"]),
    ],
)
def test_where_clauses_end(text: str, parts: list[str]) -> None:
    assert clauses(text) == parts


def test_the_first_clause_is_short_without_any_punctuation() -> None:
    text = "We are open from Monday to Friday between half past eight and five and on Saturdays until noon"
    first, *rest = clauses(text)
    assert first == "We are open from Monday to Friday"
    assert len(rest) == 1


@given(REPLY)
def test_no_word_is_lost(words: list[str]) -> None:
    assert " ".join(clauses(" ".join(words))) == " ".join(words)


@given(REPLY, st.integers(1, 7))
def test_fed_piece_by_piece_it_is_the_same(words: list[str], size: int) -> None:
    text = " ".join(words)
    splitter = ClauseSplitter()
    parts = [part for i in range(0, len(text), size) for part in splitter.feed(text[i : i + size])]
    assert [*parts, *splitter.finish()] == clauses(text)


@given(st.lists(st.sampled_from(["word", "longer", "and"]), max_size=80))
def test_no_clause_is_endless(words: list[str]) -> None:
    parts = clauses(" ".join(words))
    assert all(len(part.split()) <= 36 for part in parts)
    if parts:
        assert len(parts[0].split()) <= 13


@given(st.text(max_size=60))
def test_any_text_is_survived(text: str) -> None:
    assert " ".join(clauses(text)) == " ".join(text.split())
