"""`python -m model_worker`: one model worker, from settings to shutdown. Only wires."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys

from calls.bus import Bus
from calls.errors import BusError, OffhookError, SettingsError
from calls.log import setup
from calls.settings import Settings
from model_worker.chosen import bound_threads, load

log = logging.getLogger("worker")


def main() -> int:
    settings = Settings()
    setup(settings.log_level, "worker")
    bound_threads()
    import uvloop

    try:
        return uvloop.run(_run(settings))
    except OffhookError as error:
        print(f"model worker: {error}", file=sys.stderr)
    except Exception:
        # The process boundary. Not an uncaught error: that would end by the way out that `__main__` avoids below.
        log.exception("the model worker failed")
    return 1


async def _run(settings: Settings) -> int:
    from model_worker.engine import Engine
    from model_worker.worker import Worker

    if not settings.redis_url:
        raise SettingsError("OFFHOOK_REDIS_URL is empty: `offhook up` sets it, or name your Valkey or Redis")
    stop = asyncio.Event()
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_, stop.set)

    model, make_speaker = await asyncio.to_thread(load, settings, os.environ)
    bus = Bus(settings.redis_url)
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    worker = Worker(
        bus,
        Engine(model),
        name,
        capacity=settings.worker_calls,
        lapse_ms=settings.lease_ms,
        no_audio_s=settings.no_audio_s,
        make_speaker=make_speaker,
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            sender = tasks.create_task(bus.outbox.run(), name="outbox")
            try:
                await _prepare(bus, stop)
                await worker.run(stop)
            finally:
                sender.cancel()
    finally:
        await bus.close()
    return 0


async def _prepare(bus: Bus, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            return await bus.leases.prepare()
        except BusError:
            await asyncio.sleep(0.2)
    return None


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    # Not sys.exit: threads that are in the middle of native code would abort the interpreter on its way out.
    os._exit(status)
