"""The Legs of one media stream: an ear for each track, and for a two-way stream a mouth that knows what was played."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import numpy as np

from calls import g711
from calls.audio import FRAME_S, SILENT_FRAME, Frame
from calls.model import Participant
from telephony.bridge import LegEvents
from telephony.codecs import G711_FRAME_BYTES, G711Decoder, G711Encoder
from telephony.jitter import JitterBuffer
from telephony.mediastreams.marks import MarkLedger
from telephony.mediastreams.protocol import Clear, Dialect, Mark, Media, build

FRAME_MS = round(FRAME_S * 1000)
MAX_OUTBOX = 250  # messages (about 4 s): a peer that reads slower than that is lost
_QUIET_PEAK = 200  # of 32,768 (-44 dBFS): idle line noise

HangUp = Callable[[str], Awaitable[None]]


class Ear:
    """One track's payloads, in any order -> Frames, one a tick."""

    def __init__(self, law: g711.Law) -> None:
        self._law: g711.Law = law
        self._decoder = G711Decoder(law)
        self._jitter: JitterBuffer[bytes] = JitterBuffer(expendable=self._quiet)
        self._origin_ms: int | None = None

    def hear(self, media: Media) -> None:
        """A payload of any length; its last 20 ms are filled up with silence."""
        if self._origin_ms is None:
            self._origin_ms = media.timestamp_ms
        place = round((media.timestamp_ms - self._origin_ms) / FRAME_MS)
        for at in range(0, len(media.payload), G711_FRAME_BYTES):
            payload = media.payload[at : at + G711_FRAME_BYTES]
            filled = payload.ljust(G711_FRAME_BYTES, bytes([g711.SILENCE[self._law]]))
            self._jitter.push(place + at // G711_FRAME_BYTES, filled)

    def read(self) -> Frame | None:
        payload = self._jitter.pop()
        return None if payload is None else self._decoder.decode(payload)

    def _quiet(self, payload: bytes) -> bool:
        return int(np.abs(g711.decode(payload, self._law).astype(np.int32)).max()) <= _QUIET_PEAK


class Outbox:
    """Messages to the peer, in order, bounded: the tick never waits for the network."""

    def __init__(self) -> None:
        self._messages: deque[str] = deque()
        self._filled = asyncio.Event()
        self.overflowed = False

    def put(self, text: str) -> None:
        if len(self._messages) >= MAX_OUTBOX:
            self.overflowed = True
        else:
            self._messages.append(text)
        self._filled.set()

    def drop_all(self) -> None:
        self._messages.clear()

    async def take(self) -> str | None:
        """The next message, waiting for one; None once the box ran over."""
        while not self._messages and not self.overflowed:
            self._filled.clear()
            await self._filled.wait()
        return None if self.overflowed else self._messages.popleft()


class ListeningLeg:
    """One party of a one-way fork: it is heard, and nothing can be said to it."""

    def __init__(self, participant: Participant, law: g711.Law, hang_up: HangUp) -> None:
        self.participant = participant
        self.events = LegEvents()
        self.ear = Ear(law)
        self._hang_up = hang_up

    def read(self) -> Frame | None:
        return self.ear.read()

    def write(self, frame: Frame) -> None:
        """A fork has no way back."""

    def flush(self) -> int:
        return 0

    def unplayed(self) -> int:
        return 0

    async def hang_up(self, reason: str) -> None:
        await self._hang_up(reason)

    def mark_returned(self, name: str) -> None:
        """A fork is sent no marks."""


class TalkingLeg(ListeningLeg):
    """The caller of a two-way stream."""

    def __init__(
        self, participant: Participant, law: g711.Law, hang_up: HangUp, outbox: Outbox, dialect: Dialect, stream: str
    ) -> None:
        super().__init__(participant, law, hang_up)
        self._encoder = G711Encoder(law)
        self._ledger = MarkLedger()
        self._outbox = outbox
        self._dialect = dialect
        self._stream = stream

    def write(self, frame: Frame) -> None:
        send, mark = self._ledger.frame(silent=frame == SILENT_FRAME)
        if send:
            self._outbox.put(build(Media(self._stream, self._encoder.encode(frame)), self._dialect))
        if mark is not None:
            self._outbox.put(build(Mark(self._stream, mark), self._dialect))

    def flush(self) -> int:
        if not self._ledger.unplayed():
            return 0
        self._outbox.drop_all()
        self._outbox.put(build(Clear(self._stream), self._dialect))
        return self._ledger.clear()

    def unplayed(self) -> int:
        return self._ledger.unplayed()

    def mark_returned(self, name: str) -> None:
        if self._ledger.returned(name):
            self.events.acknowledged()
