"""Rows out of events: the fold, and the writer with the database gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.scribe import CallRows, Scribe
from calls import events as ev
from calls.bus import Message
from calls.errors import BusError
from calls.model import Choice, Decision, Mode, State, Utterance, Word
from calls.store import Store
from calls.trace import unpack
from offhook.servers import EmbeddedPostgres
from tests.agent.story import CALL, Story, offered
from tests.agent.test_conversation import REPLY, hint
from tests.conftest import migrate


def messages(events: list[ev.Event]) -> list[Message]:
    return [Message(f"call:{CALL}", f"1700000000000-{n}", event) for n, event in enumerate(events, 1)]  # type: ignore[arg-type]


def a_call() -> list[Message]:
    story = Story(Mode.ASSIST)
    hint(story, "Oil light", "a.md#oil")
    story.happens(
        ev.HintJudged(call_id=CALL, hint_id=story.hints[0].id, verdict="accepted"),
        ev.HintJudged(call_id=CALL, hint_id="unknown", verdict="accepted"),
        ev.Notice(call_id=CALL, kind="hole", text="nul \x00 byte", at_s=1.0),
    )
    story.passes(70)
    said = Utterance("u9", "human_agent", 1.0, 2.0, "hello", (Word("hello", 1.0, 2.0, 0.9),), 0.8)
    story.happens(
        ev.Uttered(call_id=CALL, utterance=said),
        ev.RecordingSaved(call_id=CALL, path="2026/c1.wav", duration_s=70.0, channels=2),
    )
    story.ends()
    return messages(story.stream)


def an_answered_call() -> list[Message]:
    story = Story().greets()
    story.plays(story.asks("When are you open?", REPLY), heard="We are open")
    story.ends()
    return messages(story.stream)


async def no_reread(call_id: str) -> list[Message]:
    raise BusError("not expected")


def test_rows_are_given_once_until_they_change() -> None:
    rows = CallRows()
    for message in a_call():
        rows.fold(message)
    tables = [table for table, _ in rows.take()]
    assert tables[0] == "calls"
    assert set(tables) == {
        "calls", "participants", "utterances", "hints", "decision_traces", "recordings", "notices"
    }  # fmt: skip
    assert rows.take() == []
    rows.close("queued")
    assert [(table, row["wrap_up"]) for table, row in rows.take()] == [("calls", "queued")]
    assert rows.recorded


def test_a_stream_without_its_beginning_gives_no_rows() -> None:
    rows = CallRows()
    for message in a_call()[1:]:
        rows.fold(message)
    assert rows.take() == []


def test_decisions_may_come_late_and_twice() -> None:
    rows = CallRows()

    def decide(chunk: int, choice: Choice) -> None:
        event = ev.Decided(call_id=CALL, participant_id="caller", chunk=chunk, choice=choice, score=1.0)
        rows.fold(Message("", "1-1", event))

    rows.fold(Message("", "1-0", offered()))
    for chunk in (0, 2, 1, 2, 149, 150, 148):
        decide(chunk, Choice.TRANSCRIBE)
    traces = {row["minute"]: row["trace"] for table, row in rows.take() if table == "decision_traces"}
    assert [decision.chunk for decision in unpack("caller", 0, traces[0])] == [0, 1, 2, 148, 149]
    assert [decision.chunk for decision in unpack("caller", 1, traces[1])] == [150]
    assert isinstance(next(unpack("caller", 1, traces[1])), Decision)


async def test_a_call_is_written_whole_and_again_without_change(store: Store) -> None:
    for stream in (a_call(), an_answered_call()):
        for _ in range(2):
            scribe = Scribe(store, no_reread)
            for message in stream:
                scribe.note(message)
            await scribe.flush()
            assert scribe.waiting == 0
    story = await store.call(CALL)
    assert story["state"] == State.ENDED
    assert [hint["verdict"] for hint in story["hints"]] == ["accepted"]
    assert story["utterances"][0]["words"][0]["text"] == "hello"
    assert [answer["heard_text"] for answer in story["answers"]] == [
        "Hello, this is Kestrel Garage. I'm an AI, and this call is recorded. How can I help?",
        "We are open",
    ]
    assert [notice["text"] for notice in story["notices"]] == ["nul  byte"]
    assert story["recordings"][0]["path"] == "2026/c1.wav"


async def test_a_row_that_the_database_refuses_does_not_hold_up_the_others(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    scribe = Scribe(store, no_reread)
    wrong = Message("call:x", "1-1", offered(call_id="x"))
    scribe.note(Message("call:x", "1-1", ev.CallOffered(**{**_fields(wrong.event), "tenant": "nobody"})))
    for message in a_call():
        scribe.note(message)
    await scribe.flush()
    assert (await store.call(CALL))["recordings"]
    assert "left out" in caplog.text


def _fields(event: ev.Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


@pytest.fixture
async def own_postgres(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "postgres")
    server.start()
    migrate(server.url)
    yield server
    server.stop()


@pytest.mark.parametrize("capacity", [50_000, 1])
async def test_nothing_is_lost_while_the_database_is_away(
    own_postgres: EmbeddedPostgres, capacity: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when more rows wait than may: those are read again from the stream."""
    stream = a_call()
    noted: list[Message] = []

    async def reread(call_id: str) -> list[Message]:
        return list(noted)

    store = Store(own_postgres.url)
    scribe = Scribe(store, reread, capacity)
    writer = asyncio.create_task(scribe.run())
    half = len(stream) // 2
    try:
        for message in stream[:half]:
            noted.append(message)
            scribe.note(message)
        await asyncio.sleep(0.8)
        own_postgres.stop()
        for message in stream[half:]:
            noted.append(message)
            scribe.note(message)
            if message is stream[-10]:
                await asyncio.sleep(1.5)  # what was there is being tried; the rest waits behind it
        finished = asyncio.create_task(scribe.finish(CALL, lambda rows: "queued" if rows.recorded else "none"))
        await asyncio.sleep(1.5)
        assert not finished.done()
        assert not scribe.connected
        assert ("reading the call again" in caplog.text) == (capacity == 1)
        own_postgres.start()
        assert await asyncio.wait_for(finished, 30) == "queued"
        story = await store.call(CALL)
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        await store.close()
    expected = CallRows()
    for message in stream:
        expected.fold(message)
    wanted = [table for table, _ in expected.take()]
    for table in set(wanted) - {"calls"}:
        assert len(story[table]) == wanted.count(table), table
    assert story["wrap_up"] == "queued"
