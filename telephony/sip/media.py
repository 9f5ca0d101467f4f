"""One call's RTP, sans-IO: packets in, Frames out on the tick, and the way back.

Whom it listens to: the address and port that were negotiated. A party behind address translation sends from another
one; that one is accepted only as long as nothing came from the negotiated address, and only if it stays the same for
PROBATION packets. Everything else is a stranger, is counted, and is not heard.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

import numpy as np

from calls import g711
from calls.audio import Frame
from telephony.codecs import (
    G711_FRAME_BYTES,
    OPUS_FRAME_SAMPLES,
    G711Decoder,
    G711Encoder,
    OpusDecoder,
    OpusEncoder,
)
from telephony.jitter import JitterBuffer, Unwrapper
from telephony.sip.rtp import MAX_PAYLOAD, Packet, RtpError, TelephoneEvent
from telephony.sip.sdp import Agreed

PROBATION = 10  # packets from one unexpected address before it is believed

Source = tuple[str, int]
_Place = tuple[bytes, ...]  # the payloads to decode at one place; none: the packet before covers it
_LAWS: dict[str, g711.Law] = {"PCMU": "mulaw", "PCMA": "alaw"}
_QUIET = 64  # of 32,768


@dataclass(slots=True)
class MediaCounts:
    received: int = 0  # packets of the party
    sent: int = 0
    strangers: int = 0  # packets from somewhere else
    broken: int = 0  # not RTP, or of a payload type that was not negotiated
    heard_s: float = 0.0  # when the party's last packet came, on the caller's clock


@dataclass(slots=True)
class _Suspect:
    source: Source | None = None
    ssrc: int = 0
    count: int = 0


class Gate:
    """Decides whose packets are the party's, and where ours go."""

    def __init__(self, negotiated: Source | None) -> None:
        self._negotiated = negotiated
        self._latched: Source | None = None
        self._sure = False  # the negotiated address itself has sent
        self._suspect = _Suspect()

    @property
    def remote(self) -> Source | None:
        return self._latched or self._negotiated

    def admits(self, source: Source, ssrc: int) -> bool:
        if source == self._negotiated:
            self._sure, self._latched = True, None
            return True
        if self._sure:
            return False
        if self._latched is not None:
            return source == self._latched
        suspect = self._suspect
        if (suspect.source, suspect.ssrc) != (source, ssrc):
            self._suspect = suspect = _Suspect(source, ssrc)
        suspect.count += 1
        if suspect.count >= PROBATION:
            self._latched = source
        return self._latched is not None


@dataclass(slots=True)
class Sender:
    """Our own numbering (RFC 3550, 5.1: random beginnings). It runs on while nothing is sent."""

    ssrc: int = field(default_factory=lambda: secrets.randbits(32))
    sequence: int = field(default_factory=lambda: secrets.randbits(15))
    timestamp: int = field(default_factory=lambda: secrets.randbits(31))
    talking: bool = False


