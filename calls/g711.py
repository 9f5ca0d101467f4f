"""G.711 companding as numpy tables (ITU-T G.711, 11/1988): mu-law (PCMU) and A-law (PCMA) to and from 16-bit PCM.

A byte is looked up in 256 linear values; a sample is looked up in 65,536 bytes. Both tables are built from the
Recommendation's segments once, and every code survives decode -> encode unchanged (but for mu-law's two zeros, of
which 0xFF is sent).
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Law = Literal["mulaw", "alaw"]
SILENCE: dict[Law, int] = {"mulaw": 0xFF, "alaw": 0xD5}
"""The byte for digital silence."""


def _mulaw_values() -> NDArray[np.int16]:
    """G.711 table 2: magnitude = ((mantissa * 2 + 33) << segment) - 33, in 14 bits; all bits are sent inverted."""
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    segment, mantissa = (code >> 4) & 0x07, code & 0x0F
    magnitude = ((((mantissa << 1) + 33) << segment) - 33) << 2  # 14 bits to 16
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_values() -> NDArray[np.int16]:
    """G.711 table 1: 13 bits; even bits are sent inverted (0x55), the sign bit is 1 for positive values."""
    code = np.arange(256, dtype=np.int32) ^ 0x55
    segment, mantissa = (code >> 4) & 0x07, code & 0x0F
    first = (mantissa << 1) + 1
    later = ((mantissa << 1) + 33) << np.maximum(segment - 1, 0)
    magnitude = np.where(segment == 0, first, later) << 3  # 13 bits to 16
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


@cache
def _decode_table(law: Law) -> NDArray[np.int16]:
    return _mulaw_values() if law == "mulaw" else _alaw_values()


@cache
def _encode_table(law: Law) -> NDArray[np.uint8]:
    """The nearest code for each 16-bit sample, indexed by the sample read as unsigned."""
    values = _decode_table(law).astype(np.int32)
    codes = np.argsort(values, kind="stable")
    if law == "mulaw":
        codes = codes[codes != 0x7F]  # minus zero: 0xFF stands for both
    ordered = values[codes]
    borders = (ordered[1:] + ordered[:-1]) / 2
    samples = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    # A sample on a border goes to the code nearer to zero, on both sides, as the Recommendation's decision values do.
    nearest = np.where(
        samples >= 0, np.searchsorted(borders, samples, side="left"), np.searchsorted(borders, samples, side="right")
    )
    return codes[nearest].astype(np.uint8)


def decode(payload: bytes, law: Law = "mulaw") -> NDArray[np.int16]:
    """Payload of n bytes -> n samples at the payload's own rate (8 kHz on telephones)."""
    return _decode_table(law)[np.frombuffer(payload, dtype=np.uint8)]


def encode(samples: NDArray[np.int16], law: Law = "mulaw") -> bytes:
    """n samples -> n bytes."""
    return _encode_table(law)[np.ascontiguousarray(samples, dtype=np.int16).view(np.uint16)].tobytes()
