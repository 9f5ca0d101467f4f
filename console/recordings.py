"""Recordings on the disk: finding them safely, and their waveform in bounded memory.

A recording is 16-bit PCM WAV. Its base peaks (least and greatest sample of every 20 ms, per channel) are read once in
blocks and kept; any range at any resolution is made from them, and ranges finer than 20 ms from the file itself.
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from calls.audio import FRAME_S
from console.errors import BadRecording

BLOCK_FRAMES = 500  # 10 s at a time
Peaks = npt.NDArray[np.int16]  # [bins, channels, 2]: least, greatest


def locate(folder: Path, relative: str) -> Path:
    """The file of a recording. Raises BadRecording if it is not there or not inside `folder` (links followed)."""
    root = folder.resolve()
    try:
        path = (root / relative).resolve(strict=True)
    except (OSError, ValueError) as error:
        raise BadRecording("the recording's file is not there") from error
    if not path.is_relative_to(root) or not path.is_file():
        raise BadRecording("the recording lies outside the recordings folder")
    return path


@dataclass(frozen=True, slots=True)
class Wav:
    """Where the samples of a WAV file are."""

    path: Path
    rate: int
    channels: int
    data_at: int  # offset of the first sample, bytes
    samples: int  # per channel

    @property
    def duration_s(self) -> float:
        return self.samples / self.rate


def open_wav(path: Path) -> Wav:
    """Read the RIFF chunks before the samples. A length that the file does not have (a writer that was killed) is
    cut to what is there. Raises BadRecording."""
    with path.open("rb") as file:
        riff = file.read(12)
        if len(riff) < 12 or riff[:4] != b"RIFF" or riff[8:] != b"WAVE":
            raise BadRecording("not a WAV file")
        form: tuple[int, int, int] | None = None  # channels, rate, bits
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"fmt ":
                body = file.read(size)
                if len(body) < 16:
                    break
                kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
                form = (channels, rate, bits) if kind in (1, 0xFFFE) else None
            elif name == b"data":
                if form is None or form[2] != 16 or not 1 <= form[0] <= 8 or not form[1]:
                    raise BadRecording("not a 16-bit PCM WAV file")
                there = os.fstat(file.fileno()).st_size - file.tell()
                size = there if size in (0, 0xFFFFFFFF) else min(size, there)
                return Wav(path, form[1], form[0], file.tell(), size // (2 * form[0]))
            else:
                file.seek(size + (size & 1), os.SEEK_CUR)
    raise BadRecording("the WAV file has no samples")


def _samples(file: BinaryIO, wav: Wav, start: int, count: int) -> npt.NDArray[np.int16]:
    """[count or fewer, channels]"""
    file.seek(wav.data_at + 2 * wav.channels * start)
    raw = file.read(2 * wav.channels * count)
    whole = len(raw) // (2 * wav.channels) * 2 * wav.channels
    return np.frombuffer(raw[:whole], dtype="<i2").reshape(-1, wav.channels)


def _extremes(samples: npt.NDArray[np.int16], edges: npt.NDArray[np.int64]) -> Peaks:
    """Least and greatest between successive edges (each bin holds at least one sample)."""
    low = np.minimum.reduceat(samples, edges[:-1], axis=0)
    high = np.maximum.reduceat(samples, edges[:-1], axis=0)
    return np.stack([low, high], axis=-1)


def base_peaks(wav: Wav) -> Peaks:
    """Peaks of every 20 ms. Reads the file in blocks of 10 s; a 60-minute call gives 1.4 MB."""
    frame = max(1, round(wav.rate * FRAME_S))
    found: list[Peaks] = []
    with wav.path.open("rb") as file:
        for start in range(0, wav.samples, frame * BLOCK_FRAMES):
            block = _samples(file, wav, start, min(frame * BLOCK_FRAMES, wav.samples - start))
            if not len(block):
                break
            found.append(_extremes(block, np.append(np.arange(0, len(block), frame), len(block))))
    return np.concatenate(found) if found else np.zeros((0, wav.channels, 2), np.int16)


class PeaksCache:
    """Base peaks of the recordings looked at last. Reading blocks: call from a thread."""

    def __init__(self, capacity: int = 16) -> None:
        self._base: OrderedDict[tuple[str, int, int], tuple[Wav, Peaks]] = OrderedDict()
        self._capacity = capacity

    def view(self, path: Path, bins: int, from_s: float = 0.0, to_s: float | None = None) -> dict[str, Any]:
        """`bins` (or fewer) pairs of least and greatest sample, -1..1, of each channel between two times."""
        wav, base = self._load(path)
        end = wav.samples if to_s is None else min(wav.samples, max(0, round(to_s * wav.rate)))
        start = min(max(0, round(from_s * wav.rate)), end)
        peaks = self._between(wav, base, start, end, bins)
        scaled = np.round(peaks.astype(np.float64) / 32768.0, 4)
        return {
            "duration_s": wav.duration_s,
            "from_s": start / wav.rate,
            "to_s": end / wav.rate,
            "bins": len(peaks),
            "channels": [
                {"min": scaled[:, c, 0].tolist(), "max": scaled[:, c, 1].tolist()} for c in range(wav.channels)
            ],
        }

    def _between(self, wav: Wav, base: Peaks, start: int, end: int, bins: int) -> Peaks:
        frame = max(1, round(wav.rate * FRAME_S))
        if end <= start:
            return np.zeros((0, wav.channels, 2), np.int16)
        if (end - start) / bins >= frame:
            first, last = start // frame, min(len(base), -(-end // frame))
            part = base[first:last]
            edges = _edges(len(part), bins)
            low = np.minimum.reduceat(part[:, :, 0], edges[:-1], axis=0)
            high = np.maximum.reduceat(part[:, :, 1], edges[:-1], axis=0)
            return np.stack([low, high], axis=-1)
        with wav.path.open("rb") as file:  # at most `bins` times 20 ms
            part = _samples(file, wav, start, end - start)
        return _extremes(part, _edges(len(part), bins))

    def _load(self, path: Path) -> tuple[Wav, Peaks]:
        about = path.stat()
        key = (str(path), about.st_mtime_ns, about.st_size)
        held = self._base.pop(key, None)
        if held is None:
            wav = open_wav(path)
            held = (wav, base_peaks(wav))
        self._base[key] = held
        while len(self._base) > self._capacity:
            self._base.popitem(last=False)
        return held


def _edges(count: int, bins: int) -> npt.NDArray[np.int64]:
    """`bins` + 1 (or fewer) rising edges from 0 to `count`."""
    return np.unique(np.linspace(0, count, min(bins, count) + 1).round().astype(np.int64))
