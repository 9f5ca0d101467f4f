"""Leases: which worker holds which call.

A lease is a pending entry of the consumer group `workers`: its idle time is the lease's age. Only its holder may
renew it, which a small Lua script checks, so that a worker that was frozen cannot take back what it lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from calls.bus.client import OUTAGE, cancellable, run_script
from calls.bus.streams import PREFIX, read_entry
from calls.errors import BusError
from calls.events import WORK, Assignment

GROUP = "workers"

_RENEW = """
local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)
if #held == 0 or held[1][2] ~= ARGV[2] then return 0 end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'JUSTID')
return 1
"""
_RELEASE = """
local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)
if #held == 0 or held[1][2] ~= ARGV[2] then return 0 end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('XDEL', KEYS[1], ARGV[3])
return 1
"""


@dataclass(frozen=True, slots=True)
class Lease:
    position: str
    assignment: Assignment
    takeover: bool


class Leases:
    """Claims, renews and releases the calls on `work`."""

    def __init__(self, client: Any, reader: Any) -> None:
        """`reader`: a client that nothing else waits for, for reads that block."""
        self._client = client
        self._reader = reader

    async def prepare(self) -> None:
        """Create the consumer group; it is no error if it is there."""
        try:
            await cancellable(self._client.xgroup_create(PREFIX + WORK, GROUP, id="0", mkstream=True))
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise BusError(f"cannot create the group {GROUP}: {error}") from error
        except OUTAGE as error:
            raise BusError(f"cannot reach the bus: {error}") from error

    async def claim(self, worker: str, room: int, lapse_ms: int, block_ms: int = 200) -> list[Lease]:
        """Up to `room` leases: first those that lapsed at other workers, then new work. Raises BusError."""
        if room <= 0:
            return []
        key = PREFIX + WORK
        try:
            _, lapsed, _ = await cancellable(self._client.xautoclaim(key, GROUP, worker, lapse_ms, "0-0", count=room))
            leases = await self._read(lapsed, takeover=True)
            if not leases:
                fresh = await cancellable(
                    self._reader.xreadgroup(GROUP, worker, {key: ">"}, count=room, block=block_ms)
                )
                leases = await self._read([entry for _, entries in fresh or [] for entry in entries], takeover=False)
        except ResponseError as error:
            if "NOGROUP" in str(error):
                await self.prepare()
                return []
            raise BusError(f"cannot claim work: {error}") from error
        except OUTAGE as error:
            raise BusError(f"cannot claim work: {error}") from error
        return leases

    async def _read(self, entries: Iterable[tuple[bytes, dict[bytes, bytes]]], takeover: bool) -> list[Lease]:
        leases = []
        for raw, fields in entries:
            message = read_entry(WORK, raw.decode(), fields)
            if message is not None and isinstance(message.event, Assignment):
                leases.append(Lease(message.position, message.event, takeover))
            else:
                # Nobody can read it, so nobody may claim it again.
                await cancellable(self._client.xack(PREFIX + WORK, GROUP, raw))
                await cancellable(self._client.xdel(PREFIX + WORK, raw))
        return leases

    async def renew(self, worker: str, position: str) -> bool:
        """Keep a lease. False if another worker has it by now, or it is done. Raises BusError."""
        return await run_script(self._client, _RENEW, WORK, GROUP, worker, position)

    async def release(self, worker: str, position: str) -> bool:
        """The call is over: take it off `work`. False if it was not ours any more. Raises BusError."""
        return await run_script(self._client, _RELEASE, WORK, GROUP, worker, position)
