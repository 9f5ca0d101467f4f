"""A real console on the test's bus and database, served by uvicorn on a free port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from calls.bus import Bus
from calls.store import Store
from console.app import create_app
from console.config import Console, ConsoleConfig

PASSWORD = "correct horse"
BEARER_JSON = {"authorization": f"Bearer {PASSWORD}"}


@dataclass(slots=True)
class Served:
    url: str
    app: FastAPI
    recordings: Path

    @property
    def console(self) -> Console:
        console: Console = self.app.state.console
        return console

    def client(self, password: str = PASSWORD) -> httpx.AsyncClient:
        """An API client; with an empty password, one that has not signed in."""
        headers = {"authorization": f"Bearer {password}"} if password else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=20)


@asynccontextmanager
async def serving(bus: Bus, store: Store, recordings: Path, **options: object) -> AsyncIterator[Served]:
    config = ConsoleConfig(
        password=PASSWORD, secret="signing secret", recordings=recordings, company="Kestrel Garage",
        sip_address="127.0.0.1:5060", **options,  # type: ignore[arg-type]
    )  # fmt: skip
    recordings.mkdir(parents=True, exist_ok=True)
    app = create_app(config, bus, store)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1, ws_max_size=65536))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            if task.done():
                await task
            await asyncio.sleep(0.01)
        try:
            yield Served(f"http://127.0.0.1:{port}", app, recordings)
        finally:
            server.should_exit = True
            await task


@pytest.fixture
async def served(bus: Bus, store: Store, tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(bus, store, tmp_path / "recordings") as served:
        yield served


@pytest.fixture
async def api(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with served.client() as client:
        yield client


async def until(check: Callable[[], object]) -> None:
    """Wait until `check()` is true; the test's own time limit ends a wait in vain."""
    while not check():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.02)
