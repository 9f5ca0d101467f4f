"""Real telephone prompts with known texts: Debian's `asterisk-core-sounds-en-wav` (Allison Smith, CC BY-SA 3.0).

The recordings are not part of this repository; `model_worker/evaluation/prompts.tsv` says what is said in some of them.
"""

from __future__ import annotations

import wave
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.float32]

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
PROMPTS = Path(__file__).resolve().parents[1] / "model_worker" / "evaluation" / "prompts.tsv"
_MU = 255.0


@lru_cache(maxsize=1)
def prompts() -> dict[str, str]:
    """Name -> what is said."""
    return dict(line.split("\t", 1) for line in PROMPTS.read_text(encoding="utf-8").splitlines())


def read_prompt(name: str) -> Pcm:
    """A prompt as a caller's bridge would hear it: 8 kHz G.711 mu-law, then 16 kHz float32 mono [samples]."""
    with wave.open(str(SOUNDS / f"{name}.wav")) as recording:
        rate = recording.getframerate()
        pcm = np.frombuffer(recording.readframes(recording.getnframes()), "<i2").astype(np.float32) / 32768.0
    return resample(mu_law(resample(pcm, rate, 8_000)), 8_000, 16_000)


def mu_law(pcm: Pcm) -> Pcm:
    """Through G.711's companding curve and its eight bits, and back."""
    bent = np.sign(pcm) * np.log1p(_MU * np.minimum(np.abs(pcm), 1.0)) / np.log1p(_MU)
    coded = np.round(bent * 127.0) / 127.0
    heard: Pcm = (np.sign(coded) * np.expm1(np.abs(coded) * np.log1p(_MU)) / _MU).astype(np.float32)
    return heard


def resample(pcm: Pcm, rate: int, wanted: int) -> Pcm:
    """A whole recording to another rate, by its spectrum."""
    if rate == wanted:
        return pcm
    length = len(pcm) * wanted // rate
    made: Pcm = (np.fft.irfft(np.fft.rfft(pcm), length) * (length / len(pcm))).astype(np.float32)
    return made
