"""Payloads to Frames and back: G.711 here, Opus through PyAV (libopus). One object a stream and direction.

The house hears 16 kHz; G.711 is 8 kHz (ITU-T G.711; RTP payload types 0 and 8, RFC 3551) and Opus decodes to 48 kHz
(RFC 6716, RFC 7587). The resamplers carry their state from Frame to Frame and add 1.9 ms.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.packet import Packet
from numpy.typing import NDArray

from calls import g711
from calls.audio import FRAME_SAMPLES, SAMPLE_RATE, SILENT_FRAME, Frame
from calls.resample import Resampler

G711_RATE = 8_000  # samples a second
G711_FRAME_BYTES = 160  # 20 ms
OPUS_RATE = 48_000  # the RTP clock and the decoder's rate
OPUS_FRAME_SAMPLES = 960  # 20 ms at the RTP clock
OPUS_BITRATE = 32_000  # bits a second: transparent for 16 kHz mono speech


class G711Decoder:
    """20 ms of mu-law or A-law -> a Frame."""

    def __init__(self, law: g711.Law = "mulaw") -> None:
        self._law: g711.Law = law
        self._up = Resampler(G711_RATE, SAMPLE_RATE)

    def decode(self, payload: bytes) -> Frame:
        """Exactly G711_FRAME_BYTES bytes -> FRAME_BYTES bytes (ValueError for another length)."""
        if len(payload) != G711_FRAME_BYTES:
            raise ValueError(f"20 ms of G.711 are {G711_FRAME_BYTES} bytes, not {len(payload)}")
        return self._up(g711.decode(payload, self._law)).tobytes()


class G711Encoder:
    """A Frame -> 20 ms of mu-law or A-law."""

    def __init__(self, law: g711.Law = "mulaw") -> None:
        self._law: g711.Law = law
        self._down = Resampler(SAMPLE_RATE, G711_RATE)

    def encode(self, frame: Frame) -> bytes:
        return g711.encode(self._down(np.frombuffer(frame, np.int16)), self._law)


class OpusDecoder:
    """Opus packets in order -> Frames. A packet of 40 or 60 ms gives two or three Frames, one of 10 ms half a Frame.

    PyAV offers no packet-loss concealment of libopus, so a lost packet is the caller's to conceal.
    """

    def __init__(self) -> None:
        self._codec = AudioCodecContext.create("libopus", "r")
        self._codec.layout = "mono"
        self._codec.sample_rate = OPUS_RATE
        self._down = Resampler(OPUS_RATE, SAMPLE_RATE)
        self._rest = np.zeros(0, np.int16)  # 16 kHz, less than a Frame

    def decode(self, payload: bytes) -> list[Frame]:
        """The whole Frames that are complete now. A payload that is not Opus gives none."""
        try:
            frames = self._codec.decode(Packet(payload))
        except av.FFmpegError:
            return []
        pcm = [self._rest, *(self._down(_mono(frame)) for frame in frames)]
        samples = np.concatenate(pcm)
        whole = len(samples) // FRAME_SAMPLES * FRAME_SAMPLES
        self._rest = samples[whole:]
        return [samples[at : at + FRAME_SAMPLES].tobytes() for at in range(0, whole, FRAME_SAMPLES)]


class OpusEncoder:
    """A Frame -> one Opus packet of 20 ms (mono, wideband, tuned for voice)."""

    def __init__(self) -> None:
        codec = AudioCodecContext.create("libopus", "w")
        codec.bit_rate = OPUS_BITRATE
        codec.format = "s16"
        codec.layout = "mono"
        codec.sample_rate = SAMPLE_RATE
        codec.time_base = Fraction(1, SAMPLE_RATE)
        codec.options = {"application": "voip", "frame_duration": "20", "compression_level": "5"}
        self._codec = codec
        self._samples = 0

    def encode(self, frame: Frame) -> bytes:
        """One packet a Frame; libopus holds nothing back at 20 ms."""
        audio = AudioFrame.from_ndarray(np.frombuffer(frame, np.int16)[None, :], "s16", "mono")
        audio.sample_rate = SAMPLE_RATE
        audio.time_base = Fraction(1, SAMPLE_RATE)
        audio.pts = self._samples
        self._samples += FRAME_SAMPLES
        packets = self._codec.encode(audio)
        return b"".join(bytes(packet) for packet in packets)


def _mono(frame: AudioFrame) -> NDArray[np.int16]:
    """Whatever libopus gave (packed or planar, 16-bit or float) as 16-bit mono; two channels are averaged."""
    samples: NDArray[Any] = frame.to_ndarray()
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        samples = samples.reshape(-1, channels).T
    mixed = samples.mean(axis=0) if channels > 1 else samples[0]
    if samples.dtype.kind == "f":
        mixed = np.clip(mixed * 32767, -32768, 32767)
    pcm: NDArray[np.int16] = mixed.astype(np.int16)
    return pcm


def is_quiet(frame: Frame, peak: int = 64) -> bool:
    """Is a Frame so quiet that leaving it out is not heard? `peak` is of 32,768 (64 = -54 dBFS)."""
    return frame is SILENT_FRAME or int(np.abs(np.frombuffer(frame, np.int16).astype(np.int32)).max()) <= peak
