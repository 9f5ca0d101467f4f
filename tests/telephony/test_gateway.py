"""Calls through the real bus, the real ticker and the real recorder; legs in memory, a scripted worker."""

from __future__ import annotations

import asyncio
import os
import signal
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from calls.audio import CHUNK_SAMPLES, SAMPLE_RATE
from calls.bus import Bus
from calls.events import (
    CALLS,
    AudioChunk,
    CallAccepted,
    CallEnded,
    CallOffered,
    CallStarted,
    Event,
    HangUp,
    PlayoutEnded,
    RecordingSaved,
    Say,
    Speech,
    audio_stream,
    call_stream,
    speech_stream,
)
from calls.model import Mode, Role, State
from offhook.servers import EmbeddedValkey
from telephony import gateway as gateway_module
from telephony.bridge import LegEvents, Offer, Refused
from telephony.gateway import CallGateway, Ticket, new_call_id
from telephony.recorder import Recorder
from telephony.session import Parts
from telephony.ticker import Ticker
from telephony.voice_activity import SileroNet
from tests.telephony.legs import MemoryLeg
from tests.telephony.sounds import frames, noise, spoken

pytestmark = pytest.mark.timeout(40)
NET = SileroNet()
E = TypeVar("E", bound=Event)


@dataclass
class House:
    bus: Bus
    root: Path
    gateway: CallGateway
    ticker: Ticker
    accepting: bool = True
    offered: list[CallOffered] = field(default_factory=list)

    async def work(self) -> None:
        """A worker that has room for every call."""
        follower = self.bus.follower("test-worker")
        follower.add(CALLS)
        async for message in follower.messages():
            event = message.event
            if isinstance(event, CallOffered):
                self.offered.append(event)
                if self.accepting:
                    accepted = CallAccepted(call_id=event.call_id, worker="w", model="none")
                    self.bus.post(call_stream(event.call_id), accepted)

    async def events(self, call_id: str, kind: type[E]) -> list[E]:
        messages = await self.bus.read(call_stream(call_id))
        return [message.event for message in messages if isinstance(message.event, kind)]

    async def chunks(self, call_id: str, participant: str) -> dict[int, AudioChunk]:
        messages = await self.bus.read(audio_stream(call_id))
        found = [m.event for m in messages if isinstance(m.event, AudioChunk) and m.event.participant_id == participant]
        return {chunk.index: chunk for chunk in found}

    async def ended(self, call_id: str) -> CallEnded:
        return (await eventually(lambda: self.events(call_id, CallEnded)))[0]


T = TypeVar("T")


async def eventually(get: Callable[[], Awaitable[T]]) -> T:
    """Its value, once that is not empty."""
    while not (value := await get()):  # noqa: ASYNC110 - the bus is looked at from outside
        await asyncio.sleep(0.02)
    return value


async def sleep_until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@asynccontextmanager
async def house_on(bus: Bus, root: Path, **settings: object) -> AsyncIterator[House]:
    recorder, ticker = Recorder(root), Ticker()
    options: dict[str, object] = {
        "max_calls": 10,
        "routes": {"201": "assist", "202": "transcribe"},
        "default_mode": "answer",
        "admission_timeout_s": 5.0,
        **settings,
    }
    gateway = CallGateway(bus, Parts(bus.post, ticker, recorder, NET, 700, "test-1"), **options)  # type: ignore[arg-type]
    house = House(bus, root, gateway, ticker)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(work) for work in (gateway.run(), ticker.run(), house.work())]
        await asyncio.sleep(0)
        yield house
        await gateway.close(5.0)
        await bus.outbox.flush()
        for task in running:
            task.cancel()
    recorder.close()


@pytest.fixture
async def house(bus: Bus, tmp_path: Path) -> AsyncIterator[House]:
    async with house_on(bus, tmp_path) as house:
        yield house


def offer(to: str = "200", **more: object) -> Offer:
    return Offer("test", "100", to, **more)  # type: ignore[arg-type]


def joined(ticket: Ticket, leg: MemoryLeg) -> LegEvents:
    events = LegEvents()
    ticket.join(leg, events)
    return events


