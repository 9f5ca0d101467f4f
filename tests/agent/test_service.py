"""The agent service on a real bus and a real database, with restarts."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest

from agent import service as service_module
from agent.conversation import Conversation
from agent.effects import key
from agent.knowledge import GARAGE, Knowledge
from agent.scribe import CallRows
from agent.service import Service
from calls import events as ev
from calls.bus import Bus, Message
from calls.model import Choice, Mode, State
from calls.store import Store
from offhook.servers import EmbeddedValkey
from tests.agent.story import PARTICIPANTS, RULES, offered
from tests.agent.test_conversation import REPLY


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "QUIET_S", 0.5)


@asynccontextmanager
async def running(bus_url: str, store: Store, name: str = "agent") -> AsyncIterator[tuple[Service, list[str]]]:
    """A service with a bus of its own; the list holds the calls whose wrap-up it queued."""
    bus = Bus(bus_url)
    queued: list[str] = []

    async def enqueue(call_id: str, tenant: str) -> None:
        queued.append(call_id)

    service = Service(bus, store, Knowledge(GARAGE), RULES, enqueue, name)
    task = asyncio.create_task(service.run())
    try:
        yield service, queued
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await bus.close()


class Phone:
    """Telephony and the model worker, as far as the agent sees them."""

    def __init__(self, bus: Bus, call_id: str, mode: Mode = Mode.ANSWER) -> None:
        self.bus, self.call_id, self.mode = bus, call_id, mode
        self.chunk = 0

    def post(self, event: ev.Event, *, on_calls: bool = False) -> None:
        if on_calls:
            self.bus.post(ev.CALLS, event)
        self.bus.post(ev.call_stream(self.call_id), event)

    def ring(self) -> None:
        self.post(offered(self.mode, self.call_id, time.time()), on_calls=True)

    def answer(self) -> None:
        self.post(ev.CallAccepted(call_id=self.call_id, worker="w", model="m"))
        self.post(ev.CallStarted(call_id=self.call_id, started_at=time.time()), on_calls=True)

    def passes(self, chunks: int) -> None:
        for _ in range(chunks):
            for participant in PARTICIPANTS[self.mode]:
                self.post(
                    ev.Decided(
                        call_id=self.call_id,
                        participant_id=participant.id,
                        chunk=self.chunk,
                        choice=Choice.SILENT,
                        score=1.0,
                    )
                )
            self.chunk += 1

    def play(self, answer_id: str, heard: str = "...") -> None:
        at_s = self.chunk * 0.4
        self.post(ev.PlayoutStarted(call_id=self.call_id, answer_id=answer_id, at_s=at_s))
        self.passes(3)
        self.post(
            ev.PlayoutEnded(
                call_id=self.call_id, answer_id=answer_id, at_s=self.chunk * 0.4, heard_text=heard, interrupted=False
            )
        )

    def ask(self, response_id: str, heard: str = "When are you open?", reply: str = REPLY) -> None:
        self.post(
            ev.ResponseOpened(
                call_id=self.call_id,
                response_id=response_id,
                choice=Choice.ANSWER,
                participant_id="caller",
                chunk=self.chunk,
                score=0.9,
                trigger_s=self.chunk * 0.4,
                heard=heard,
                confidence=0.9,
                sources=("hours-and-place.md#opening-hours",),
            )
        )
        self.post(ev.ResponseDelta(call_id=self.call_id, response_id=response_id, seq=0, text=reply))
        self.post(ev.ResponseClosed(call_id=self.call_id, response_id=response_id, text=reply))

    def hang_up(self, recorded: bool = True) -> None:
        if recorded:
            self.post(ev.RecordingSaved(call_id=self.call_id, path=f"{self.call_id}.wav", duration_s=9.0, channels=2))
        self.post(
            ev.CallEnded(call_id=self.call_id, state=State.ENDED, reason="BYE", ended_at=time.time(), duration_s=9.0),
            on_calls=True,
        )

    async def events(self) -> list[ev.Event]:
        return [message.event for message in await self.bus.read(ev.call_stream(self.call_id))]

    async def commands(self) -> list[str]:
        return [name for event in await self.events() if (name := key(event))]


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    for _ in range(400):
        if found := await condition():
            return found
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come to that")


async def written(store: Store, call_id: str, wrap_up: str = "queued") -> dict[str, Any]:
    async def done() -> bool:
        return (await store.wrap_ups([call_id])).get(call_id) == wrap_up

    await until(done)
    return await store.call(call_id)


async def test_a_call_from_ring_to_rows(bus: Bus, bus_url: str, store: Store) -> None:
    async with running(bus_url, store) as (_, queued):
        phone = Phone(bus, "c1")
        phone.ring()
        assignments = await until(lambda: bus.read(ev.WORK))
        instruction = assignments[0].event.instruction
        assert len(instruction.cards) > 20
        assert "Hello, this is Kestrel Garage." in instruction.options["phrases"].splitlines()
        phone.answer()
        await until(lambda: _has(phone, "say greeting 2"))
        phone.play("greeting")
        phone.ask("r1")
        await until(lambda: _has(phone, "say r1 2"))
        phone.play("r1", REPLY)
        await until(lambda: _has(phone, "answered r1"))
        phone.hang_up()
        story = await written(store, "c1")
        assert [answer["id"] for answer in story["answers"]] == ["greeting", "r1"]
        assert (story["state"], story["mode"], story["reason"]) == ("ended", "answer", "BYE")
        assert len(story["decision_traces"]) == 2
        await until(lambda: _equal(queued, ["c1"]))
        services = await bus.services()
        assert "agent" in services


async def _has(phone: Phone, name: str) -> bool:
    return name in await phone.commands()


async def _equal(found: list[str], wanted: list[str]) -> bool:
    return found == wanted


async def test_a_refused_call_is_written_and_not_wrapped_up(bus: Bus, bus_url: str, store: Store) -> None:
    async with running(bus_url, store) as (_, queued):
        phone = Phone(bus, "c1")
        phone.ring()
        refused = ev.CallEnded(
            call_id="c1", state=State.REFUSED, reason="no room", ended_at=time.time(), duration_s=0.0
        )
        phone.post(refused, on_calls=True)
        story = await written(store, "c1", "none")
        assert (story["state"], story["reason"]) == ("refused", "no room")
        assert queued == []


async def test_a_restart_in_mid_call_says_nothing_twice(bus: Bus, bus_url: str, store: Store) -> None:
    phone = Phone(bus, "c1")
    async with running(bus_url, store):
        phone.ring()
        phone.answer()
        await until(lambda: _has(phone, "say greeting 2"))
        phone.play("greeting")
    phone.ask("r1")  # while nobody listens
    assert await bus.outbox.flush()
    async with running(bus_url, store):
        await until(lambda: _has(phone, "say r1 2"))
        phone.play("r1")
        await until(lambda: _has(phone, "answered r1"))
    async with running(bus_url, store) as (_, queued):
        phone.hang_up()
        story = await written(store, "c1")
        await until(lambda: _equal(queued, ["c1"]))
    commands = await phone.commands()
    assert len(commands) == len(set(commands))
    assert len(await bus.read(ev.WORK)) == 1
    assert [answer["id"] for answer in story["answers"]] == ["greeting", "r1"]


async def test_a_call_that_ended_while_the_agent_was_away_is_written(bus: Bus, bus_url: str, store: Store) -> None:
    phone = Phone(bus, "c1")
    phone.ring()
    phone.answer()
    phone.passes(5)
    phone.hang_up()
    assert await bus.outbox.flush()
    async with running(bus_url, store) as (_, queued):
        await written(store, "c1")
        await until(lambda: _equal(queued, ["c1"]))
    assert await bus.read(ev.WORK) == []
    async with running(bus_url, store) as (_, queued):  # queued again, for all it knows; written once
        await until(lambda: _equal(queued, ["c1"]))
    await store.refine("c1", "default", [], {"wrap_up": "done"})
    async with running(bus_url, store) as (_, queued):
        await asyncio.sleep(0.5)
        assert queued == []
    assert (await store.wrap_ups(["c1"])) == {"c1": "done"}


async def test_an_error_in_one_conversation_ends_only_that_call(
    bus: Bus, bus_url: str, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    genuine = Conversation.apply

    def apply(self: Conversation, event: ev.Event, posted_s: float = 0.0) -> list[ev.Event]:
        if self.call_id == "bad" and isinstance(event, ev.ResponseOpened):
            raise RuntimeError("on purpose")
        return genuine(self, event, posted_s)

    monkeypatch.setattr(Conversation, "apply", apply)
    async with running(bus_url, store):
        bad, good = Phone(bus, "bad"), Phone(bus, "good")
        for phone in (bad, good):
            phone.ring()
            phone.answer()
            await until(lambda phone=phone: _has(phone, "say greeting 2"))  # type: ignore[misc]
            phone.ask("r1")
        await until(lambda: _has(bad, "hang up"))
        await until(lambda: _has(good, "say r1 2"))
        bad.hang_up()
        assert (await written(store, "bad"))["state"] == "ended"
    assert "hang up" not in await good.commands()
    assert "on purpose" in caplog.text


async def test_an_event_that_cannot_be_written_down_ends_nothing(
    bus: Bus, bus_url: str, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    genuine = CallRows.fold

    def fold(self: CallRows, message: Message) -> None:
        if isinstance(message.event, ev.Decided) and message.event.chunk == 1:
            raise RuntimeError("on purpose")
        genuine(self, message)

    monkeypatch.setattr(CallRows, "fold", fold)
    async with running(bus_url, store):
        phone = Phone(bus, "c1")
        phone.ring()
        phone.answer()
        phone.passes(3)
        phone.hang_up(recorded=False)
        assert (await written(store, "c1", "none"))["state"] == "ended"
    assert "cannot write down Decided" in caplog.text


async def test_a_lost_telephony_process_ends_its_calls(
    bus: Bus, bus_url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(bus_url, store):
        phone = Phone(bus, "c1")
        phone.ring()
        phone.answer()
        await until(lambda: _has(phone, "say greeting 2"))
        monkeypatch.setattr(service_module, "ORPHAN_S", 0.2)
        story = await written(store, "c1", "none")
        assert (story["state"], story["reason"]) == ("failed", "telephony was lost")


async def test_a_quiet_call_whose_telephony_process_beats_goes_on(
    bus: Bus, bus_url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "ORPHAN_S", 0.2)
    await bus.beat("telephony", "t1", {}, ttl_s=60)
    phone = Phone(bus, "c1")
    phone.post(msgspec.structs.replace(offered(Mode.ANSWER, "c1", time.time()), instance="t1"), on_calls=True)
    phone.answer()
    async with running(bus_url, store):
        await until(lambda: _has(phone, "say greeting 2"))
        await asyncio.sleep(3.0)
        assert not any(isinstance(event, ev.CallEnded) for event in await phone.events())
        await bus.beat("telephony", "t1", {}, ttl_s=0.001)
        assert (await written(store, "c1", "none"))["reason"] == "telephony was lost"


async def test_an_outage_of_the_bus_makes_no_orphans(
    own_valkey: EmbeddedValkey, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "ORPHAN_S", 3.0)
    bus = Bus(own_valkey.url)
    sender = asyncio.create_task(bus.outbox.run())
    phone = Phone(bus, "c1")
    async with running(own_valkey.url, store):
        phone.ring()
        phone.answer()
        await until(lambda: _has(phone, "say greeting 2"))
        await asyncio.sleep(1.5)  # the append-only file is written once a second
        assert own_valkey.process is not None
        own_valkey.process.kill()
        own_valkey.process.wait()
        await asyncio.sleep(4.5)
        own_valkey.start()
        phone.play("greeting")
        await until(lambda: _has(phone, "answered greeting"))
        assert not any(isinstance(event, ev.CallEnded) for event in await phone.events())
        phone.hang_up(recorded=False)
        assert (await written(store, "c1", "none"))["state"] == "ended"
    sender.cancel()
    await asyncio.gather(sender, return_exceptions=True)
    await bus.close()


async def test_tells_which_calls_will_come(bus: Bus, bus_url: str, store: Store) -> None:
    """The newest of each mode is kept."""
    before: set[str] = set()

    async def told() -> list[Message]:
        found = [message for message in await bus.read(ev.PREPARE) if message.position not in before]
        return found if len(found) == len(Mode) else []

    for name in ("one", "two"):
        async with running(bus_url, store, name):
            await until(told)
        before |= {message.position for message in await told()}
    modes = [m.event.instruction.mode for m in await bus.read(ev.PREPARE) if isinstance(m.event, ev.Prepare)]
    assert modes == [*Mode]


async def test_a_second_service_waits_for_its_turn(bus: Bus, bus_url: str, store: Store) -> None:
    phone = Phone(bus, "c1")
    async with AsyncExitStack() as second:
        async with running(bus_url, store, "one"):
            await until(lambda: bus.read(ev.PREPARE))
            await second.enter_async_context(running(bus_url, store, "two"))
            phone.ring()
            phone.answer()
            await until(lambda: _has(phone, "say greeting 2"))
            await asyncio.sleep(0.5)
            assert list((await bus.services())["agent"]) == ["one"]
        phone.play("greeting")
        await until(lambda: _has(phone, "answered greeting"))
        assert await bus.lead(service_module.ROLE, "two", 60_000)
    commands = await phone.commands()
    assert len(commands) == len(set(commands))
    assert len(await bus.read(ev.WORK)) == 1


async def test_a_service_that_was_superseded_ends(bus: Bus, bus_url: str, store: Store) -> None:
    service = Service(bus, store, Knowledge(GARAGE), RULES, lambda call_id, tenant: asyncio.sleep(0), "one")
    task = asyncio.create_task(service.run())
    await until(lambda: bus.read(ev.PREPARE))
    await bus._client.set("offhook:leader:agent", "two")
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(task, 10)
    assert raised.group_contains(service_module.Superseded)


async def test_killed_in_mid_call(bus: Bus, bus_url: str, store: Store, database_url: str) -> None:
    """`python -m agent`, SIGKILLed twice with a question on the way; SIGTERM at the end is clean."""
    environment = {**os.environ, "OFFHOOK_REDIS_URL": bus_url, "OFFHOOK_DATABASE_URL": database_url}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "agent"], env=environment)

    agent = start()
    try:
        phone = Phone(bus, "c1")
        phone.ring()
        phone.answer()
        await until(lambda: _has(phone, "say greeting 2"))
        phone.play("greeting")
        for number in range(1, 3):
            phone.ask(f"r{number}")
            agent.kill()
            agent.wait()
            phone.passes(2)
            agent = start()
            await until(lambda number=number: _has(phone, f"say r{number} 2"))  # type: ignore[misc]
            phone.play(f"r{number}")
        await until(lambda: _has(phone, "answered r2"))
        phone.hang_up(recorded=False)
        story = await written(store, "c1", "none")
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(10) == 0
    finally:
        agent.kill()
        agent.wait()
    commands = await phone.commands()
    assert len(commands) == len(set(commands))
    assert [answer["id"] for answer in story["answers"]] == ["greeting", "r1", "r2"]
