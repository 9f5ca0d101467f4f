"""RTP as it passes on the loopback interface (Linux, root): when each party was audible, packet by packet.

What a phone hears lies behind its own jitter buffer; the budget for interruption is about the packets themselves.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from calls import g711
from offhook.phone.script import AUDIBLE_RMS

_ETHERNET, _IPV4, _UDP = 14, 0x0800, 17
_LAWS: dict[int, g711.Law] = {0: "mulaw", 8: "alaw"}  # RTP payload types (RFC 3551)


@dataclass
class Sniffed:
    """RTP packets by (source port, SSRC): [(arrival, s; audible)]."""

    streams: dict[tuple[int, int], list[tuple[float, bool]]] = field(default_factory=lambda: defaultdict(list))

    def take(self, frame: bytes, at: float) -> None:
        if len(frame) < _ETHERNET + 20 or struct.unpack_from("!H", frame, 12)[0] != _IPV4 or frame[23] != _UDP:
            return
        udp = _ETHERNET + (frame[_ETHERNET] & 15) * 4
        packet = frame[udp + 8 :]
        if len(packet) < 13 or packet[0] >> 6 != 2 or (law := _LAWS.get(packet[1] & 0x7F)) is None:
            return
        source = struct.unpack_from("!H", frame, udp)[0]
        ssrc = struct.unpack_from("!I", packet, 8)[0]
        samples = g711.decode(packet[12:], law).astype(np.float32)
        self.streams[source, ssrc].append((at, float(np.sqrt(np.mean(samples**2))) > AUDIBLE_RMS))


@contextlib.contextmanager
def sniff() -> Iterator[Sniffed]:
    """Everything that passes on lo while the body runs. Raises PermissionError without root."""
    found, stop = Sniffed(), threading.Event()
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_IPV4))
    raw.bind(("lo", 0))
    raw.settimeout(0.2)

    def read() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                frame, address = raw.recvfrom(65535)
                if address[2] != socket.PACKET_OUTGOING:  # on lo every packet is seen going out and coming in
                    found.take(frame, time.monotonic())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()
        raw.close()


def interruptions(found: Sniffed, service_ports: range) -> list[float]:
    """For each time the caller began to speak over the service: ms until its last audible packet.

    The caller begins where 0.5 s of silence end; the service ends where 0.3 s of silence follow: 0 when it was between
    two words and said no more. A caller who begins 0.2 s after the last of the answer or later interrupts nothing.
    """
    service = [p for (port, _), packets in found.streams.items() if port in service_ports for p in packets]
    caller = [p for (port, _), packets in found.streams.items() if port not in service_ports for p in packets]
    spoken = sorted(at for at, audible in service if audible)
    quiet_since, delays = float("-inf"), []
    for at, audible in sorted(caller):
        if not audible:
            continue
        onset = at - quiet_since > 0.5
        quiet_since = at
        near = [s for s in spoken if at - 0.2 <= s <= at + 3.0]
        if onset and near and near[0] <= at:
            last = near[0]
            for s in near:
                if s - last > 0.3:
                    break
                last = s
            delays.append(max(0.0, (last - at) * 1000))
    return delays
