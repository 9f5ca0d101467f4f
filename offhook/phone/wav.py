"""Any WAV as what a phone says: 16 kHz mono signed 16-bit PCM."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import av
from av.audio.resampler import AudioResampler

from calls.audio import SAMPLE_BYTES, SAMPLE_RATE
from calls.errors import OffhookError

MAX_S = 3 * 3600  # seconds; 345 MB of PCM

_MAGIC = (b"RIFF", b"RF64", b"RIFX")


class WavError(OffhookError):
    """The file cannot be played as a call's audio. The text says why."""


def load(path: str | Path) -> bytes:
    """The whole file as 16 kHz mono s16 PCM, whatever its rate, sample format and channels (they are averaged).

    Raises WavError: not there, empty, not a WAV, no audio in it, or longer than MAX_S seconds.
    """
    path = Path(path)
    _check_header(path)
    pcm = bytearray()
    limit = MAX_S * SAMPLE_RATE * SAMPLE_BYTES
    try:
        with av.open(str(path), mode="r", format="wav", metadata_errors="replace") as container:
            if not container.streams.audio:
                raise WavError(f"{path}: no audio in this file")
            resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            for frame in chain(container.decode(audio=0), [None]):  # None: what the resampler still holds
                for out in resampler.resample(frame):
                    pcm += bytes(out.planes[0])[: out.samples * SAMPLE_BYTES]
                if len(pcm) > limit:
                    raise WavError(f"{path}: longer than {MAX_S // 3600} hours")
    except (av.FFmpegError, ValueError) as error:
        raise WavError(f"{path}: cannot be read as a WAV file ({error})") from error
    if not pcm:
        raise WavError(f"{path}: holds no audio (0 samples)")
    return bytes(pcm)


def _check_header(path: Path) -> None:
    """Say plainly what is wrong before FFmpeg guesses."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise WavError(f"{path}: {error.strerror}") from error
    if not head:
        raise WavError(f"{path}: the file is empty")
    if head[:4] not in _MAGIC or head[8:12] != b"WAVE":
        raise WavError(f"{path}: not a WAV file (it starts with {head[:4]!r})")
