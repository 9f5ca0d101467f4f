"""RTP packets (RFC 3550, 5.1) and telephone events (RFC 4733, 2.3) as values."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_HEADER = struct.Struct("!BBHII")
_EVENT = struct.Struct("!BBH")
DIGITS = "0123456789*#ABCD"  # RFC 4733, table 3
MAX_PAYLOAD = 1_400  # bytes; ours are 160 or less


class RtpError(ValueError):
    """Bytes that are not an RTP packet."""


@dataclass(frozen=True, slots=True)
class Packet:
    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    marker: bool = False

    @classmethod
    def parse(cls, data: bytes) -> Packet:
        """Raises RtpError."""
        if len(data) < _HEADER.size:
            raise RtpError("shorter than a header")
        first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
        if first >> 6 != 2:
            raise RtpError("not version 2")
        if 64 <= second & 0x7F < 96:
            raise RtpError("RTCP")  # RFC 5761, 4
        begin, end = _HEADER.size + 4 * (first & 0x0F), len(data)
        if first & 0x10:  # an extension
            if end < begin + 4:
                raise RtpError("cut off in its extension")
            begin += 4 + 4 * int(struct.unpack_from("!H", data, begin + 2)[0])
        if first & 0x20:  # padding
            end -= data[-1]
            if not data[-1]:
                raise RtpError("padding of no length")
        if end < begin:
            raise RtpError("cut off")
        return cls(second & 0x7F, sequence, timestamp, ssrc, data[begin:end], bool(second & 0x80))

    def __bytes__(self) -> bytes:
        second = self.payload_type | (0x80 if self.marker else 0)
        return _HEADER.pack(0x80, second, self.sequence, self.timestamp, self.ssrc) + self.payload


@dataclass(frozen=True, slots=True)
class TelephoneEvent:
    """A key that is being pressed. `duration` is in ticks of the event's clock."""

    event: int
    end: bool
    volume: int
    duration: int

    @classmethod
    def parse(cls, payload: bytes) -> TelephoneEvent:
        """Raises RtpError."""
        if len(payload) < _EVENT.size:
            raise RtpError("shorter than an event")
        event, flags, duration = _EVENT.unpack_from(payload)
        return cls(event, bool(flags & 0x80), flags & 0x3F, duration)

    def __bytes__(self) -> bytes:
        return _EVENT.pack(self.event, (0x80 if self.end else 0) | self.volume, self.duration)

    @property
    def digit(self) -> str:
        """The key, or "" for an event that is none."""
        return DIGITS[self.event] if self.event < len(DIGITS) else ""
