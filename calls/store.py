"""The store: PostgreSQL through SQLAlchemy 2, the only module (with migrations/) that imports it.

Rows are written in batches by `Store.write` (upserts by primary key, so writing the same row again changes nothing),
and read as plain dicts. Every row has a tenant.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from calls.errors import Ambiguous, NotFound, StoreError
from calls.model import DEFAULT_TENANT

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _tenant() -> sa.Column[str]:
    return sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False, index=True)


def _call() -> sa.Column[str]:
    return sa.Column("call_id", sa.Text, sa.ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True)


tenants = sa.Table("tenants", metadata, sa.Column("id", sa.Text, primary_key=True), sa.Column("name", sa.Text))

calls = sa.Table(
    "calls",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _tenant(),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("bridge", sa.Text, nullable=False),
    sa.Column("from_", sa.Text, nullable=False),
    sa.Column("to", sa.Text, nullable=False),
    sa.Column("offered_at", sa.DateTime(timezone=True), nullable=False, index=True),
    sa.Column("started_at", sa.DateTime(timezone=True)),
    sa.Column("ended_at", sa.DateTime(timezone=True)),
    sa.Column("duration_s", sa.Float),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("summary", sa.Text, nullable=False, server_default=""),
    sa.Column("disposition", sa.Text, nullable=False, server_default=""),
    # "" while the call's rows are still being written; then "none" (never answered, nothing recorded), "queued",
    # "running", "done" or "failed: why".
    sa.Column("wrap_up", sa.Text, nullable=False, server_default=""),
)

participants = sa.Table(
    "participants",
    metadata,
    _call(),
    sa.Column("id", sa.Text, primary_key=True),
    _tenant(),
    sa.Column("role", sa.Text, nullable=False),
)

utterances = sa.Table(
    "utterances",
    metadata,
    _call(),
    sa.Column("id", sa.Text, primary_key=True),
    _tenant(),
    sa.Column("participant_id", sa.Text, nullable=False),
    sa.Column("start_s", sa.Float, nullable=False),
    sa.Column("end_s", sa.Float, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("words", pg.JSONB, nullable=False),  # [{text, start_s, end_s, probability}]
    sa.Column("confidence", sa.Float, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("tsv", pg.TSVECTOR, sa.Computed("to_tsvector('english', text)", persisted=True)),
    sa.Index("ix_utterances_tsv", "tsv", postgresql_using="gin"),
)

hints = sa.Table(
    "hints",
    metadata,
    _call(),
    sa.Column("id", sa.Text, primary_key=True),
    _tenant(),
    sa.Column("at_s", sa.Float, nullable=False),
    sa.Column("trigger_s", sa.Float, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("score", sa.Float, nullable=False),
    sa.Column("verdict", sa.Text, nullable=False, server_default=""),
)

answers = sa.Table(
    "answers",
    metadata,
    _call(),
    sa.Column("id", sa.Text, primary_key=True),
    _tenant(),
    sa.Column("at_s", sa.Float, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("heard_text", sa.Text, nullable=False),
    sa.Column("interrupted", sa.Boolean, nullable=False),
    sa.Column("response_ms", sa.Integer),
    sa.Column("sources", pg.JSONB, nullable=False),
    sa.Column("tsv", pg.TSVECTOR, sa.Computed("to_tsvector('english', heard_text)", persisted=True)),
    sa.Index("ix_answers_tsv", "tsv", postgresql_using="gin"),
)

# One row a participant a minute: `trace` is two bytes a Chunk (see calls/trace.py), 150 Chunks a minute.
decision_traces = sa.Table(
    "decision_traces",
    metadata,
    _call(),
    sa.Column("participant_id", sa.Text, primary_key=True),
    sa.Column("minute", sa.Integer, primary_key=True),
    _tenant(),
    sa.Column("trace", sa.LargeBinary, nullable=False),
)

recordings = sa.Table(
    "recordings",
    metadata,
    _call(),
    sa.Column("path", sa.Text, primary_key=True),  # relative to the recordings folder
    _tenant(),
    sa.Column("duration_s", sa.Float, nullable=False),
    sa.Column("channels", sa.Integer, nullable=False),
    sa.Column("complete", sa.Boolean, nullable=False),
)

notices = sa.Table(
    "notices",
    metadata,
    _call(),
    sa.Column("id", sa.Text, primary_key=True),  # the event's position on the bus
    _tenant(),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("at_s", sa.Float, nullable=False),
)

PARTS = {
    table.name: table for table in (participants, utterances, hints, answers, decision_traces, recordings, notices)
}
TABLES = {"calls": calls, **PARTS}
_ORDER = {
    "participants": ("role",),
    "utterances": ("start_s", "id"),
    "hints": ("at_s",),
    "answers": ("at_s",),
    "decision_traces": ("participant_id", "minute"),
    "recordings": ("path",),
    "notices": ("at_s", "id"),
}

Row = dict[str, Any]


def main_recording(recordings: Sequence[Row]) -> Row | None:
    """Of a call's recordings the one to play and to transcribe: complete before broken off, then the longest."""
    return max(recordings, key=lambda row: (row["complete"], row["duration_s"]), default=None)


