"""The one HTTP server of the media plane: Twilio's webhook and WebSocket, WebRTC offers, and `GET /healthz`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from calls.errors import OffhookError
from telephony.bridge import Gateway

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024  # a webhook's form or an SDP offer is a few KB
STOP_S = 1.0  # open requests get so long when the service stops


class HttpBridge(Protocol):
    """A Bridge that is reached over HTTP."""

    name: str

    def routes(self) -> list[web.RouteDef]: ...

    async def run(self, gateway: Gateway) -> None: ...

    @property
    def ready(self) -> bool: ...


class MediaHttp:
    """A Bridge made of the bridges behind one address. `port` 0 takes a free one; read it from `address`."""

    name = "http"

    def __init__(self, host: str, port: int, bridges: Sequence[HttpBridge]) -> None:
        self._host, self._port = host, port
        self._bridges = tuple(bridges)
        self._site: web.TCPSite | None = None
        self.address = (host, port)

    @property
    def ready(self) -> bool:
        return self._site is not None and all(bridge.ready for bridge in self._bridges)

    async def run(self, gateway: Gateway) -> None:
        """Serve until cancelled. Raises OffhookError when the address cannot be listened on."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/healthz", self._healthz)
        for bridge in self._bridges:
            app.router.add_routes(bridge.routes())
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_S)
        await runner.setup()
        try:
            async with asyncio.TaskGroup() as tasks:
                for bridge in self._bridges:
                    tasks.create_task(bridge.run(gateway), name=f"bridge {bridge.name}")
                await self._listen(runner)
                await asyncio.Event().wait()
        finally:
            self._site = None
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> None:
        site = web.TCPSite(runner, self._host, self._port)
        try:
            await site.start()
        except OSError as error:
            raise OffhookError(f"cannot listen on {self._host}:{self._port}: {error.strerror}") from error
        host, port = runner.addresses[0][:2]
        self.address = (host, port)
        self._site = site
        log.info("media over HTTP on %s:%d", host, port)

    async def _healthz(self, request: web.Request) -> web.Response:
        states = {bridge.name: bridge.ready for bridge in self._bridges}
        return web.json_response({"ok": self.ready, "bridges": states}, status=200 if self.ready else 503)
