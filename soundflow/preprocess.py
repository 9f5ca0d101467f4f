"""From a recording to an event: the time-frequency preprocessing of SoundFlow (arXiv 2606.05121), step by step.

    silence     long inner silences are cut short, those at the ends are cut off
    noise       the noise's spectrum is estimated from the quietest frames
    denoise     and subtracted, where there is a difference between quiet and loud at all (rain has none)
    dense       the span with the most sound in it is kept
    align       its length becomes a multiple of half a Chunk, its ends are faded
    smooth      each frequency is smoothed over short windows

All on float32 [samples] at 16 kHz mono; a step never makes an empty clip.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calls.audio import CHUNK_SAMPLES, SAMPLE_RATE

Pcm = npt.NDArray[np.float32]
Spectrum = npt.NDArray[np.complex64]

HALF_CHUNK = CHUNK_SAMPLES // 2
_WINDOW, _HOP = 512, 128  # 32 ms every 8 ms: four windows over each sample
_FRAME = 320  # 20 ms, for energies
_SILENCE_DB = -40.0  # below the clip's loud frames
_GAP_S, _KEEP_S = 0.4, 0.1  # an inner silence longer than the first becomes twice the second
_QUIET_SHARE = 0.1  # of the frames: there the noise is measured
_DIFFERENCE_DB = 12.0  # between loud and quiet, below which there is no telling noise from sound
_OVER = 3.0  # the quietest frames tell less than the noise has on average, and it varies
_FLOOR = 0.1  # no frequency is turned down by more than 20 dB
_FADE = 80  # samples: 5 ms


@dataclass(frozen=True, slots=True)
class Step:
    """What a step has left, and in a few words what it did."""

    name: str
    pcm: Pcm
    note: str


def preprocess(pcm: Pcm, longest_s: float = 3.0, *, denoise_it: bool = True) -> Pcm:
    """All steps; see `steps`."""
    return steps(pcm, longest_s, denoise_it=denoise_it)[-1].pcm


def steps(pcm: Pcm, longest_s: float = 3.0, *, denoise_it: bool = True) -> list[Step]:
    """What each step leaves, the recording itself first. Of more than `longest_s` so much is kept: 20 ms or more
    (ValueError otherwise)."""
    made = [Step("recording", pcm, f"{len(pcm) / SAMPLE_RATE:.2f} s")]
    cut = cut_silence(pcm)
    made.append(Step("silence", cut, f"{(len(pcm) - len(cut)) / SAMPLE_RATE:.2f} s of silence cut"))
    if denoise_it:
        profile = noise_profile(cut)
        clean = cut if profile is None else denoise(cut, profile)
        note = "no quiet frames to measure noise in" if profile is None else f"{_change_db(cut, clean):.1f} dB less"
        made.append(Step("denoise", clean, note))
    begin, end = dense_span(made[-1].pcm, longest_s)
    dense = made[-1].pcm[begin:end]
    made.append(Step("dense", dense, f"{begin / SAMPLE_RATE:.2f}-{end / SAMPLE_RATE:.2f} s kept"))
    aligned = align(dense)
    made.append(Step("align", aligned, f"{len(aligned) // HALF_CHUNK} half Chunks"))
    made.append(Step("smooth", smooth(aligned), "each frequency over three windows"))
    return made


def cut_silence(pcm: Pcm) -> Pcm:
    """Ends are cut to the first and last sound; inner silences over 0.4 s become 0.2 s."""
    loud = _loud_frames(pcm)
    if not loud.any():
        return pcm
    keep = np.zeros(len(loud), bool)
    margin = int(_KEEP_S * SAMPLE_RATE / _FRAME)
    gap = int(_GAP_S * SAMPLE_RATE / _FRAME)
    places = np.flatnonzero(loud)
    for here, after in itertools.pairwise(places):
        if after - here <= gap:
            keep[here:after] = True
        else:
            keep[here : here + margin + 1] = True
            keep[after - margin : after] = True
    keep[places[-1]] = True
    cut: Pcm = pcm[: len(keep) * _FRAME][np.repeat(keep, _FRAME)]
    return cut


def noise_profile(pcm: Pcm) -> npt.NDArray[np.float32] | None:
    """Mean magnitudes [frequencies] of the quietest tenth of the frames; None if loud and quiet hardly differ."""
    magnitudes = np.abs(stft(pcm))
    energy = (magnitudes**2).sum(axis=1)
    quiet, loud = np.quantile(energy, [_QUIET_SHARE, 0.9])
    if loud <= 0 or 10 * np.log10((loud + 1e-12) / (quiet + 1e-12)) < _DIFFERENCE_DB:
        return None
    profile: npt.NDArray[np.float32] = magnitudes[energy <= quiet].mean(axis=0).astype(np.float32)
    return profile


def denoise(pcm: Pcm, profile: npt.NDArray[np.float32]) -> Pcm:
    """Wiener-like subtraction of a noise's magnitudes [frequencies], never below a tenth."""
    spectrum = stft(pcm)
    power = np.abs(spectrum) ** 2
    gain = np.maximum(1.0 - _OVER * profile**2 / (power + 1e-12), 0.0)
    gain = np.maximum(_box(np.sqrt(gain).astype(np.float32)), _FLOOR)
    return istft((spectrum * gain).astype(np.complex64), len(pcm))


