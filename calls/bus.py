"""The bus: events over Valkey or Redis Streams. The only module that imports the Redis client,
which is why it is longer than the others.

Three ways to use it:
  Outbox    post events without ever waiting; one task sends them in order, in batches, and again after an outage.
  Follower  read any number of streams from given positions, adding and dropping streams while it runs.
  Leases    claim calls from `work`, renew, release; a lease that lapses is claimed by another worker.

A lease is a pending entry of the consumer group `workers`: its idle time is the lease's age. Only its holder may
renew it, which a small Lua script checks, so that a worker that was frozen cannot take back what it lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from calls.errors import BusError, EventError
from calls.events import CALLS, WORK, AnyEvent, Assignment, AudioChunk, Event, Speech, decode, encode

log = logging.getLogger(__name__)

T = TypeVar("T")

PREFIX = "offhook:"
GROUP = "workers"
FIELD = b"e"
FROM_START = "0-0"
# Seconds that a stream is kept after its last entry. Audio is for a takeover, the call's story for an agent's restart.
EXPIRE_S = {"call": 3600, "audio": 180, "speech": 180, "wake": 3600}

OUTAGE = (RedisConnectionError, RedisTimeoutError, ConnectionError, OSError)

# Entries kept, by the stream's name up to its colon. Audio: 60 s of two participants at 2.5 Chunks a second.
BOUNDS = {"calls": 20_000, "work": 10_000, "prepare": 1, "call": 200_000, "audio": 300, "speech": 500}

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


async def _cancellable(call: Awaitable[T]) -> T:
    """`await call`, and a cancellation that came meanwhile is never lost: redis-py sends within asyncio.wait_for,
    which before Python 3.12 swallows one that comes just as the send completes."""
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        return await call
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


def connect(url: str) -> Any:  # the client's own types are unions of everything
    """A client for `url` ("redis://host:port/0" or "unix:///path"). No connection is made yet."""
    retry = Retry(ExponentialBackoff(cap=0.2, base=0.02), retries=3)
    return redis.Redis.from_url(url, retry=retry, socket_connect_timeout=2.0, health_check_interval=30)


@dataclass(frozen=True, slots=True)
class Message:
    """One event as it lies on the bus. `stream` is without the prefix; `position` orders it within its stream."""

    stream: str
    position: str
    event: AnyEvent


@dataclass(frozen=True, slots=True)
class Lease:
    position: str
    assignment: Assignment
    takeover: bool


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
                    pipe.expire(PREFIX + stream, EXPIRE_S[stream.partition(":")[0]])
                results = await pipe.execute(raise_on_error=False)
            except (*OUTAGE, RedisError) as error:
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
    bound = BOUNDS[stream.partition(":")[0]]
    pipe.xadd(PREFIX + stream, {FIELD: encode(event)}, maxlen=bound, approximate=bound >= 100)


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
        """Also read `stream`, from after `position` (FROM_START: all of it; "$" is not supported: see `tail`)."""
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
                    found = await _cancellable(self._client.xread(wanted, count=256, block=1000))
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
                        message = _message(stream, position, fields)
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
                await _cancellable(self._client.xadd(key, {FIELD: b""}, maxlen=1, approximate=False))
                await _cancellable(self._client.expire(key, EXPIRE_S))
            except (*OUTAGE, RedisError):
                continue  # the blocking read ends by itself within a second

    async def _check_rewound(self) -> None:
        """After an outage: a stream whose last entry is older than our position began anew; read it all."""
        for stream, position in list(self._positions.items()):
            last = await _cancellable(self._client.xrevrange(PREFIX + stream, count=1))
            newest = last[0][0].decode() if last else FROM_START
            if _order(newest) < _order(position):
                log.warning("stream %s went back from %s to %s: reading it from its start", stream, position, newest)
                self._positions[stream] = FROM_START


def _order(position: str) -> tuple[int, int]:
    time_ms, _, serial = position.partition("-")
    return int(time_ms), int(serial or 0)


def _message(stream: str, position: str, fields: dict[bytes, bytes]) -> Message | None:
    try:
        return Message(stream, position, decode(fields.get(FIELD, b"")))
    except EventError as error:
        log.error("skipped %s %s: %s", stream, position, error)
        return None


class Bus:
    """One process's handle on the bus."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = connect(url)
        self._reader = connect(url)  # blocking reads have a connection pool of their own
        self.outbox = Outbox(self._client)

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
            found = await _cancellable(self._client.xrange(PREFIX + stream, min=f"({after}", count=count))
        except (*OUTAGE, RedisError) as error:
            raise BusError(f"cannot read {stream}: {error}") from error
        read = (_message(stream, raw.decode(), fields) for raw, fields in found)
        return [message for message in read if message is not None]

    async def ping(self) -> bool:
        try:
            return bool(await _cancellable(self._client.ping()))
        except (*OUTAGE, RedisError):
            return False

    async def newest(self, stream: str) -> str:
        """The position of the newest entry, FROM_START if there is none."""
        try:
            last = await _cancellable(self._client.xrevrange(PREFIX + stream, count=1))
        except (*OUTAGE, RedisError) as error:
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
            await _cancellable(pipe.execute())
        except (*OUTAGE, RedisError) as error:
            log.debug("no heartbeat: %s", error)

    async def services(self) -> dict[str, dict[str, dict[str, str]]]:
        """{service: {instance: info}} of everything with a live heartbeat. Raises BusError when the bus is away."""
        found: dict[str, dict[str, dict[str, str]]] = {}
        try:
            async for key in self._client.scan_iter(f"{PREFIX}service:*", count=500):
                info = await _cancellable(self._client.hgetall(key))
                _, _, service, instance = key.decode().split(":", 3)
                if info:
                    found.setdefault(service, {})[instance] = {k.decode(): v.decode() for k, v in info.items()}
        except (*OUTAGE, RedisError) as error:
            raise BusError(f"cannot reach the bus at {self.url}: {error}") from error
        return found

    # --- one leader ----------------------------------------------------------------------------------------------

    async def lead(self, role: str, who: str, ttl_ms: int) -> bool:
        """Become, or stay, the one process in `role` for the next `ttl_ms`. False: another one is. Raises BusError."""
        return await self._run(_LEAD, f"leader:{role}", who, str(ttl_ms))

    async def resign(self, role: str, who: str) -> bool:
        """Leave `role` to the next one at once. False: it was not ours. Raises BusError."""
        return await self._run(_RESIGN, f"leader:{role}", who)

    async def _run(self, script: str, name: str, *arguments: str) -> bool:
        try:
            return bool(await _cancellable(self._client.eval(script, 1, PREFIX + name, *arguments)))
        except (*OUTAGE, RedisError) as error:
            raise BusError(f"cannot hold {name}: {error}") from error

    # --- leases --------------------------------------------------------------------------------------------------

    async def prepare_work(self) -> None:
        """Create the consumer group; it is no error if it is there."""
        try:
            await _cancellable(self._client.xgroup_create(PREFIX + WORK, GROUP, id="0", mkstream=True))
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise BusError(f"cannot create the group {GROUP}: {error}") from error
        except OUTAGE as error:
            raise BusError(f"cannot reach the bus at {self.url}: {error}") from error

    async def claim(self, worker: str, room: int, lapse_ms: int, block_ms: int = 200) -> list[Lease]:
        """Up to `room` leases: first those that lapsed at other workers, then new work. Raises BusError."""
        if room <= 0:
            return []
        key = PREFIX + WORK
        try:
            _, lapsed, _ = await _cancellable(self._client.xautoclaim(key, GROUP, worker, lapse_ms, "0-0", count=room))
            leases = await self._leases(lapsed, takeover=True)
            if not leases:
                fresh = await _cancellable(
                    self._reader.xreadgroup(GROUP, worker, {key: ">"}, count=room, block=block_ms)
                )
                leases = await self._leases([entry for _, entries in fresh or [] for entry in entries], takeover=False)
        except ResponseError as error:
            if "NOGROUP" in str(error):
                await self.prepare_work()
                return []
            raise BusError(f"cannot claim work: {error}") from error
        except OUTAGE as error:
            raise BusError(f"cannot claim work: {error}") from error
        return leases

    async def _leases(self, entries: Iterable[tuple[bytes, dict[bytes, bytes]]], takeover: bool) -> list[Lease]:
        leases = []
        for raw, fields in entries:
            message = _message(WORK, raw.decode(), fields)
            if message is not None and isinstance(message.event, Assignment):
                leases.append(Lease(message.position, message.event, takeover))
            else:
                await self._client.xack(PREFIX + WORK, GROUP, raw)  # nobody can read it, so nobody may claim it again
                await self._client.xdel(PREFIX + WORK, raw)
        return leases

    async def renew(self, worker: str, position: str) -> bool:
        """Keep a lease. False if another worker has it by now, or it is done. Raises BusError."""
        return await self._own(_RENEW, worker, position)

    async def release(self, worker: str, position: str) -> bool:
        """The call is over: take it off `work`. False if it was not ours any more. Raises BusError."""
        return await self._own(_RELEASE, worker, position)

    async def _own(self, script: str, worker: str, position: str) -> bool:
        return await self._run(script, WORK, GROUP, worker, position)


__all__ = ["CALLS", "FROM_START", "WORK", "Bus", "Follower", "Lease", "Message", "Outbox"]
