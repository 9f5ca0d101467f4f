from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.wer import errors, word_error_rate, words

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=10)


def test_spelling_is_no_error() -> None:
    assert words("Press 1, it's OK to log in!") == ["press", "one", "its", "okay", "to", "login"]
    assert words("Room 42 or 007") == ["room", "forty", "two", "or", "zero", "zero", "seven"]


def test_known_rates() -> None:
    assert word_error_rate([("please hold the line", "please hold a line")]) == 0.25
    assert word_error_rate([("yes", "yes"), ("no", "")]) == 0.5
    assert word_error_rate([]) == 0


@given(WORDS, WORDS)
def test_it_is_a_distance(one: list[str], other: list[str]) -> None:
    assert errors(one, other) == errors(other, one)
    assert abs(len(one) - len(other)) <= errors(one, other) <= max(len(one), len(other))
    assert (errors(one, other) == 0) == (one == other)
