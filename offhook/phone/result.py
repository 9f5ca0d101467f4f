"""How a fake phone's call ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PhoneResult:
    """`completed`: answered, and ended by a hang-up of either side. `status`: the SIP or HTTP status (200 = answered,
    0 = nobody there). `heard`: what the service played to this phone, 16 kHz mono PCM, in the phone's own time."""

    completed: bool
    status: int
    reason: str
    call_id: str = ""
    heard: bytes = b""
