"""The sounds that the tests play, at 16 kHz."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from calls.audio import FRAME_SAMPLES, SAMPLE_RATE, Frame

DATA = Path(__file__).resolve().parents[1] / "data"
DIGITS = sorted((DATA / "digits").glob("*.wav"))
Samples = NDArray[np.int16]


@cache
def load(path: Path) -> Samples:
    """Any audio file as 16 kHz mono."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    with av.open(str(path)) as file:
        frames = [out for frame in file.decode(audio=0) for out in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def spoken(count: int, first: int = 0) -> Samples:
    """Some digits in a row, by several speakers."""
    return np.concatenate([load(DIGITS[(first + 5 * i) % len(DIGITS)]) for i in range(count)])


def noise(seconds: float, level: float = 25.0) -> Samples:
    samples: Samples = (np.random.default_rng(0).standard_normal(int(seconds * SAMPLE_RATE)) * level).astype(np.int16)
    return samples


def over(sound: Samples, at_s: float, background: Samples) -> Samples:
    """`sound` laid over `background` from `at_s` on."""
    mixed = background.astype(np.int32)
    start = int(at_s * SAMPLE_RATE)
    mixed[start : start + len(sound)] += sound[: len(mixed) - start]
    return mixed.clip(-32768, 32767).astype(np.int16)


def hummed(pitch_hz: float) -> Samples:
    """ "mhm": two short hums, the second higher."""
    hums = []
    for length_s, factor in ((0.18, 1.0), (0.25, 1.15)):
        t = np.arange(int(length_s * SAMPLE_RATE)) / SAMPLE_RATE
        tone = sum(np.sin(2 * np.pi * pitch_hz * factor * k * t) / k**2 for k in range(1, 8))
        hums += [tone * np.hanning(len(t)) * 4000, np.zeros(320)]
    return np.concatenate(hums).astype(np.int16)


def frames(samples: Samples) -> list[Frame]:
    """Whole Frames; the rest is filled with silence."""
    whole = -(-len(samples) // FRAME_SAMPLES) * FRAME_SAMPLES
    padded = np.zeros(whole, np.int16)
    padded[: len(samples)] = samples
    return [padded[i : i + FRAME_SAMPLES].astype("<i2").tobytes() for i in range(0, whole, FRAME_SAMPLES)]