class Store:
    """One process's handle on the database. Methods raise StoreError when it is away: try again."""

    def __init__(self, url: str) -> None:
        self.engine = create_async_engine(url, pool_size=4, max_overflow=4, pool_pre_ping=True)

    async def close(self) -> None:
        await self.engine.dispose()

    async def ping(self) -> bool:
        try:
            async with self.engine.connect() as connection:
                await connection.execute(sa.text("select 1"))
        except (SQLAlchemyError, OSError):
            return False
        return True

    async def write(self, rows: Sequence[tuple[str, Row]]) -> None:
        """Upsert rows, [(table name, columns)], in one transaction and in order. Only the columns given are set.

        An utterance of a lower revision than the one stored is ignored, so a late event cannot undo a better text.
        """
        try:
            async with self.engine.begin() as connection:
                for table_name, row in rows:
                    await _upsert(connection, TABLES[table_name], row)
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(f"database: {_first_line(error)}") from error

    async def refine(self, call_id: str, tenant: str, utterance_rows: Sequence[Row], call_row: Row) -> None:
        """Replace a call's utterances by better ones and set columns of the call, in one transaction."""
        try:
            async with self.engine.begin() as connection:
                if utterance_rows:
                    mine = (utterances.c.call_id == call_id) & (utterances.c.tenant_id == tenant)
                    await connection.execute(sa.delete(utterances).where(mine))
                    await connection.execute(sa.insert(utterances), [dict(row) for row in utterance_rows])
                this = (calls.c.id == call_id) & (calls.c.tenant_id == tenant)
                await connection.execute(sa.update(calls).where(this).values(**call_row))
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(f"database: {_first_line(error)}") from error

    @asynccontextmanager
    async def claim(self, call_id: str) -> AsyncIterator[bool]:
        """Claim the job after a call while the context lasts. False: another process has it now.

        An advisory lock of a connection of its own, so that a process that was killed holds nothing. When the database
        restarts meanwhile, the claim is lost without a word. Raises StoreError when it cannot be reached at first.
        """
        lock = sa.select(sa.func.pg_try_advisory_lock(sa.func.hashtextextended(call_id, 0)))
        connection = self.engine.connect()
        try:
            try:
                await connection.start()
                await connection.execution_options(isolation_level="AUTOCOMMIT")  # no transaction lasts for the job
                ours = bool(await connection.scalar(lock))
            except (SQLAlchemyError, OSError) as error:
                raise StoreError(f"database: {_first_line(error)}") from error
            yield ours
        finally:
            with suppress(SQLAlchemyError, OSError):
                await connection.invalidate()  # closed and not pooled: the lock ends with it
                await connection.close()

    async def wrap_ups(self, call_ids: Sequence[str]) -> dict[str, str]:
        """How far the job after each call is (`calls.wrap_up`), of every tenant; calls without a row are left out."""
        query = sa.select(calls.c.id, calls.c.wrap_up).where(calls.c.id.in_(call_ids))
        try:
            async with self.engine.connect() as connection:
                return {row.id: row.wrap_up for row in await connection.execute(query)}
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(f"database: {_first_line(error)}") from error

    async def unfinished(self, limit: int = 1000) -> list[tuple[str, str]]:
        """(call id, tenant) of calls whose job after the call was queued or begun and has not ended, oldest first."""
        query = (
            sa.select(calls.c.id, calls.c.tenant_id)
            .where(calls.c.wrap_up.in_(["queued", "running"]))
            .order_by(calls.c.offered_at)
            .limit(limit)
        )
        try:
            async with self.engine.connect() as connection:
                return [(row.id, row.tenant_id) for row in await connection.execute(query)]
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(f"database: {_first_line(error)}") from error

    async def call(self, call_id: str, tenant: str = DEFAULT_TENANT) -> dict[str, Any]:
        """The whole story of one call: its columns and a list of rows under each name in PARTS. Raises NotFound.

        A `call_id` may be shortened to any prefix that names one call only.
        """
        try:
            async with self.engine.connect() as connection:
                mine = calls.c.id.startswith(call_id, autoescape=True) & (calls.c.tenant_id == tenant)
                found = (await connection.execute(sa.select(calls).where(mine).limit(2))).mappings().all()
                exact = [row for row in found if row["id"] == call_id] or found
                if not exact:
                    raise NotFound(f"no call {call_id}")
                if len(exact) > 1:
                    raise Ambiguous(f"{call_id} names several calls")
                story: dict[str, Any] = dict(exact[0])
                for name, table in PARTS.items():
                    columns = [column for column in table.c if column.name != "tsv"]
                    wanted = (table.c.call_id == story["id"]) & (table.c.tenant_id == tenant)
                    query = sa.select(*columns).where(wanted).order_by(*(table.c[c] for c in _ORDER[name]))
                    story[name] = [dict(row) for row in (await connection.execute(query)).mappings()]
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(f"database: {_first_line(error)}") from error
        return story

    async def hinted(self, tenant: str = DEFAULT_TENANT, since: datetime | None = None) -> list[Row]:
        """Calls on which hints were shown, oldest first: {"id", "hints", "judged"}, the last two being how many.
        `since`: only calls that were offered then or later."""
        mine = (calls.c.tenant_id == tenant) & (hints.c.tenant_id == tenant)
        if since is not None:
            mine &= calls.c.offered_at >= since
        shown, judged = sa.func.count(), sa.func.count().filter(hints.c.verdict != "")
        query = (
            sa.select(calls.c.id, shown.label("hints"), judged.label("judged"))
            .join(hints, hints.c.call_id == calls.c.id)
            .where(mine)
            .group_by(calls.c.id)
            .order_by(calls.c.offered_at, calls.c.id)
        )
        try:
            async with self.engine.connect() as connection:
                return [dict(row) for row in (await connection.execute(query)).mappings()]
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(f"database: {_first_line(error)}") from error

    async def list_calls(
        self,
        tenant: str = DEFAULT_TENANT,
        *,
        search: str = "",
        mode: str = "",
        state: str = "",
        limit: int = 50,
        offset: int = 0,
    ) -> list[Row]:
        """Newest first. `search` is a web-search query over what was said; matching rows carry a `headline` with
        the words between « and ». `mode` and `state`, where given, must match."""
        query = sa.select(calls).where(calls.c.tenant_id == tenant)
        if search.strip():
            query = _searched(search, tenant)
        if mode:
            query = query.where(calls.c.mode == mode)
        if state:
            query = query.where(calls.c.state == state)
        query = query.order_by(calls.c.offered_at.desc()).limit(limit).offset(offset)
        try:
            async with self.engine.connect() as connection:
                return [dict(row) for row in (await connection.execute(query)).mappings()]
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(f"database: {_first_line(error)}") from error


