"""How the Redis client is used: how it connects, what an outage is, and that no cancellation is lost in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from calls.bus.streams import PREFIX
from calls.errors import BusError

T = TypeVar("T")

OUTAGE = (RedisConnectionError, RedisTimeoutError, ConnectionError, OSError)
"""The server cannot be reached; it may be back in a moment."""
FAILURE = (*OUTAGE, RedisError)
"""That, or the server refuses."""


def connect(url: str) -> Any:  # the client's own types are unions of everything
    """A client for `url` ("redis://host:port/0" or "unix:///path"). No connection is made yet."""
    retry = Retry(ExponentialBackoff(cap=0.2, base=0.02), retries=3)
    return redis.Redis.from_url(url, retry=retry, socket_connect_timeout=2.0, health_check_interval=30)


async def cancellable(call: Awaitable[T]) -> T:
    """`await call`, and a cancellation that came meanwhile is never lost: redis-py sends within asyncio.wait_for,
    which before Python 3.12 swallows one that comes just as the send completes."""
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        return await call
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


async def run_script(client: Any, script: str, name: str, *arguments: str) -> bool:
    """What a Lua script that holds something says of the key `name`. Raises BusError."""
    try:
        return bool(await cancellable(client.eval(script, 1, PREFIX + name, *arguments)))
    except FAILURE as error:
        raise BusError(f"cannot hold {name}: {error}") from error