async def test_a_whole_answered_call(house: House) -> None:
    said = frames(noise(5.0))
    ticket = await house.gateway.ring(offer())
    caller = MemoryLeg(ticket.participant(Role.CALLER).role, said, delay=2)
    joined(ticket, caller)
    answer = spoken(2, first=8)
    pcm = answer.astype("<i2").tobytes()
    call_id = ticket.call_id
    house.bus.post(call_stream(call_id), Say(call_id=call_id, answer_id="a", seq=0, text="Hello there.", last=True))
    half = len(pcm) // 4 * 2
    for number, piece in enumerate((pcm[:half], pcm[half:])):
        house.bus.post(
            speech_stream(call_id),
            Speech(
                call_id=call_id, answer_id="a", seq=0, piece=number, pcm=piece, text="Hello there.", last=number == 1
            ),
        )
    await eventually(lambda: house.events(call_id, PlayoutEnded))
    house.bus.post(call_stream(call_id), HangUp(call_id=call_id, reason="goodbye"))
    ended = await house.ended(call_id)
    assert (ended.state, ended.reason, caller.hung_up) == (State.ENDED, "goodbye", "goodbye")

    story = [type(m.event) for m in await house.bus.read(call_stream(call_id))]
    assert story[:3] == [CallOffered, CallAccepted, CallStarted]
    assert story[-2:] == [RecordingSaved, CallEnded]
    everywhere = [type(m.event) for m in await house.bus.read(CALLS)]
    assert everywhere == [CallOffered, CallStarted, CallEnded]
    (offered,) = house.offered
    assert (offered.mode, offered.bridge, offered.from_, offered.to) == (Mode.ANSWER, "test", "100", "200")
    assert [p.id for p in offered.participants] == ["caller", "voice_agent"]

    chunks = await house.chunks(call_id, "caller")
    assert sorted(chunks) == list(range(len(chunks)))
    heard = b"".join(chunks[index].pcm for index in sorted(chunks))
    common = min(len(said) * 640, round(ended.duration_s * SAMPLE_RATE) * 2)  # the last Chunk is filled up
    assert heard[:common] == b"".join(said)[:common]
    (saved,) = await house.events(call_id, RecordingSaved)
    with wave.open(str(house.root / saved.path)) as file:
        recorded = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    for index, chunk in chunks.items():
        left = recorded[index * CHUNK_SAMPLES : (index + 1) * CHUNK_SAMPLES, 0].tobytes()
        assert chunk.pcm[: len(left)] == left, f"chunk {index} is not what was recorded there"
    (playout,) = await house.events(call_id, PlayoutEnded)
    assert (playout.heard_text, playout.interrupted) == ("Hello there.", False)
    right = recorded[:, 1]
    start = int(np.flatnonzero(right)[0]) - int(np.flatnonzero(answer)[0])
    assert right[start : start + len(answer)].tolist() == answer.tolist()
    assert not house.gateway.sessions


async def test_an_assist_call_bridges_its_two_legs(house: House) -> None:
    caller_ticket = await house.gateway.ring(offer("201", reference="r1"))
    agent_ticket = await house.gateway.ring(offer("900", reference="r1", roles=(Role.HUMAN_AGENT,)))
    assert agent_ticket.call_id == caller_ticket.call_id
    caller, agent = MemoryLeg(Role.CALLER, frames(spoken(2))), MemoryLeg(Role.HUMAN_AGENT, frames(spoken(2, first=3)))
    said = [b"".join(leg._says) for leg in (caller, agent)]  # type: ignore[arg-type]
    joined(caller_ticket, caller)
    events = joined(agent_ticket, agent)
    await sleep_until(lambda: len(agent.played) >= 60)
    events.closed("the agent hung up", False)
    ended = await house.ended(caller_ticket.call_id)
    assert (ended.state, caller.hung_up) == (State.ENDED, "the agent hung up")
    assert said[0][: 640 * 40] in b"".join(agent.played)
    assert said[1][: 640 * 40] in b"".join(caller.played)
    for participant in ("caller", "human_agent"):
        chunks = await house.chunks(caller_ticket.call_id, participant)
        assert sorted(chunks) == list(range(len(chunks)))
        assert len(chunks) >= 3


async def test_the_agent_may_ring_before_the_caller(house: House) -> None:
    agent = asyncio.create_task(house.gateway.ring(offer("900", reference="r2", roles=(Role.HUMAN_AGENT,))))
    await asyncio.sleep(0.1)
    other = await house.gateway.ring(offer("201", reference="another"))
    caller = await house.gateway.ring(offer("201", reference="r2"))
    assert (await agent).call_id == caller.call_id != other.call_id


