"""Reading: many streams at once, each from its own position, through outages of the bus."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from redis.exceptions import ResponseError

from calls.bus.client import FAILURE, OUTAGE, cancellable
from calls.bus.streams import EXPIRE_S, FIELD, FROM_START, PREFIX, Message, order, read_entry

log = logging.getLogger(__name__)


class Follower:
    """Reads many streams at once, each from its own position, and survives outages of the bus.

    `add` and `drop` may be called at any time. Positions live here, so after an outage it goes on where it was; a
    server that came back empty is noticed (its last position is older than ours) and read from its start.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._positions: dict[str, str] = {}
        # A private stream in the same blocking read: adding to it wakes the read when the set of streams changes.
        self._wake_stream = f"wake:{name}"
        self._wake_wanted = asyncio.Event()

    def add(self, stream: str, position: str = FROM_START) -> None:
        """Also read `stream`, from after `position` (FROM_START: all of it; "$" is not supported)."""
        if stream not in self._positions:
            self._positions[stream] = position
            self._wake_wanted.set()

    def drop(self, stream: str) -> None:
        self._positions.pop(stream, None)

    def __contains__(self, stream: str) -> bool:
        return stream in self._positions

    async def messages(self) -> AsyncIterator[Message]:
        """Every message of every followed stream, in order within a stream, until cancelled."""
        waker = asyncio.create_task(self._wake(), name="follower-wake")
        outage = False
        wake_position = b"0-0"
        try:
            while True:
                wanted: dict[Any, Any] = {PREFIX + s: p for s, p in self._positions.items()}
                wanted[PREFIX + self._wake_stream] = wake_position
                try:
                    if outage:
                        await self._check_rewound()
                        outage = False
                    found = await cancellable(self._client.xread(wanted, count=256, block=1000))
                except OUTAGE as error:
                    if not outage:
                        log.warning("bus away while reading: %s", error)
                    outage = True
                    await asyncio.sleep(0.1)
                    continue
                except ResponseError as error:
                    log.warning("bus refuses to be read: %s", error)
                    outage = True
                    await asyncio.sleep(0.5)
                    continue
                for key, entries in found or []:
                    stream = key.decode()[len(PREFIX) :]
                    if stream == self._wake_stream:
                        wake_position = entries[-1][0]
                        continue
                    for raw_position, fields in entries:
                        if stream not in self._positions:
                            break
                        position = raw_position.decode()
                        self._positions[stream] = position
                        message = read_entry(stream, position, fields)
                        if message is not None:
                            yield message
        finally:
            waker.cancel()

    async def _wake(self) -> None:
        while True:
            await self._wake_wanted.wait()
            self._wake_wanted.clear()
            try:
                key = PREFIX + self._wake_stream
                await cancellable(self._client.xadd(key, {FIELD: b""}, maxlen=1, approximate=False))
                await cancellable(self._client.expire(key, EXPIRE_S["wake"]))
            except FAILURE:
                continue  # the blocking read ends by itself within a second

    async def _check_rewound(self) -> None:
        """After an outage: a stream whose last entry is older than our position began anew; read it all."""
        for stream, position in list(self._positions.items()):
            last = await cancellable(self._client.xrevrange(PREFIX + stream, count=1))
            newest = last[0][0].decode() if last else FROM_START
            if order(newest) < order(position):
                log.warning("stream %s went back from %s to %s: reading it from its start", stream, position, newest)
                self._positions[stream] = FROM_START
