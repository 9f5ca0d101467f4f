"""Runs migrations over asyncpg. The URL comes from OFFHOOK_DATABASE_URL or from `alembic -x url=...`."""

from __future__ import annotations

import asyncio
import os

from alembic import context
from sqlalchemy import pool
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from calls.store import metadata


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    configured = context.config.get_main_option("sqlalchemy.url")
    url = context.get_x_argument(as_dictionary=True).get("url") or configured or os.environ.get("OFFHOOK_DATABASE_URL")
    if not url:
        raise SystemExit("no database: set OFFHOOK_DATABASE_URL, or pass -x url=postgresql+asyncpg://...")
    engine = create_async_engine(url, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


asyncio.run(main())