async def test_an_agent_without_a_reference_takes_the_oldest_waiting_call(house: House) -> None:
    tickets = [await house.gateway.ring(offer("201")) for _ in range(2)]
    taken = [await house.gateway.ring(offer("900", roles=(Role.HUMAN_AGENT,))) for _ in range(2)]
    assert [t.call_id for t in taken] == [t.call_id for t in tickets]
    taken[0].abandon("hung up while ringing")
    again = await house.gateway.ring(offer("900", roles=(Role.HUMAN_AGENT,)))
    assert again.call_id == tickets[0].call_id


async def test_an_unknown_reference_is_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "PAIRING_S", 0.1)
    await house.gateway.ring(offer("201", reference="r3"))
    with pytest.raises(Refused, match="'nobody'") as refused:
        await house.gateway.ring(offer("900", reference="nobody", roles=(Role.HUMAN_AGENT,)))
    assert not refused.value.busy


async def test_a_stranger_is_an_agent_only_of_a_waiting_call_that_it_names(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_module, "PAIRING_S", 0.1)
    await house.gateway.ring(offer("201"))  # the oldest, and it has no reference
    named = await house.gateway.ring(offer("201", reference="r4"))
    stranger = {"roles": (Role.HUMAN_AGENT,), "trusted": False}
    for guess in ("", "guess"):
        with pytest.raises(Refused) as refused:
            await house.gateway.ring(offer("agent", reference=guess, **stranger))
        assert refused.value.forbidden
    assert (await house.gateway.ring(offer("agent", reference="r4", **stranger))).call_id == named.call_id
    with pytest.raises(Refused) as refused:  # it does not wait any more
        await house.gateway.ring(offer("agent", reference="r4", **stranger))
    assert refused.value.forbidden


async def test_both_parties_on_one_transport(house: House) -> None:
    ticket = await house.gateway.ring(offer("202", roles=(Role.CALLER, Role.HUMAN_AGENT)))
    assert [p.id for p in house.offered[0].participants] == ["caller", "human_agent"]
    for role in (Role.CALLER, Role.HUMAN_AGENT):
        joined(ticket, MemoryLeg(role, frames(spoken(2))))
    await sleep_until(lambda: house.gateway.sessions[ticket.call_id]._now >= CHUNK_SAMPLES)
    await house.gateway.close(5)
    assert (await house.ended(ticket.call_id)).reason == "the service is stopping"


async def test_a_full_house_is_busy(bus: Bus, tmp_path: Path) -> None:
    async with house_on(bus, tmp_path, max_calls=2) as house:
        tickets = [await house.gateway.ring(offer()) for _ in range(2)]
        with pytest.raises(Refused, match="all 2 lines") as refused:
            await house.gateway.ring(offer())
        assert refused.value.busy
        tickets[0].abandon("cancelled")
        await sleep_until(lambda: len(house.gateway.sessions) == 1)
        await house.gateway.ring(offer())


async def test_no_worker_no_answer(bus: Bus, tmp_path: Path) -> None:
    async with house_on(bus, tmp_path, admission_timeout_s=0.2) as house:
        house.accepting = False
        with pytest.raises(Refused, match="no worker") as refused:
            await house.gateway.ring(offer())
        assert not refused.value.busy
        (offered,) = [m.event for m in await eventually(lambda: bus.read(CALLS)) if isinstance(m.event, CallOffered)]
        ended = await house.ended(offered.call_id)
        assert (ended.state, ended.reason, ended.duration_s) == (State.REFUSED, "no worker has room", 0.0)
        assert not house.gateway.sessions


async def test_a_caller_who_gives_up_during_admission_leaves_nothing(house: House) -> None:
    house.accepting = False
    ringing = asyncio.create_task(house.gateway.ring(offer()))
    await sleep_until(lambda: bool(house.offered))
    ringing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ringing
    assert (await house.ended(house.offered[0].call_id)).state is State.REFUSED


