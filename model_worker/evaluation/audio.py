"""Any audio file as the live stream of a caller: Chunks with a quiet room before and after.

The file is read in blocks and resampled to 16 kHz mono, so that an hour of it costs no memory. The room is faint
noise, never digital zero, the same for the same file at every run. `g711` sends all of it, room and all, through a
telephone: 8 kHz, mu-law and back, by the resampler and the tables that the bridges use.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Literal

import av
import numpy as np
import numpy.typing as npt
from av.audio.resampler import AudioResampler

from calls import g711
from calls.audio import CHUNK_SAMPLES, SAMPLE_RATE
from calls.errors import OffhookError
from calls.resample import Resampler

Pcm = npt.NDArray[np.int16]
Channel = Literal["wideband", "g711"]

BEFORE_S, AFTER_S = 1.0, 2.0  # of quiet room
ROOM_DBFS = -66.0  # a quiet room in a handset
TELEPHONE_RATE = 8_000


class AudioError(OffhookError):
    """A file that cannot be played. The text names it."""


def decode(path: Path) -> Iterator[Pcm]:
    """The file as blocks of 16 kHz mono [samples], any rate, format and number of channels (they are averaged).

    Raises AudioError: not there, empty, no audio, or broken somewhere.
    """
    if not path.is_file():
        raise AudioError(f"{path}: there is no such file")
    if not path.stat().st_size:
        raise AudioError(f"{path}: the file is empty")
    heard = False
    try:
        with av.open(str(path), mode="r", metadata_errors="replace") as container:
            if not container.streams.audio:
                raise AudioError(f"{path}: no audio in this file")
            resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            for frame in chain(container.decode(audio=0), [None]):  # None: what the resampler still holds
                for out in resampler.resample(frame):
                    heard = heard or out.samples > 0
                    yield out.to_ndarray()[0]
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(f"{path}: not audio, or broken ({error})") from error
    if not heard:
        raise AudioError(f"{path}: holds no audio (0 samples)")


def samples(path: Path) -> int:
    """How long it is, at 16 kHz. Reads all of it, so that what is broken is known beforehand. Raises AudioError."""
    return sum(len(block) for block in decode(path))


def chunks_of(length: int) -> int:
    """Chunks of the stream that plays so many samples, the room included."""
    return -(-(length + round((BEFORE_S + AFTER_S) * SAMPLE_RATE)) // CHUNK_SAMPLES)


def stream(path: Path, channel: Channel, name: str = "") -> Iterator[bytes]:
    """The PCM of each Chunk. `name` seeds the room. Raises AudioError."""
    rng = np.random.default_rng(zlib.crc32((name or path.name).encode()))
    # So much more room that a last Chunk that was begun is full; what is left over then is less than a Chunk.
    after_s = AFTER_S + (CHUNK_SAMPLES - 1) / SAMPLE_RATE
    cut = _whole_chunks(chain([room(BEFORE_S, rng)], decode(path), [room(after_s, rng)]))
    if channel == "wideband":
        yield from (chunk.tobytes() for chunk in cut)
    else:
        down, up = Resampler(SAMPLE_RATE, TELEPHONE_RATE), Resampler(TELEPHONE_RATE, SAMPLE_RATE)
        for chunk in cut:
            yield up(g711.decode(g711.encode(down(chunk)))).tobytes()


def room(seconds: float, rng: np.random.Generator, dbfs: float = ROOM_DBFS) -> Pcm:
    """Faint noise with less of the high frequencies, as rooms have it."""
    white = rng.standard_normal(round(seconds * SAMPLE_RATE) + 8)
    smooth = np.convolve(white, np.full(8, 8**-0.5), "same")[4:-4]
    return np.rint(smooth * 32768 * 10 ** (dbfs / 20)).astype(np.int16)


def _whole_chunks(blocks: Iterable[Pcm]) -> Iterator[Pcm]:
    held = np.zeros(0, np.int16)
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= CHUNK_SAMPLES:
            yield held[:CHUNK_SAMPLES]
            held = held[CHUNK_SAMPLES:]
