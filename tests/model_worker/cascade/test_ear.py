"""Segmentation by probabilities that the tests write themselves: a row of windows, each voiced or not."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from calls.audio import CHUNK_BYTES, CHUNK_S, CHUNK_SAMPLES, SAMPLE_RATE, Chunk
from model_worker.cascade.ear import ANSWERING, LISTENING, LONGEST_S, PRE_ROLL, TAIL, Ear, Patience, Speech
from model_worker.cascade.vad import WINDOW


def hear(ear: Ear, voiced: list[bool]) -> list[Speech]:
    """Feed whole Chunks, padded with silence; `voiced` counts in windows of 32 ms."""
    ended: list[Speech] = []
    judged = 0
    index = 0
    while judged < len(voiced):
        pcm = ear.take(Chunk("c", ear.participant_id, index, bytes(CHUNK_BYTES)))
        assert pcm is not None
        windows = ((index + 1) * CHUNK_SAMPLES) // WINDOW - judged
        row = [0.9 if i < len(voiced) and voiced[i] else 0.05 for i in range(judged, judged + windows)]
        ended += ear.hear(pcm, row)
        judged += windows
        index += 1
    return ended


def windows(seconds: float, voice: bool) -> list[bool]:
    return [voice] * round(seconds * SAMPLE_RATE / WINDOW)


def test_speech_has_its_times_and_a_little_audio_around_it() -> None:
    ended = hear(Ear("caller"), windows(2.0, False) + windows(1.5, True) + windows(1.5, False))
    assert [speech.id for speech in ended] == ["caller-4"]
    speech = ended[0]
    assert abs(speech.start_s - 2.0) < 0.05
    assert abs(speech.end_s - 3.5) < 0.05
    assert speech.closed
    assert PRE_ROLL <= speech.start - speech.origin <= PRE_ROLL + WINDOW
    assert len(speech.pcm()) == speech.voiced_until + TAIL - speech.origin
    assert speech.certainty > 0.8


def test_a_click_is_not_speech() -> None:
    ear = Ear("caller")
    assert hear(ear, [*windows(1.0, False), True, *windows(0.5, False), True, True, *windows(2.0, False)]) == []
    assert ear.speech is None


def test_a_short_pause_does_not_end_it_and_a_long_one_does() -> None:
    talk = windows(1.0, True) + windows(0.4, False) + windows(1.0, True) + windows(0.7, False) + windows(1.0, True)
    ended = hear(Ear("caller"), talk + windows(1.0, False))
    assert [round(speech.end_s - speech.start_s, 1) for speech in ended] == [2.4, 1.0]
    assert len(ended[0].spans) == 2


def test_a_caller_who_is_to_be_answered_may_think() -> None:
    ended = hear(Ear("caller", ANSWERING), windows(1.0, True) + windows(1.2, False) + windows(1.0, True))
    assert ended == []


def test_long_talk_is_cut_at_its_widest_gap() -> None:
    talk = windows(7.0, True) + windows(0.13, False) + windows(8.0, True) + windows(1.0, False)
    ended = hear(Ear("caller", Patience(((0.0, 0.6),))), talk)
    assert len(ended) == 2
    assert abs(ended[0].end_s - 7.0) < 0.1
    assert abs(ended[1].start_s - 7.1) < 0.1
    assert ended[1].closed


def test_talk_without_any_gap_is_cut_where_it_gets_too_long() -> None:
    ended = hear(Ear("caller"), windows(30.0, True) + windows(1.0, False))
    assert len(ended) == 3
    assert all(speech.end_s - speech.start_s <= LONGEST_S + 0.1 for speech in ended)
    gaps = [after.start_s - before.end_s for before, after in pairwise(ended)]
    assert all(gap <= 0.07 for gap in gaps), "next to nothing is lost between two pieces"


def test_a_chunk_heard_before_is_ignored_and_a_missing_one_is_silence() -> None:
    ear = Ear("caller")
    assert ear.take(Chunk("c", "caller", 0, bytes(CHUNK_BYTES))) is not None
    ear.hear(np.zeros(CHUNK_SAMPLES, np.float32), [0.9] * 12)
    assert ear.take(Chunk("c", "caller", 0, bytes(CHUNK_BYTES))) is None
    assert ear.take(Chunk("c", "caller", 3, bytes(CHUNK_BYTES))) is not None
    assert ear.heard_until == 3 * CHUNK_SAMPLES
    ended = ear.hear(np.zeros(CHUNK_SAMPLES, np.float32), [0.05] * 12)
    assert [speech.id for speech in ended] == ["caller-0"]


def test_what_an_earlier_worker_finished_is_not_heard_again() -> None:
    ended = hear(Ear("caller", deaf_until=SAMPLE_RATE), windows(1.0, True) + windows(1.2, False) + windows(1.0, True)
                 + windows(1.0, False))  # fmt: skip
    assert [speech.id for speech in ended] == ["caller-5"]


@given(st.lists(st.tuples(st.floats(0.03, 6.0), st.booleans()), max_size=12))
def test_any_talk(parts: list[tuple[float, bool]]) -> None:
    """Ids are unique, pieces are in order, never overlap, never too long, and every one holds its audio."""
    talk = [voiced for seconds, voice in parts for voiced in windows(seconds, voice)]
    ear = Ear("caller", LISTENING)
    ended = hear(ear, talk + windows(2.0, False))
    assert ear.speech is None
    assert len({speech.id for speech in ended}) == len(ended)
    for speech in ended:
        assert speech.end_s - speech.start_s <= LONGEST_S + CHUNK_S
        assert speech.origin <= speech.start
        assert len(speech.pcm()) >= speech.voiced_until - speech.origin
    for before, after in pairwise(ended):
        assert before.voiced_until <= after.start
    again = Ear("caller", LISTENING)
    assert [(s.id, s.spans) for s in hear(again, talk + windows(2.0, False))] == [(s.id, s.spans) for s in ended]