class MediaStream:
    """`renegotiate` takes what a re-INVITE agreed on; the jitter buffer and the numbering live on if the codec does."""

    def __init__(self, agreed: Agreed) -> None:
        self.counts = MediaCounts()
        self.digits: list[str] = []  # pressed and not yet taken
        self._sender = Sender()
        self._event_stamp: int | None = None
        self._begin(agreed)

    def _begin(self, agreed: Agreed) -> None:
        self.agreed = agreed
        self._gate = Gate(agreed.remote)
        law = _LAWS.get(agreed.codec.name)
        self._law = law
        self._g711 = G711Decoder(law) if law else None
        self._opus = None if law else OpusDecoder()
        self._encoder: G711Encoder | OpusEncoder = G711Encoder(law) if law else OpusEncoder()
        self._step = G711_FRAME_BYTES if law else OPUS_FRAME_SAMPLES  # RTP clock ticks in 20 ms
        self._buffer: JitterBuffer[_Place] = JitterBuffer(expendable=self._is_quiet)
        self._unwrap = Unwrapper(32)
        self._rest, self._rest_at = b"", 0  # less than 20 ms, and the timestamp at which it began
        self._ready: list[Frame] = []  # decoded Opus that covers places to come

    def begin(self, now: float) -> None:
        """The first tick is near: audio that came before it would only be delay."""
        self._buffer = JitterBuffer(expendable=self._is_quiet)
        self.counts.heard_s = now

    def renegotiate(self, agreed: Agreed) -> None:
        if agreed.codec != self.agreed.codec:
            self._begin(agreed)
            return
        if agreed.remote != self.agreed.remote:
            self._gate = Gate(agreed.remote)
        self.agreed = agreed

    # -- in

    def receive(self, data: bytes, source: Source, now: float) -> None:
        """One datagram. Never raises: what is not the party's audio is counted and dropped."""
        try:
            packet = Packet.parse(data)
        except RtpError:
            self.counts.broken += 1
            return
        agreed = self.agreed
        known = packet.payload_type == agreed.codec.payload_type
        event = agreed.events is not None and packet.payload_type == agreed.events.payload_type
        if not (known or event or packet.payload_type == 13) or len(packet.payload) > MAX_PAYLOAD:
            self.counts.broken += 1
            return
        if not self._gate.admits(source, packet.ssrc):
            self.counts.strangers += 1
            return
        self.counts.received += 1
        self.counts.heard_s = now
        if event:
            self._hear_event(packet)
        elif known and agreed.receives and not agreed.held:
            self._hear(packet)

    def _hear_event(self, packet: Packet) -> None:
        """A key counts once, when its first packet comes: all its packets carry the same timestamp (RFC 4733, 2.5)."""
        try:
            event = TelephoneEvent.parse(packet.payload)
        except RtpError:
            self.counts.broken += 1
            return
        if packet.timestamp != self._event_stamp and len(self.digits) < 64:
            self._event_stamp = packet.timestamp
            self.digits += [event.digit] if event.digit else []

    def _hear(self, packet: Packet) -> None:
        stamp = self._unwrap(packet.timestamp)
        if self._law:
            self._hear_bytes(stamp, packet.payload)
        else:
            self._hear_opus(stamp, packet.payload)

    def _hear_bytes(self, stamp: int, payload: bytes) -> None:
        """Cut any packet length into 20 ms; what is left over waits for the packet that goes on from it."""
        if self._rest and stamp == self._rest_at + len(self._rest):
            payload, stamp = self._rest + payload, self._rest_at
        self._rest = b""
        whole = len(payload) // G711_FRAME_BYTES * G711_FRAME_BYTES
        for at in range(0, whole, G711_FRAME_BYTES):
            self._push(stamp + at, (payload[at : at + G711_FRAME_BYTES],))
        self._rest, self._rest_at = payload[whole:], stamp + whole

    def _hear_opus(self, stamp: int, payload: bytes) -> None:
        length = opus_samples(payload)
        if self._rest and stamp == self._rest_at + OPUS_FRAME_SAMPLES // 2 and length == OPUS_FRAME_SAMPLES // 2:
            self._push(self._rest_at, (self._rest, payload))
            self._rest = b""
        elif length == OPUS_FRAME_SAMPLES // 2:
            self._rest, self._rest_at = payload, stamp
        elif length % OPUS_FRAME_SAMPLES == 0 and length:
            self._push(stamp, (payload,))
            for at in range(OPUS_FRAME_SAMPLES, length, OPUS_FRAME_SAMPLES):
                self._push(stamp + at, ())
        else:
            self.counts.broken += 1

    def _push(self, stamp: int, place: _Place) -> None:
        self._buffer.push(stamp // self._step, place)

    def _is_quiet(self, place: _Place) -> bool:
        if not self._law or not place:
            return False
        return int(np.abs(g711.decode(place[0], self._law).astype(np.int32)).max()) <= _QUIET

    def take(self) -> Frame | None:
        """The next 20 ms; None when they did not come in time. Call it on the tick."""
        place = self._buffer.pop()
        if place is None:
            self._ready.clear()
            return None
        if self._g711 is not None:
            return self._g711.decode(place[0])
        assert self._opus is not None
        if place:
            self._ready = [frame for payload in place for frame in self._opus.decode(payload)]
        return self._ready.pop(0) if self._ready else None

    # -- out

    def make(self, frame: Frame) -> tuple[bytes, Source] | None:
        """The packet for these 20 ms and where it goes; None while nothing may be sent (hold, no address yet)."""
        sender, remote = self._sender, self._gate.remote
        stamp = sender.timestamp
        sender.timestamp = (stamp + self._step) & 0xFFFFFFFF
        if remote is None or not self.agreed.sends:
            sender.talking = False
            return None
        payload = self._encoder.encode(frame)
        packet = Packet(
            self.agreed.codec.payload_type, sender.sequence, stamp, sender.ssrc, payload, marker=not sender.talking
        )
        sender.sequence = (sender.sequence + 1) & 0xFFFF
        sender.talking = True
        self.counts.sent += 1
        return bytes(packet), remote


def opus_samples(payload: bytes) -> int:
    """How long an Opus packet is, in samples at 48 kHz, from its first bytes (RFC 6716, 3.1). 0: not Opus."""
    if not payload:
        return 0
    config, code = payload[0] >> 3, payload[0] & 3
    if config < 12:
        frame = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:
        frame = (480, 960)[config & 1]
    else:
        frame = (120, 240, 480, 960)[config & 3]
    count = 1 if code == 0 else 2 if code < 3 else (payload[1] & 0x3F if len(payload) > 1 else 0)
    return frame * count if frame * count <= 5760 else 0
