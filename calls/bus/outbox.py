"""Posting: events go out in order, in batches, without anybody waiting for the bus."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any

from redis.exceptions import ResponseError

from calls.bus.client import FAILURE, cancellable
from calls.bus.streams import BOUNDS, EXPIRE_S, FIELD, PREFIX, kind_of
from calls.events import AudioChunk, Event, Speech, encode

log = logging.getLogger(__name__)


class Outbox:
    """Posts events without waiting. Sending is in order and repeated after an outage, so an event may arrive twice and
    receivers go by its ids and indices.

    Bounded: while the bus is away, the oldest audio goes when `audio_bytes` of it wait, the oldest other event when
    `events` wait; `dropped` counts both. Hence two queues, merged again by the order of posting.
    """

    def __init__(self, client: Any, events: int = 50_000, audio_bytes: int = 128 << 20) -> None:
        self._client = client
        self._events: deque[tuple[int, str, Event]] = deque()
        self._audio: deque[tuple[int, str, AudioChunk | Speech]] = deque()
        self._audio_bytes = 0
        self._posted = 0
        self._bounds = events, audio_bytes
        self._wake = asyncio.Event()
        self._sending = 0
        self.dropped = 0
        self.connected = True

    def post(self, stream: str, event: Event) -> None:
        """Queue `event` for `stream`. Never blocks, never raises."""
        self._posted += 1
        if isinstance(event, AudioChunk | Speech):
            self._audio.append((self._posted, stream, event))
            self._audio_bytes += len(event.pcm)
            while self._audio_bytes > self._bounds[1]:
                self._audio_bytes -= len(self._audio.popleft()[2].pcm)
                self.dropped += 1
        else:
            self._events.append((self._posted, stream, event))
            if len(self._events) > self._bounds[0]:
                self._events.popleft()
                self.dropped += 1
        self._wake.set()

    @property
    def waiting(self) -> int:
        """Events and audio that the bus has not acknowledged yet."""
        return len(self._events) + len(self._audio) + self._sending

    def _batch(self) -> list[tuple[str, Event]]:
        batch: list[tuple[str, Event]] = []
        while len(batch) < 128 and (self._events or self._audio):
            if self._audio and (not self._events or self._audio[0][0] < self._events[0][0]):
                _, stream, chunk = self._audio.popleft()
                self._audio_bytes -= len(chunk.pcm)
                batch.append((stream, chunk))
            else:
                _, stream, event = self._events.popleft()
                batch.append((stream, event))
        return batch

    async def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until everything posted has been sent. False if that did not happen in time."""
        deadline = time.monotonic() + timeout_s
        while self.waiting and time.monotonic() < deadline:  # noqa: ASYNC110 - has a deadline
            await asyncio.sleep(0.01)
        return not self.waiting

    async def run(self) -> None:
        """Send until cancelled. One task a process."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while batch := self._batch():
                self._sending = len(batch)
                await self._send(batch)
                self._sending = 0

    async def _send(self, batch: list[tuple[str, Event]]) -> None:
        """Until the server has taken all of it. What it refuses for good (not for being full or loading) is dropped."""
        pause_s = 0.05
        while batch:
            try:
                pipe = self._client.pipeline(transaction=False)
                for stream, event in batch:
                    _add(pipe, stream, event)
                for stream in {stream for stream, _ in batch if ":" in stream}:
                    pipe.expire(PREFIX + stream, EXPIRE_S[kind_of(stream)])
                results = await cancellable(pipe.execute(raise_on_error=False))
            except FAILURE as error:
                if self.connected:
                    log.warning("bus away (%s); %d events wait", error, self.waiting)
                self.connected = False
            else:
                batch = self._refused(batch, results[: len(batch)])
                self._sending = len(batch)
                if not batch:
                    if not self.connected:
                        log.warning("bus back")
                    self.connected = True
                    return
                self.connected = False
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.5)

    def _refused(self, batch: list[tuple[str, Event]], results: list[Any]) -> list[tuple[str, Event]]:
        """Those to be sent again."""
        again = []
        for (stream, event), result in zip(batch, results, strict=True):
            if isinstance(result, ResponseError) and str(result).startswith("WRONGTYPE"):
                log.error("%s is not a stream: %s dropped", stream, type(event).__name__)
                self.dropped += 1
            elif isinstance(result, Exception):
                log.warning("bus refuses %s: %s", stream, result)
                again.append((stream, event))
        return again


def _add(pipe: Any, stream: str, event: Event) -> None:
    bound = BOUNDS[kind_of(stream)]
    pipe.xadd(PREFIX + stream, {FIELD: encode(event)}, maxlen=bound, approximate=bound >= 100)
