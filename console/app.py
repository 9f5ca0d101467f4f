"""The web application, put together. Importing it starts nothing: `create_app` gets all it needs."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from calls.bus import Bus
from calls.errors import BusError, NotFound, StoreError
from calls.store import Store
from console import api, pages, sockets
from console.auth import Guard, Sessions, Throttle
from console.config import Console, ConsoleConfig
from console.errors import ConsoleError
from console.headers import BodyLimit, SecureHeaders
from console.hub import LiveCalls
from console.recordings import PeaksCache

log = logging.getLogger(__name__)
MEDIA_TIMEOUT_S = 15.0  # admission and ICE gathering in telephony


def create_app(config: ConsoleConfig, bus: Bus, store: Store) -> FastAPI:
    """The console on this bus and store. It follows the bus from start-up to shutdown; the bus's outbox is run by
    the caller."""
    console = Console(config, bus, store, LiveCalls(bus), PeaksCache(), Throttle())
    sessions = Sessions(config.secret, config.password)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with httpx.AsyncClient(timeout=MEDIA_TIMEOUT_S, trust_env=False) as media:
            app.state.media = media
            tasks = [
                asyncio.create_task(console.hub.run(), name="live calls"),
                asyncio.create_task(_beat(console), name="heartbeat"),
            ]
            for task in tasks:
                task.add_done_callback(_report)
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    app = FastAPI(
        title="offhook",
        version="1",
        description="Calls as they are and were: transcript, decisions, hints, answers, recordings.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # they load scripts from elsewhere; /api is our own page
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.console = console
    app.state.sessions = sessions
    app.include_router(api.router)
    app.include_router(sockets.router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=pages.HERE / "static"), name="static")
    _explain_errors(app)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, limit=config.max_body)
    app.add_middleware(Guard, console=console, sessions=sessions)
    app.add_middleware(SecureHeaders, secure=config.secure)
    return app


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception():
        log.error("%s stopped", task.get_name(), exc_info=task.exception())


async def _beat(console: Console) -> None:
    instance = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    while True:
        await console.bus.beat("console", instance, {"browsers": len(console.sockets)})
        await asyncio.sleep(1.0)


def _problem(status: int, error: str, hint: str = "", headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": error, "hint": hint}, status, headers)


def _explain_errors(app: FastAPI) -> None:
    """Every error is {"error", "hint"}; a person who follows a dead link gets a page."""

    @app.exception_handler(NotFound)
    async def not_found(request: Request, error: NotFound) -> Response:
        return _problem(
            404, str(error), "GET /api/v1/calls lists the calls; an id may be shortened to a unique prefix."
        )

    @app.exception_handler(StoreError)
    async def store_away(request: Request, error: StoreError) -> Response:
        log.warning("%s %s: %s", request.method, request.url.path, error)
        hint = "Live calls go on and can be watched (GET /api/v1/calls?live=true); try again in a moment."
        return _problem(503, "the database is away", hint, {"retry-after": "2"})

    @app.exception_handler(BusError)
    async def bus_away(request: Request, error: BusError) -> Response:
        log.warning("%s %s: %s", request.method, request.url.path, error)
        hint = "Calls are not lost; past calls can still be read. Try again in a moment."
        return _problem(503, "the bus is away", hint, {"retry-after": "2"})

    @app.exception_handler(ConsoleError)
    async def refused(request: Request, error: ConsoleError) -> Response:
        return _problem(error.status, str(error), error.hint, error.headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return _problem(422, f"{where}: {first['msg']}", "See /api/v1/openapi.json.")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404 and not request.url.path.startswith(("/api/", "/static/")):
            return pages.page(request, "not_found", "Not found", 404)
        return _problem(error.status_code, str(error.detail), "", dict(error.headers or {}))
