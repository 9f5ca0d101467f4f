"""The console's process: `python -m console`. Reads the settings, wires, serves until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
import uvloop

from calls.bus import Bus
from calls.errors import SettingsError
from calls.log import setup
from calls.settings import Settings
from calls.store import Store
from console.app import create_app
from console.config import ConsoleConfig

log = logging.getLogger("console")

GRACE_S = 3  # open downloads and WebSockets get so long at the end


def config_from(settings: Settings) -> ConsoleConfig:
    """Raises SettingsError when something the console cannot do without is missing."""
    for name in ("redis_url", "database_url", "password", "secret"):
        if not getattr(settings, name):
            raise SettingsError(f"OFFHOOK_{name.upper()} is not set; `offhook up` sets it for you")
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise SettingsError("OFFHOOK_TLS_CERT and OFFHOOK_TLS_KEY go together")
    return ConsoleConfig(
        password=settings.password,
        secret=settings.secret,
        recordings=settings.recordings,
        media_url=settings.media_url or f"http://{reachable(settings.media_host)}:{settings.media_port}",
        ice_servers=tuple(part.strip() for part in settings.ice_servers.split(",") if part.strip()),
        secure=settings.tls_cert is not None,
        company=settings.company,
        sip_address=f"{reachable(settings.sip_host)}:{settings.sip_port}",
    )


def reachable(host: str) -> str:
    """The address to connect to what listens on `host`."""
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else host


class Server(uvicorn.Server):
    """Uvicorn without its own signal handlers: they kill the process by the same signal when it has shut down, before
    what was posted is sent and the pools are closed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        self.force_exit = self.should_exit  # asked twice: now
        self.should_exit = True


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises SettingsError when something is missing."""
    config = config_from(settings)
    bus, store = Bus(settings.redis_url), Store(settings.database_url)
    server = Server(
        uvicorn.Config(
            create_app(config, bus, store),
            host=settings.host,
            port=settings.port,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # an X-Forwarded-For that anyone may write must not choose whom we slow down
            ws_max_size=64 * 1024,  # browsers send nothing
            timeout_graceful_shutdown=GRACE_S,
        )
    )
    log.info("console on http%s://%s:%d", "s" if config.secure else "", settings.host, settings.port)
    try:
        async with asyncio.TaskGroup() as tasks:
            sender = tasks.create_task(bus.outbox.run(), name="outbox")
            try:
                await server.serve()
            finally:
                await bus.outbox.flush(1.0)
                sender.cancel()
    finally:
        await bus.close()
        await store.close()


def main() -> None:
    settings = Settings()  # type: ignore[call-arg]  # every setting has a default or comes from the environment
    setup(settings.log_level, "console")
    for chatty in ("httpx", "httpcore", "uvicorn.error"):  # a line for every request and every browser
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))
    try:
        uvloop.run(serve(settings))
    except SettingsError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
