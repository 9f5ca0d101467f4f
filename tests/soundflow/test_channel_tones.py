from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundflow import synth, tones
from soundflow.channel import WIDEBAND, Channel, draw_channel, through
from soundflow.policy import SOUNDS

RATE = 16_000


def level_at(pcm: np.ndarray, hz: float) -> float:
    """Amplitude of a frequency."""
    t = np.arange(len(pcm)) / RATE
    return float(2 * abs(np.mean(pcm * np.exp(-2j * np.pi * hz * t))))


def noise(seconds: float = 2.0, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)


def test_g711_keeps_the_time_and_the_telephone_band() -> None:
    t = np.arange(2 * RATE) / RATE
    pcm = (0.2 * np.sin(2 * np.pi * 1_000 * t) + 0.2 * np.sin(2 * np.pi * 6_000 * t)).astype(np.float32)
    heard = through(pcm, Channel(law="mulaw"), np.random.default_rng(1))
    assert len(heard) == len(pcm)
    assert abs(level_at(heard, 1_000) - 0.2) < 0.01
    assert level_at(heard, 6_000) < 0.001
    click = np.zeros(RATE, np.float32)
    click[8_000:8_040] = 0.5
    assert abs(int(np.argmax(np.abs(through(click, Channel(law="alaw"), np.random.default_rng(1))))) - 8_020) < 40


def test_gain_echo_and_noise() -> None:
    pcm = np.zeros(RATE, np.float32)
    pcm[100:200] = 0.5
    rng = np.random.default_rng(1)
    assert abs(through(pcm, Channel(gain_db=-6.0), rng)[150] - 0.25) < 0.01
    echoed = through(pcm, Channel(echo_db=-20.0, echo_s=0.1), rng)
    assert abs(echoed[1_750] - 0.05) < 0.001
    hissing = through(np.zeros(RATE, np.float32), Channel(noise_db=-40.0), rng)
    assert abs(20 * np.log10(hissing.std()) + 40) < 0.5


def test_lost_packets_are_concealed_and_counted() -> None:
    """Of bursts of five on average, two thirds of the packets come after the concealment has faded out."""
    heard = through(noise(200.0), Channel(law="mulaw", loss=0.1, burst=5.0), np.random.default_rng(2))
    packets = heard.reshape(-1, 320).std(axis=1)
    assert 0.045 < float((packets < 0.01).mean()) < 0.085
    assert len(heard) == 200 * RATE
    single = through(noise(20.0), Channel(law="mulaw", loss=0.05, burst=1.0), np.random.default_rng(2))
    assert single.reshape(-1, 320).std(axis=1).min() > 0.02  # one at a time is always filled


def test_an_odd_number_of_samples() -> None:
    with pytest.raises(ValueError, match="whole samples at 8 kHz"):
        through(np.zeros(11, np.float32), Channel(law="alaw"), np.random.default_rng(1))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_any_line_gives_sound_in_range(seed: int) -> None:
    rng = np.random.default_rng(seed)
    channel = draw_channel(rng)
    heard = through(noise(0.8, seed) * 5, channel, rng)
    assert heard.dtype == np.float32
    assert len(heard) == 12_800
    assert float(np.abs(heard).max()) <= 1.0


def test_nothing_happens_on_a_perfect_line() -> None:
    assert np.array_equal(through(noise(), WIDEBAND, np.random.default_rng(1)), noise())


def test_ringback_of_north_america_and_britain() -> None:
    """ANSI T1.401: 440 + 480 Hz, 2 s on, 4 s off. British Telecom: 400 + 450 Hz, 0.4 on, 0.2 off, 0.4 on, 2 s off."""
    us = tones.progress_tone("us", "ringback", 6.0)
    assert level_at(us[: 2 * RATE], 440) > 0.2
    assert level_at(us[: 2 * RATE], 480) > 0.2
    assert float(np.abs(us[int(2.05 * RATE) :]).max()) == 0.0
    gb = np.abs(tones.progress_tone("gb", "ringback", 3.0))
    for begin, on in ((0.1, True), (0.45, False), (0.7, True), (1.1, False), (2.9, False)):
        window = gb[int(begin * RATE) : int((begin + 0.1) * RATE)]
        assert (float(window.max()) > 0.1) is on


def test_busy_can_begin_in_the_middle() -> None:
    late = tones.progress_tone("us", "busy", 1.0, begin_s=0.6)
    assert float(np.abs(late[: int(0.35 * RATE)]).max()) == 0.0
    assert float(np.abs(late[int(0.45 * RATE) :]).max()) > 0.1


@pytest.mark.parametrize(("kind", "hz"), [("intercept", 913.8), ("vacant", 985.2), ("no_circuit", 985.2)])
def test_special_information_begins_with_its_frequency(kind: str, hz: float) -> None:
    pcm = tones.special_information(kind)
    assert level_at(pcm[: int(0.27 * RATE)], hz) > 0.3
    assert level_at(pcm[-int(0.35 * RATE) :], 1776.7) > 0.3


def test_fax_and_dtmf() -> None:
    calling = tones.fax_calling(4.0)
    assert level_at(calling[: RATE // 2], 1_100) > 0.4
    assert float(np.abs(calling[int(0.6 * RATE) : int(3.4 * RATE)]).max()) == 0.0
    assert level_at(tones.fax_answer(3.0), 2_100) > 0.4
    reversing = tones.fax_answer(1.8, v8=True)
    assert level_at(reversing, 2_100) < 0.05  # half of it has the other phase
    five = tones.dtmf("5", on_s=0.2)[: int(0.2 * RATE)]
    assert level_at(five, 770) > 0.2
    assert level_at(five, 1336) > 0.2
    with pytest.raises(ValueError, match="substring"):
        tones.dtmf("x")


def test_every_tone_of_every_country() -> None:
    for country, plan in tones.PLANS.items():
        assert set(plan) == {"dial", "ringback", "busy", "congestion"}, country
        for name in plan:
            pcm = tones.progress_tone(country, name, 6.5)
            assert len(pcm) == int(6.5 * RATE)
            assert 0.1 < float(np.abs(pcm).max()) <= 0.5


@pytest.mark.parametrize("label", sorted(synth.SYNTHESISED))
def test_synthesised_sounds(label: str) -> None:
    assert label in SOUNDS
    made = [synth.SYNTHESISED[label](np.random.default_rng(seed), 2.0) for seed in (1, 1, 2)]
    assert np.array_equal(made[0], made[1])
    assert made[0].dtype == np.float32
    assert abs(float(np.abs(made[0]).max()) - 0.5) < 1e-6
    assert len(made[0]) <= 2 * RATE
    assert len(made[0]) != len(made[2]) or not np.array_equal(made[0], made[2])
