"""The log-mel spectrogram of Whisper (Radford et al. 2022), in numpy: 80 Slaney mels, 25 ms windows, 10 ms apart."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
HOP = 160
MELS = 80
_WINDOW = 400

Array = npt.NDArray[np.float32]


def log_mel(pcm: Array) -> Array:
    """16 kHz float32 mono [samples] -> [80, samples // 160], about -1..1, floored 8 decades below the loudest cell."""
    padded = np.pad(np.asarray(pcm, np.float32), _WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP][: len(pcm) // HOP]
    spectrum = np.fft.rfft(frames * _hann(), axis=-1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    mel = np.log10(np.maximum(_filters() @ power.T, 1e-10))
    floored: Array = ((np.maximum(mel, mel.max() - 8.0) + 4.0) / 4.0).astype(np.float32)
    return floored


@lru_cache(maxsize=1)
def _hann() -> Array:
    periodic: Array = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
    return periodic


@lru_cache(maxsize=1)
def _filters() -> Array:
    """Triangles of equal area on the Slaney mel scale (linear to 1 kHz, logarithmic above): [80, 201]."""
    edges = _mel_to_hertz(np.linspace(0.0, _hertz_to_mel(SAMPLE_RATE / 2), MELS + 2))
    bins = np.linspace(0.0, SAMPLE_RATE / 2, _WINDOW // 2 + 1)
    slopes = edges[:, None] - bins[None]
    widths = np.diff(edges)[:, None]
    triangles = np.maximum(0.0, np.minimum(-slopes[:-2] / widths[:-1], slopes[2:] / widths[1:]))
    weights: Array = (triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
    return weights


_LOG_STEP = np.log(6.4) / 27.0


def _hertz_to_mel(hertz: float) -> float:
    """For 1 kHz and above."""
    return float(15.0 + np.log(hertz / 1000.0) / _LOG_STEP)


def _mel_to_hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(mel < 15.0, 200.0 * mel / 3.0, 1000.0 * np.exp(_LOG_STEP * (mel - 15.0)))
