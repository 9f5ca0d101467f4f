"""What a telephone does to a sound: band, G.711, lost packets, gain, echo, noise and hum of the line.

16 kHz in, 16 kHz out, the same number of samples and in step: nothing that is heard moves in time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calls.audio import SAMPLE_RATE
from calls.g711 import Law, decode, encode

Pcm = npt.NDArray[np.float32]

_PHONE_RATE = 8_000
_PACKET = 160  # samples: 20 ms at 8 kHz
_LOW_HZ, _HIGH_HZ = (200.0, 300.0), (3400.0, 3700.0)  # where the band begins and ends: stopped, passed
_CONCEAL_PACKETS = 3  # a gap is filled with the sound before it, fading, for 60 ms (G.711 Appendix I)
_HUM_HZ = (50.0, 60.0)


@dataclass(frozen=True, slots=True)
class Channel:
    """One line. Levels in dB full scale; None: there is none of it."""

    law: Law | None = None  # None: wideband, nothing is coded
    gain_db: float = 0.0
    loss: float = 0.0  # share of packets
    burst: float = 1.5  # mean length of a loss, in packets
    noise_db: float | None = None
    hum_db: float | None = None
    echo_db: float | None = None  # below what is heard
    echo_s: float = 0.12

    @property
    def name(self) -> str:
        return "wideband" if self.law is None else "g711"


WIDEBAND = Channel()


def draw_channel(rng: np.random.Generator, phone_share: float = 0.6, clean_share: float = 0.25) -> Channel:
    """A line as one meets them: most telephone calls lose nothing, some lose a few percent."""
    law: Law | None = None
    if rng.random() < phone_share:
        law = "mulaw" if rng.random() < 0.6 else "alaw"
    if rng.random() < clean_share:
        return Channel(law)
    lossy = law is not None and rng.random() < 0.3
    return Channel(
        law=law,
        gain_db=float(rng.uniform(-8.0, 4.0)),
        loss=float(rng.uniform(0.002, 0.05)) if lossy else 0.0,
        burst=float(rng.uniform(1.0, 3.0)),
        noise_db=float(rng.uniform(-72.0, -45.0)) if rng.random() < 0.7 else None,
        hum_db=float(rng.uniform(-70.0, -50.0)) if rng.random() < 0.2 else None,
        echo_db=float(rng.uniform(-40.0, -22.0)) if rng.random() < 0.2 else None,
        echo_s=float(rng.uniform(0.03, 0.25)),
    )


def through(pcm: Pcm, channel: Channel, rng: np.random.Generator) -> Pcm:
    """What arrives of float32 [samples] at 16 kHz; an even number of samples (ValueError otherwise)."""
    if len(pcm) % 2:
        raise ValueError(f"{len(pcm)} samples at 16 kHz are not whole samples at 8 kHz")
    made = pcm * np.float32(10 ** (channel.gain_db / 20))
    if channel.echo_db is not None:
        made = _echo(made, channel.echo_db, channel.echo_s)
    if channel.noise_db is not None:
        made = made + rng.normal(0.0, 10 ** (channel.noise_db / 20), len(made)).astype(np.float32)
    if channel.hum_db is not None:
        made = made + _hum(len(made), channel.hum_db, rng)
    if channel.law is None:
        return _clipped(made)
    narrow = _to_phone(made)
    coded = encode(np.rint(np.clip(narrow, -1.0, 1.0) * 32767).astype(np.int16), channel.law)
    heard = decode(coded, channel.law).astype(np.float32) / 32768.0
    if channel.loss:
        heard = _lose(heard, channel.loss, channel.burst, rng)
    return _clipped(_from_phone(heard))


def _clipped(pcm: Pcm) -> Pcm:
    made: Pcm = np.clip(pcm, -1.0, 1.0).astype(np.float32)
    return made


def _echo(pcm: Pcm, level_db: float, delay_s: float) -> Pcm:
    """The caller's own voice, back from the far end: later and softer."""
    delay = int(delay_s * SAMPLE_RATE)
    made = pcm.copy()
    if delay < len(pcm):
        made[delay:] += pcm[: len(pcm) - delay] * np.float32(10 ** (level_db / 20))
    return made


def _hum(length: int, level_db: float, rng: np.random.Generator) -> Pcm:
    """Mains hum with its odd overtones."""
    base = float(rng.choice(_HUM_HZ))
    t = np.arange(length) / SAMPLE_RATE
    wave = sum(np.sin(2 * np.pi * base * n * t + rng.uniform(0, 6.28)) / n for n in (1, 3, 5, 7, 9))
    made: Pcm = (np.asarray(wave) * 10 ** (level_db / 20)).astype(np.float32)
    return made


def _to_phone(pcm: Pcm) -> Pcm:
    """16 kHz to 8 kHz through the telephone's band, by the spectrum: no delay."""
    spectrum = np.fft.rfft(pcm)
    hz = np.fft.rfftfreq(len(pcm), 1 / SAMPLE_RATE)
    up = np.clip((hz - _LOW_HZ[0]) / (_LOW_HZ[1] - _LOW_HZ[0]), 0.0, 1.0)
    down = np.clip((_HIGH_HZ[1] - hz) / (_HIGH_HZ[1] - _HIGH_HZ[0]), 0.0, 1.0)
    half = len(pcm) * _PHONE_RATE // SAMPLE_RATE
    made: Pcm = (np.fft.irfft((spectrum * up * down)[: half // 2 + 1], half) / 2).astype(np.float32)
    return made


def _from_phone(pcm: Pcm) -> Pcm:
    made: Pcm = (np.fft.irfft(np.fft.rfft(pcm), 2 * len(pcm)) * 2).astype(np.float32)
    return made


def _lose(pcm: Pcm, share: float, burst: float, rng: np.random.Generator) -> Pcm:
    """Packets go missing in bursts (Gilbert's model) and are concealed by the sound before them, fading out."""
    made = pcm.copy()
    leave = 1.0 / max(burst, 1.0)
    enter = share * leave / max(1.0 - share, 1e-6)
    missing = 0
    for packet in range(-(-len(pcm) // _PACKET)):
        lost = rng.random() < (1.0 - leave if missing else enter)
        missing = missing + 1 if lost and packet else 0
        if not missing:
            continue
        begin = packet * _PACKET
        part = made[begin : begin + _PACKET]
        before = made[begin - _PACKET : begin]
        gain = max(0.0, 1.0 - missing / _CONCEAL_PACKETS)
        part[:] = before[: len(part)] * np.float32(gain)
    return made