@pytest.mark.parametrize(
    ("roles", "to"),
    [((Role.CALLER, Role.HUMAN_AGENT), "200"), ((Role.SUPERVISOR,), "200"), ((), "200"), ((Role.VOICE_AGENT,), "201")],
)
async def test_a_call_that_makes_no_sense_is_refused(house: House, roles: tuple[Role, ...], to: str) -> None:
    with pytest.raises(Refused):
        await house.gateway.ring(offer(to, roles=roles))


async def test_a_burst_above_the_rate_is_refused(bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "CALLS_A_SECOND", 3)
    async with house_on(bus, tmp_path) as house:
        results = await asyncio.gather(*(house.gateway.ring(offer()) for _ in range(8)), return_exceptions=True)
        refused = [str(result) for result in results if isinstance(result, Refused)]
        assert refused == ["more than 3 new calls a second"] * 5


async def test_a_leg_that_joins_too_late_is_hung_up(house: House) -> None:
    ticket = await house.gateway.ring(offer())
    ticket.abandon("cancelled")
    late = MemoryLeg(Role.CALLER)
    joined(ticket, late)
    await sleep_until(lambda: late.hung_up is not None)


async def test_call_ids_are_unique_and_sort_by_time() -> None:
    first = new_call_id()
    await asyncio.sleep(0.005)
    ids = [new_call_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(first < later for later in ids)
    assert len(first) == 16
    assert first.isalnum()


async def test_the_heartbeat_tells_how_telephony_is(house: House) -> None:
    async def alive() -> dict[str, dict[str, str]]:
        return (await house.bus.services()).get("telephony", {})

    ((instance, info),) = (await eventually(alive)).items()
    assert instance == "test-1"
    assert (info["calls"], info["max_calls"], info["events_dropped"]) == ("0", "10", "0")
    assert float(info["tick_lag_p99_ms"]) >= 0


async def outage(house: House, away: Callable[[], Awaitable[None]]) -> None:
    """A call that goes on while the bus is away: no Chunk is lost, none is out of order."""
    ticket = await house.gateway.ring(offer("202"))
    said = frames(spoken(30))
    caller = MemoryLeg(Role.CALLER, said)
    events = joined(ticket, caller)
    await sleep_until(lambda: len(caller.played) >= 60)
    before = len(caller.played)
    await away()
    assert len(caller.played) > before, "the call went on"
    at = len(caller.played)
    await sleep_until(lambda: len(caller.played) >= at + 60)
    events.closed("hung up", False)
    await sleep_until(lambda: not house.gateway.sessions)
    assert await house.bus.outbox.flush(20)
    assert house.bus.outbox.dropped == 0
    ended = await house.ended(ticket.call_id)
    chunks = await house.chunks(ticket.call_id, "caller")
    assert sorted(chunks) == list(range(len(chunks)))
    assert len(chunks) >= (at + 60) // 20
    heard = b"".join(chunks[index].pcm for index in sorted(chunks))
    common = min(len(said) * 640, round(ended.duration_s * SAMPLE_RATE) * 2)
    assert heard[:common] == b"".join(said)[:common]


@asynccontextmanager
async def own_house(server: EmbeddedValkey, root: Path) -> AsyncIterator[House]:
    bus = Bus(server.url)
    sender = asyncio.create_task(bus.outbox.run())
    async with house_on(bus, root) as house:
        yield house
    sender.cancel()
    await asyncio.gather(sender, return_exceptions=True)
    await bus.close()


async def test_a_bus_that_hangs_for_five_seconds_loses_no_chunk(own_valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with own_house(own_valkey, tmp_path) as house:

        async def away() -> None:
            assert own_valkey.process is not None
            os.kill(own_valkey.process.pid, signal.SIGSTOP)
            await asyncio.sleep(5)
            os.kill(own_valkey.process.pid, signal.SIGCONT)

        await outage(house, away)


async def test_a_bus_that_is_killed_loses_no_chunk_and_no_new_call_is_taken_meanwhile(
    own_valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    async with own_house(own_valkey, tmp_path) as house:

        async def away() -> None:
            assert own_valkey.process is not None
            own_valkey.process.kill()
            own_valkey.process.wait()
            await sleep_until(lambda: not house.bus.outbox.connected)
            with pytest.raises(Refused, match="bus is away"):
                await house.gateway.ring(offer())
            await asyncio.sleep(2)
            await asyncio.to_thread(own_valkey.start)

        await outage(house, away)
