"""What words alone tell: times, and whether a turn is over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_worker.cascade import turns, words

FINISHED = ["What time do you close?", "Do you have a loan car", "Thank you very much. Goodbye.", "Yes, please."]
SPELLED = ["My number is four seven", "It's A B 1 2", "My name is", "four seven one five"]
DANGLING = ["I wanted to ask about the", "And then I", "How much is it for an oil change and", "So,"]


@pytest.mark.parametrize("text", FINISHED)
def test_a_finished_turn_is_answered_soon(text: str) -> None:
    assert turns.judge(text, 0.9).pause_s <= 0.3


@pytest.mark.parametrize("text", [*SPELLED, *DANGLING])
def test_a_turn_that_is_not_finished_waits_however_it_sounds(text: str) -> None:
    assert turns.judge(text, 0.6).pause_s >= 1.2
    assert turns.judge(text, 0.0).pause_s >= 0.9


def test_prosody_counts_where_words_do_not_tell() -> None:
    text = "My oil light is still on"
    assert turns.judge(text, 0.95).pause_s < turns.judge(text, 0.5).pause_s
    text = "I have a Hyundai Elantra"
    assert turns.judge(text, 0.95).pause_s < turns.judge(text, 0.5).pause_s < turns.judge(text, 0.05).pause_s


@given(st.text(max_size=60), st.floats(0, 1))
def test_any_turn_ends_some_time(text: str, prosody: float) -> None:
    judgement = turns.judge(text, prosody)
    assert turns.SHORTEST_S <= judgement.pause_s <= turns.LONGEST_S
    assert 0 <= judgement.score <= 1


def test_word_times_are_spread_over_the_voiced_spans() -> None:
    timed = words.timed("one two three four", [(16_000, 24_000), (32_000, 40_000)], 0.8)
    assert [word.text for word in timed] == ["one", "two", "three", "four"]
    assert timed[0].start_s == 1.0
    assert timed[-1].end_s == 2.5
    assert timed[1].end_s <= 1.5, "the pause belongs to no word"
    assert timed[2].start_s >= timed[1].start_s
    assert {word.probability for word in timed} == {0.8}


@given(
    st.lists(st.text(st.characters(categories=["L"]), min_size=1, max_size=9), max_size=20),
    st.lists(st.tuples(st.integers(0, 9000), st.integers(1, 9000)), min_size=1, max_size=5),
)
def test_word_times_never_go_back(said: list[str], steps: list[tuple[int, int]]) -> None:
    spans, at = [], 0
    for gap, length in steps:
        spans.append((at + gap, at + gap + length))
        at += gap + length
    timed = words.timed(" ".join(said), spans, 1.0)
    assert len(timed) == len(said)
    edges = [edge for word in timed for edge in (word.start_s, word.end_s)]
    assert all(a <= b for a, b in zip(edges[::2], edges[1::2], strict=True))
    assert all(spans[0][0] / 16_000 - 0.001 <= edge <= at / 16_000 + 0.001 for edge in edges)


@pytest.mark.parametrize(("text", "noise"), [("Mhm.", True), ("Um, uh", True), ("Yes", False), ("um four", False)])
def test_noise(text: str, noise: bool) -> None:
    assert words.is_noise(text) is noise
