"""`python -m model_worker`: one model worker, from settings to shutdown. Only wires."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from calls.bus import Bus
from calls.errors import BusError, OffhookError, SettingsError
from calls.events import Speech
from calls.log import setup
from calls.settings import Settings

if TYPE_CHECKING:
    from model_worker.speaker import Speaker
    from model_worker.stream import Model

    MakeSpeaker = Callable[[Callable[[str, Speech], None]], Speaker | None]

log = logging.getLogger("worker")


def main() -> int:
    settings = Settings()
    setup(settings.log_level, "worker")
    _bound_threads()
    import uvloop

    try:
        return uvloop.run(_run(settings))
    except OffhookError as error:
        print(f"model worker: {error}", file=sys.stderr)
    except Exception:
        # The process boundary. Not an uncaught error: that would end by the way out that `__main__` avoids below.
        log.exception("the model worker failed")
    return 1


def _bound_threads() -> None:
    """Numerical libraries read these when they are first imported, and would otherwise take every core each.

    One thread: the matrices are small and there are many calls; two threads that wait for each other on busy cores
    made a step ten times slower. The language model has a setting of its own.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


async def _run(settings: Settings) -> int:
    from model_worker.engine import Engine
    from model_worker.worker import Worker

    if not settings.redis_url:
        raise SettingsError("OFFHOOK_REDIS_URL is empty: `offhook up` sets it, or name your Valkey or Redis")
    stop = asyncio.Event()
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_, stop.set)

    model, make_speaker = await asyncio.to_thread(_load, settings)
    bus = Bus(settings.redis_url)
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    worker = Worker(
        bus,
        Engine(model),
        name,
        capacity=settings.worker_calls,
        lapse_ms=settings.lease_ms,
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


def _load(settings: Settings) -> tuple[Model, MakeSpeaker]:
    """The model that the settings name, and what makes its voice. Slow: weights are read here."""
    if settings.model == "echo":
        from model_worker.echo import EchoModel

        return EchoModel(), lambda post: None
    if settings.model == "cascade":
        from model_worker.cascade.load import load_cascade

        return load_cascade(settings, os.environ)
    raise SettingsError(f"OFFHOOK_MODEL={settings.model} is no model of this build: use cascade or echo")


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