def dense_span(pcm: Pcm, longest_s: float) -> tuple[int, int]:
    """[begin, end) in samples of the stretch of at most `longest_s` with the most loud frames, and from its first.

    ValueError: `longest_s` is less than a frame of 20 ms, or no length.
    """
    if not _FRAME / SAMPLE_RATE <= longest_s < math.inf:
        raise ValueError(f"{longest_s} s are not a length to keep")
    longest = int(longest_s * SAMPLE_RATE)
    loud = _loud_frames(pcm)
    if len(pcm) <= longest or not loud.any():
        return 0, len(pcm)
    frames = max(1, longest // _FRAME)
    energy = np.sqrt(_energies(pcm)) * loud
    sums = np.convolve(energy, np.ones(frames, np.float32), "valid")
    first = int(np.argmax(sums))
    # An event has a beginning. A span that starts inside one is moved back to where it began, if that is near.
    near = max(0, first - frames // 3)
    quiet = np.flatnonzero(~loud[near : first + 1])
    if loud[first] and len(quiet):
        first = near + int(quiet[-1]) + 1
    first += int(np.argmax(loud[first:])) if loud[first:].any() else 0
    begin = first * _FRAME
    return begin, min(begin + longest, len(pcm))


def align(pcm: Pcm) -> Pcm:
    """To a multiple of half a Chunk: cut if little is over, filled with silence if not; ends faded over 5 ms."""
    over = len(pcm) % HALF_CHUNK
    cut = over < HALF_CHUNK // 4 and len(pcm) > HALF_CHUNK
    made = pcm[: len(pcm) - over].copy() if cut else pcm.copy()
    fade = min(_FADE, len(made) // 2)
    if fade:
        ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
        made[:fade] *= ramp
        made[len(made) - fade :] *= ramp[::-1]
    return made if cut else np.pad(made, (0, -len(made) % HALF_CHUNK))


def smooth(pcm: Pcm) -> Pcm:
    """Magnitudes are averaged over three windows of 8 ms, phases kept: clicks of the steps before disappear."""
    spectrum = stft(pcm)
    magnitudes = np.abs(spectrum)
    gain = np.minimum(_box(magnitudes.astype(np.float32)) / (magnitudes + 1e-9), 2.0)
    return istft((spectrum * gain).astype(np.complex64), len(pcm))


def stft(pcm: Pcm) -> Spectrum:
    """complex64 [windows, 257]."""
    padded = np.pad(pcm, (_WINDOW - _HOP, _WINDOW))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    spectrum: Spectrum = np.fft.rfft(windows * _hann(), axis=1).astype(np.complex64)
    return spectrum


def istft(spectrum: Spectrum, length: int) -> Pcm:
    """The reverse of `stft`: exact where nothing was changed."""
    windows = np.fft.irfft(spectrum, _WINDOW, axis=1) * _hann()
    total = np.zeros((len(windows) - 1) * _HOP + _WINDOW)
    weight = np.zeros_like(total)
    square = _hann() ** 2
    for number, window in enumerate(windows):
        total[number * _HOP : number * _HOP + _WINDOW] += window
        weight[number * _HOP : number * _HOP + _WINDOW] += square
    begin = _WINDOW - _HOP
    made: Pcm = (total / np.maximum(weight, 1e-6))[begin : begin + length].astype(np.float32)
    return made


def rms(pcm: Pcm) -> float:
    return float(np.sqrt(np.mean(np.square(pcm, dtype=np.float64)))) if len(pcm) else 0.0


def _hann() -> npt.NDArray[np.float32]:
    return np.hanning(_WINDOW + 1)[:-1].astype(np.float32)


def _box(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The mean with the windows before and after, along axis 0."""
    padded = np.pad(values, ((1, 1), (0, 0)), mode="edge")
    return ((padded[:-2] + padded[1:-1] + padded[2:]) / 3).astype(np.float32)


def _energies(pcm: Pcm) -> npt.NDArray[np.float32]:
    """Mean square a frame of 20 ms; a rest of less than a frame is left out."""
    frames = max(1, len(pcm) // _FRAME)
    padded = np.pad(pcm, (0, max(0, _FRAME - len(pcm))))
    energies: npt.NDArray[np.float32] = (padded[: frames * _FRAME].reshape(frames, _FRAME) ** 2).mean(axis=1)
    return energies


def _loud_frames(pcm: Pcm) -> npt.NDArray[np.bool_]:
    energies = _energies(pcm)
    reference = float(np.quantile(energies, 0.95)) or float(energies.max())
    loud: npt.NDArray[np.bool_] = energies > max(reference * 10 ** (_SILENCE_DB / 10), 1e-9)
    return loud


def _change_db(before: Pcm, after: Pcm) -> float:
    return 20 * float(np.log10((rms(before) + 1e-9) / (rms(after) + 1e-9)))
