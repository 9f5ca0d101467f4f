from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speech import Pcm
from model_worker.cascade.mel import log_mel
from model_worker.cascade.turn_end import TurnEnd

NAMES = ["agent-incorrect", "agent-pass", "conf-extended", "conf-onlyperson", "invalid", "privacy-prompt", "transfer"]
SILENCE = np.zeros(3_200, np.float32)


@pytest.fixture(scope="module")
def turn_end(models: Callable[[str], Path]) -> TurnEnd:
    return TurnEnd(models("smart-turn"))


def test_finished_sentences_are_told_from_broken_ones(turn_end: TurnEnd, speech: Callable[[str], Pcm]) -> None:
    whole = [turn_end.probability(np.concatenate([speech(name), SILENCE])) for name in NAMES]
    broken = [turn_end.probability(np.concatenate([speech(n)[: len(speech(n)) // 2], SILENCE])) for n in NAMES]
    assert all(0 <= chance <= 1 for chance in whole + broken)
    assert np.mean(whole) > 0.8
    assert np.mean(whole) > np.mean(broken) + 0.2


def test_only_the_last_eight_seconds_count(turn_end: TurnEnd, speech: Callable[[str], Pcm]) -> None:
    tail = np.concatenate([speech("demo-echotest")[-8 * 16_000 :]])
    longer = np.concatenate([speech("agent-pass"), tail])
    assert turn_end.probability(longer) == pytest.approx(turn_end.probability(tail), abs=1e-6)


def test_nothing_said_does_not_fail(turn_end: TurnEnd) -> None:
    assert 0 <= turn_end.probability(np.zeros(0, np.float32)) <= 1


def test_a_tone_lights_up_its_own_mel() -> None:
    tone = np.sin(np.arange(16_000) * 2 * np.pi * 1_000 / 16_000).astype(np.float32)
    mel = log_mel(tone)
    assert mel.shape == (80, 100)
    assert mel.dtype == np.float32
    # 1 kHz is mel 15 of 0..45.2 on the Slaney scale, so filter 15 / 45.2 * 81 - 1.
    assert abs(int(mel.mean(axis=1).argmax()) - 26) <= 1
    assert mel.max() - mel.min() <= 2.0 + 1e-5
