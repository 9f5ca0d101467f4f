from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.speech import Pcm
from model_worker.cascade.vad import WINDOW, SpeechGate, VoiceActivity, VoiceState

Speech = Callable[[str], Pcm]


@pytest.fixture(scope="module")
def voice_activity(models: Callable[[str], Path]) -> VoiceActivity:
    return VoiceActivity(models("silero-vad"))


def test_speech_and_its_absence(voice_activity: VoiceActivity, speech: Speech) -> None:
    said = voice_activity.feed(VoiceState(), speech("agent-pass"))
    noise = np.random.default_rng(0).normal(0, 0.02, 32_000).astype(np.float32)
    assert np.mean(np.array(said) > 0.5) > 0.7
    assert max(voice_activity.feed(VoiceState(), noise)) < 0.5


def test_however_the_audio_is_cut_the_answer_is_the_same(voice_activity: VoiceActivity, speech: Speech) -> None:
    pcm = speech("agent-pass")
    whole = voice_activity.feed(VoiceState(), pcm)
    state = VoiceState()
    pieces = [chance for i in range(0, len(pcm), 320) for chance in voice_activity.feed(state, pcm[i : i + 320])]
    assert len(whole) == len(pcm) // WINDOW
    np.testing.assert_allclose(pieces, whole, atol=1e-5)


def test_a_batch_keeps_its_streams_apart(voice_activity: VoiceActivity, speech: Speech) -> None:
    pcms = [speech("agent-pass"), speech("transfer"), np.zeros(100, np.float32)]
    states = [VoiceState() for _ in pcms]
    together = voice_activity.feed_many(list(zip(states, pcms, strict=True)))
    for heard, pcm in zip(together, pcms, strict=True):
        np.testing.assert_allclose(heard, voice_activity.feed(VoiceState(), pcm), atol=1e-4)


def test_the_gate_opens_on_speech_and_closes_after_the_hang() -> None:
    gate = SpeechGate(onset=2, hang=3)
    heard = [gate.feed(p) for p in (0.9, 0.1, 0.9, 0.9, 0.4, 0.1, 0.1, 0.4, 0.1, 0.1, 0.1, 0.1)]
    assert heard == [False] * 3 + [True] * 7 + [False] * 2
    assert gate.quiet == 4


@given(st.lists(st.floats(0, 1), max_size=100))
def test_the_gate_never_flickers(chances: list[float]) -> None:
    gate = SpeechGate(onset=2, hang=8)
    states = [False, *(gate.feed(chance) for chance in chances)]
    changes = [i for i in range(1, len(states)) if states[i] != states[i - 1]]
    for here, there in pairwise(changes):
        assert there - here >= (8 if states[here] else 2)
