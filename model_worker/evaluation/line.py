"""What a telephone line sounds like when nobody speaks: noise, hum and clicks, and the tones of call progress."""

from __future__ import annotations

import numpy as np

from calls.audio import SAMPLE_RATE
from model_worker.evaluation.audio import Pcm, room

Rng = np.random.Generator

# (frequencies in Hz, seconds on, seconds off): ITU-T E.180 Supplement 2 for North America; T.30 for fax; the last is
# the beep of an answering machine.
TONES: tuple[tuple[tuple[float, ...], float, float], ...] = (
    ((440, 480), 2.0, 4.0),  # ringback
    ((480, 620), 0.5, 0.5),  # busy
    ((480, 620), 0.25, 0.25),  # congestion
    ((350, 440), 3.0, 0.5),  # dial tone
    ((2100,), 3.0, 1.0),  # a fax machine answers
    ((1100,), 0.5, 3.0),  # a fax machine calls
    ((1000,), 0.6, 2.0),
)
TONE_DBFS = -18.0
STRETCH_S = 20.0  # of one tone, or of one level of noise


def quiet_room(samples: int, rng: Rng) -> Pcm:
    """Nothing but the room."""
    return room(samples / SAMPLE_RATE, rng)[:samples]


def line_noise(samples: int, rng: Rng) -> Pcm:
    """Hiss that changes its level between -60 and -35 dBFS, mains hum, and a click now and then."""
    out = np.zeros(samples, np.float64)
    stretch = round(STRETCH_S * SAMPLE_RATE)
    for at in range(0, samples, stretch):
        part = room(STRETCH_S, rng, rng.uniform(-60, -35))[: samples - at]
        out[at : at + len(part)] += part
    seconds = np.arange(samples) / SAMPLE_RATE
    mains = rng.choice([50.0, 60.0])
    for harmonic in (1, 2, 3, 5):
        out += 32768 * 10 ** (-58 / 20) / harmonic * np.sin(2 * np.pi * mains * harmonic * seconds)
    for at in rng.integers(0, max(1, samples - 200), max(1, samples // (8 * SAMPLE_RATE))):
        click = rng.standard_normal(160) * np.exp(-np.arange(160) / 20) * rng.uniform(500, 4_000)
        out[at : at + 160] += click[: samples - at]
    return _pcm(out)


def tones(samples: int, rng: Rng) -> Pcm:
    """The tones in turn, each for a while, on a quiet line."""
    out = quiet_room(samples, rng).astype(np.float64)
    stretch = round(STRETCH_S * SAMPLE_RATE)
    for number, at in enumerate(range(0, samples, stretch)):
        frequencies, on_s, off_s = TONES[number % len(TONES)]
        seconds = np.arange(min(stretch, samples - at)) / SAMPLE_RATE
        sounding = seconds % (on_s + off_s) < on_s
        level = 32768 * 10 ** (TONE_DBFS / 20)
        for frequency in frequencies:
            out[at : at + len(seconds)] += sounding * level * np.sin(2 * np.pi * frequency * seconds)
    return _pcm(out)


def _pcm(signal: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Pcm:
    return np.clip(np.rint(signal), -32768, 32767).astype(np.int16)
