"""The store and the migrations on a real PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from calls.errors import NotFound, StoreError
from calls.store import Store, main_recording, metadata
from offhook.servers import EmbeddedPostgres
from tests.conftest import migrate


def call_row(call_id: str, **more: object) -> dict:
    return {
        "id": call_id, "tenant_id": "default", "mode": "answer", "state": "answering", "bridge": "sip",
        "from_": "100", "to": "answer", "offered_at": datetime(2026, 1, 1, tzinfo=UTC), **more,
    }  # fmt: skip


def utterance_row(call_id: str, utterance_id: str, text: str, revision: int = 0) -> dict:
    return {
        "call_id": call_id, "id": utterance_id, "tenant_id": "default", "participant_id": "caller", "start_s": 1.0,
        "end_s": 2.0, "text": text, "words": [{"text": text, "start_s": 1.0, "end_s": 2.0}], "confidence": 0.9,
        "revision": revision,
    }  # fmt: skip


async def test_rows_written_twice_are_there_once(store: Store) -> None:
    rows = [("calls", call_row("a")), ("utterances", utterance_row("a", "u1", "hello"))]
    await store.write(rows)
    await store.write(rows)
    story = await store.call("a")
    assert [u["text"] for u in story["utterances"]] == ["hello"]


async def test_a_late_worse_text_does_not_undo_a_better_one(store: Store) -> None:
    await store.write([("calls", call_row("a")), ("utterances", utterance_row("a", "u1", "better", revision=1))])
    await store.write([("utterances", utterance_row("a", "u1", "worse", revision=0))])
    assert [u["text"] for u in (await store.call("a"))["utterances"]] == ["better"]


async def test_search_finds_what_was_said_and_shows_it(store: Store) -> None:
    await store.write([("calls", call_row("a")), ("utterances", utterance_row("a", "u1", "my oil light is still on"))])
    await store.write([("calls", call_row("b")), ("utterances", utterance_row("b", "u1", "new tyres please"))])
    found = await store.list_calls(search="oil lights")
    assert [row["id"] for row in found] == ["a"]
    assert "«oil»" in found[0]["headline"]
    assert [row["id"] for row in await store.list_calls(search="'; drop table calls; --")] == []


async def test_a_call_is_found_by_a_prefix_that_names_one_call(store: Store) -> None:
    await store.write([("calls", call_row("abc1")), ("calls", call_row("abd2"))])
    assert (await store.call("abc"))["id"] == "abc1"
    for wrong in ("ab", "zzz", "%"):
        with pytest.raises(NotFound):
            await store.call(wrong)
    with pytest.raises(NotFound):
        await store.call("abc1", tenant="another")


async def test_refining_replaces_the_utterances_and_sets_the_summary(store: Store) -> None:
    await store.write([("calls", call_row("a")), ("utterances", utterance_row("a", "u1", "uh"))])
    for _ in range(2):  # a job that runs again changes nothing
        better = [utterance_row("a", "f1", "yes", revision=1)]
        await store.refine("a", "default", better, {"summary": "They said yes.", "wrap_up": "done"})
    story = await store.call("a")
    assert [u["id"] for u in story["utterances"]] == ["f1"]
    assert story["summary"] == "They said yes."


async def test_a_database_that_is_away_is_a_store_error() -> None:
    store = Store("postgresql+asyncpg://postgres@/offhook?host=/nonexistent")
    assert not await store.ping()
    with pytest.raises(StoreError):
        await store.list_calls()
    await store.close()


async def test_migrations_make_the_tables_of_the_store_and_go_back(postgres: EmbeddedPostgres, store: Store) -> None:
    migrate(postgres.url, "downgrade", "base")
    migrate(postgres.url, "upgrade", "head")

    def differences(connection: sa.Connection) -> list:
        return compare_metadata(MigrationContext.configure(connection), metadata)

    async with store.engine.connect() as connection:
        assert await connection.run_sync(differences) == []
        tenants = (await connection.execute(sa.text("select id from tenants"))).scalars().all()
    assert tenants == ["default"]


def test_the_main_recording_is_the_complete_or_the_longest_one() -> None:
    short, long, cut = (
        {"path": path, "duration_s": duration_s, "complete": complete}
        for path, duration_s, complete in (("a", 1.0, True), ("b", 2.0, True), ("c", 3.0, False))
    )
    assert main_recording([short, long, cut]) is long
    assert main_recording([cut]) is cut
    assert main_recording([]) is None


async def test_a_claim_is_one_processs_until_it_ends(store: Store) -> None:
    async with store.claim("c1") as first, store.claim("c1") as second, store.claim("c2") as other:
        assert (first, second, other) == (True, False, True)
    async with store.claim("c1") as again:
        assert again
