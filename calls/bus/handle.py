"""One process's handle on the bus, with what is asked only now and then: heartbeats, and who leads."""

from __future__ import annotations

import logging
import time

from calls.bus.client import FAILURE, cancellable, connect, run_script
from calls.bus.follower import Follower
from calls.bus.leases import Leases
from calls.bus.outbox import Outbox
from calls.bus.streams import FROM_START, PREFIX, Message, read_entry
from calls.errors import BusError
from calls.events import Event

log = logging.getLogger(__name__)

_LEAD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RESIGN = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class Bus:
    """One process's handle on the bus."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = connect(url)
        self._reader = connect(url)  # blocking reads have a connection pool of their own
        self.outbox = Outbox(self._client)
        self.leases = Leases(self._client, self._reader)

    async def close(self) -> None:
        await self._client.aclose()
        await self._reader.aclose()

    def post(self, stream: str, event: Event) -> None:
        self.outbox.post(stream, event)

    def follower(self, name: str) -> Follower:
        return Follower(self._reader, name)

    async def read(self, stream: str, after: str = FROM_START, count: int = 100_000) -> list[Message]:
        """What `stream` holds now after `position`. Raises BusError when the bus is away."""
        try:
            found = await cancellable(self._client.xrange(PREFIX + stream, min=f"({after}", count=count))
        except FAILURE as error:
            raise BusError(f"cannot read {stream}: {error}") from error
        read = (read_entry(stream, raw.decode(), fields) for raw, fields in found)
        return [message for message in read if message is not None]

    async def ping(self) -> bool:
        try:
            return bool(await cancellable(self._client.ping()))
        except FAILURE:
            return False

    async def newest(self, stream: str) -> str:
        """The position of the newest entry, FROM_START if there is none."""
        try:
            last = await cancellable(self._client.xrevrange(PREFIX + stream, count=1))
        except FAILURE as error:
            raise BusError(f"cannot read {stream}: {error}") from error
        return last[0][0].decode() if last else FROM_START

    # --- heartbeats: which services are there, and how they are ------------------------------------------------

    async def beat(self, service: str, instance: str, info: dict[str, str | int | float], ttl_s: float = 3.0) -> None:
        """Say that `instance` of `service` is alive. An outage is passed over in silence: that is the message."""
        key = f"{PREFIX}service:{service}:{instance}"
        try:
            pipe = self._client.pipeline(transaction=True)
            pipe.hset(key, mapping={**info, "at": time.time()})
            pipe.pexpire(key, int(ttl_s * 1000))
            await cancellable(pipe.execute())
        except FAILURE as error:
            log.debug("no heartbeat: %s", error)

    async def services(self) -> dict[str, dict[str, dict[str, str]]]:
        """{service: {instance: info}} of everything with a live heartbeat. Raises BusError when the bus is away."""
        try:
            return await cancellable(self._services())
        except FAILURE as error:
            raise BusError(f"cannot reach the bus: {error}") from error

    async def _services(self) -> dict[str, dict[str, dict[str, str]]]:
        found: dict[str, dict[str, dict[str, str]]] = {}
        async for key in self._client.scan_iter(f"{PREFIX}service:*", count=500):
            info = await self._client.hgetall(key)
            _, _, service, instance = key.decode().split(":", 3)
            if info:
                found.setdefault(service, {})[instance] = {k.decode(): v.decode() for k, v in info.items()}
        return found

    # --- one leader ----------------------------------------------------------------------------------------------

    async def lead(self, role: str, who: str, ttl_ms: int) -> bool:
        """Become, or stay, the one process in `role` for the next `ttl_ms`. False: another one is. Raises BusError."""
        return await run_script(self._client, _LEAD, f"leader:{role}", who, str(ttl_ms))

    async def resign(self, role: str, who: str) -> bool:
        """Leave `role` to the next one at once. False: it was not ours. Raises BusError."""
        return await run_script(self._client, _RESIGN, f"leader:{role}", who)
