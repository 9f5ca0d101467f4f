"""`python -m agent`: the agent service, from the settings."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys

import uvloop

from agent import jobs, knowledge, policy
from agent.service import Service
from calls.bus import Bus
from calls.errors import OffhookError, SettingsError
from calls.log import setup
from calls.settings import Settings
from calls.store import Store

log = logging.getLogger("agent")


async def serve(settings: Settings) -> None:
    bus, store = Bus(settings.redis_url), Store(settings.database_url)
    rules = policy.Rules(
        company=settings.company,
        hints_per_minute=settings.hints_per_minute,
        hint_min_score=settings.hint_min_score,
    )
    cards = knowledge.Knowledge(settings.knowledge or knowledge.GARAGE)
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    service = Service(bus, store, cards, rules, jobs.enqueue, name=name)
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await service.run()
    finally:
        await bus.close()
        await store.close()


def main() -> int:
    settings = Settings()
    setup(settings.log_level, "agent")
    status = 0
    try:
        for name in ("redis_url", "database_url"):
            if not getattr(settings, name):
                raise SettingsError(f"OFFHOOK_{name.upper()} is not set; `offhook up` sets it for you")
        uvloop.run(serve(settings))
    except* OffhookError as errors:
        for error in errors.exceptions:
            log.error("%s", error)
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