def _searched(search: str, tenant: str) -> sa.Select[Any]:
    wanted = sa.func.websearch_to_tsquery("english", search)
    said = sa.union_all(
        sa.select(utterances.c.call_id, utterances.c.text.label("said"), utterances.c.tsv).where(
            (utterances.c.tenant_id == tenant) & utterances.c.tsv.op("@@")(wanted)
        ),
        sa.select(answers.c.call_id, answers.c.heard_text.label("said"), answers.c.tsv).where(
            (answers.c.tenant_id == tenant) & answers.c.tsv.op("@@")(wanted)
        ),
    ).subquery()
    headline = sa.func.ts_headline("english", said.c.said, wanted, "StartSel=«, StopSel=», MaxWords=18, MinWords=6")
    best = (
        sa.select(said.c.call_id, headline.label("headline"))
        .ext(pg.distinct_on(said.c.call_id))
        .order_by(said.c.call_id, sa.func.ts_rank(said.c.tsv, wanted).desc())
        .subquery()
    )
    return sa.select(calls, best.c.headline).join(best, best.c.call_id == calls.c.id)


async def _upsert(connection: AsyncConnection, table: sa.Table, row: Mapping[str, Any]) -> None:
    statement = pg.insert(table).values(**row)
    keys = [column.name for column in table.primary_key]
    changes = {name: statement.excluded[name] for name in row if name not in keys}
    where = table.c.revision <= statement.excluded.revision if table is utterances else None
    if changes:
        await connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes, where=where))
    else:
        await connection.execute(statement.on_conflict_do_nothing())


def _first_line(error: BaseException) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return str(cause).strip().split("\n")[0]
