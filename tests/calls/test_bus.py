"""The bus over a real Valkey: order, followers, outages, leases."""

from __future__ import annotations

import asyncio

from calls.audio import CHUNK_BYTES
from calls.bus import Bus, Outbox
from calls.events import CALLS, WORK, Assignment, AudioChunk, CallStarted, Dtmf, HangUp, call_stream
from calls.model import Instruction, Mode, Participant, Role
from offhook.servers import EmbeddedValkey

CALLER = Participant("caller", Role.CALLER)


def assignment(call_id: str) -> Assignment:
    return Assignment(call_id=call_id, instruction=Instruction(Mode.ANSWER, "be kind", (CALLER,)))


async def take(bus: Bus, streams: dict[str, str], count: int) -> list:
    follower = bus.follower("test")
    for stream, position in streams.items():
        follower.add(stream, position)
    found = []
    async for message in follower.messages():
        found.append(message)
        if len(found) == count:
            break
    return found


async def test_events_of_a_stream_arrive_in_order_and_from_a_position(bus: Bus) -> None:
    for digit in "12345":
        bus.post(call_stream("a"), Dtmf(call_id="a", participant_id="caller", digit=digit, at_s=1.0))
    found = await asyncio.wait_for(take(bus, {"call:a": "0-0"}, 5), 5)
    assert [m.event.digit for m in found] == list("12345")
    again = await asyncio.wait_for(take(bus, {"call:a": found[2].position}, 2), 5)
    assert [m.event.digit for m in again] == ["4", "5"]


async def test_a_stream_added_while_the_follower_waits_is_read_at_once(bus: Bus) -> None:
    follower = bus.follower("late")
    follower.add("call:first")
    messages = follower.messages()
    waiting = asyncio.create_task(anext(messages))
    await asyncio.sleep(0.1)
    bus.post("call:second", HangUp(call_id="second", reason="x"))
    follower.add("call:second")
    assert (await asyncio.wait_for(waiting, 0.9)).stream == "call:second"  # a blocking read alone takes 1 s
    async with asyncio.timeout(10):
        while await bus._client.ttl("offhook:wake:late") < 0:  # noqa: ASYNC110 - what only wakes a reader goes by itself
            await asyncio.sleep(0.02)
    await messages.aclose()


async def test_an_outage_loses_nothing_that_was_posted(own_valkey: EmbeddedValkey) -> None:
    bus = Bus(own_valkey.url)
    sender = asyncio.create_task(bus.outbox.run())
    follower = bus.follower("f")
    follower.add(CALLS)
    got: list[str] = []

    async def read() -> None:
        async for message in follower.messages():
            got.append(message.event.call_id)

    reader = asyncio.create_task(read())
    bus.post(CALLS, CallStarted(call_id="before", started_at=1.0))
    assert await bus.outbox.flush()
    assert own_valkey.process is not None
    own_valkey.process.kill()
    own_valkey.process.wait()
    for n in range(50):
        bus.post(CALLS, CallStarted(call_id=f"during-{n}", started_at=1.0))
    await asyncio.sleep(0.5)
    own_valkey.start()
    assert await bus.outbox.flush(10)
    for _ in range(100):
        if len(got) >= 51:
            break
        await asyncio.sleep(0.05)
    assert list(dict.fromkeys(got)) == ["before", *(f"during-{n}" for n in range(50))]
    for task in (sender, reader):
        task.cancel()
    await asyncio.gather(sender, reader, return_exceptions=True)
    await bus.close()


async def test_a_full_outbox_drops_the_oldest_and_counts_it(own_valkey: EmbeddedValkey) -> None:
    bus = Bus(own_valkey.url)
    outbox = Outbox(bus._client, events=2, audio_bytes=2 * CHUNK_BYTES)
    for n in range(3):
        outbox.post("call:a", HangUp(call_id="a", reason=str(n)))
        outbox.post("audio:a", AudioChunk(call_id="a", participant_id="caller", index=n, pcm=bytes(CHUNK_BYTES)))
    assert outbox.dropped == 2
    sender = asyncio.create_task(outbox.run())
    assert await outbox.flush()
    assert [m.event.reason for m in await bus.read("call:a")] == ["1", "2"]
    assert [m.event.index for m in await bus.read("audio:a")] == [1, 2]
    sender.cancel()
    await asyncio.gather(sender, return_exceptions=True)
    await bus.close()


async def test_a_lease_lapses_to_another_worker_and_the_first_cannot_take_it_back(bus: Bus) -> None:
    bus.post(WORK, assignment("a"))
    await bus.outbox.flush()
    [lease] = await bus.leases.claim("one", 5, lapse_ms=200)
    assert not lease.takeover
    assert lease.assignment.call_id == "a"
    assert await bus.leases.claim("two", 5, lapse_ms=200, block_ms=10) == []
    assert await bus.leases.renew("one", lease.position)
    await asyncio.sleep(0.25)
    [taken] = await bus.leases.claim("two", 5, lapse_ms=200, block_ms=10)
    assert taken.takeover
    assert taken.position == lease.position
    assert not await bus.leases.renew("one", lease.position)
    assert not await bus.leases.release("one", lease.position)
    assert await bus.leases.release("two", lease.position)
    assert await bus.leases.claim("one", 5, lapse_ms=0, block_ms=10) == []


async def test_a_worker_claims_no_more_than_it_has_room_for(bus: Bus) -> None:
    for n in range(5):
        bus.post(WORK, assignment(str(n)))
    await bus.outbox.flush()
    assert len(await bus.leases.claim("one", 2, lapse_ms=5000)) == 2
    assert len(await bus.leases.claim("two", 9, lapse_ms=5000)) == 3
    assert await bus.leases.claim("three", 0, lapse_ms=5000) == []


async def test_heartbeats_are_seen_and_lapse(bus: Bus) -> None:
    await bus.beat("worker", "w1", {"room": 3}, ttl_s=0.2)
    assert (await bus.services())["worker"]["w1"]["room"] == "3"
    await asyncio.sleep(0.3)
    assert await bus.services() == {}


async def test_one_leads_and_the_next_follows_when_it_is_gone(bus: Bus) -> None:
    assert await bus.lead("agent", "one", 60_000)
    assert await bus.lead("agent", "one", 60_000)
    assert not await bus.lead("agent", "two", 60_000)
    assert not await bus.resign("agent", "two")
    assert await bus.resign("agent", "one")
    assert await bus.lead("agent", "two", 50)
    await asyncio.sleep(0.1)
    assert await bus.lead("agent", "one", 60_000), "two has not renewed"
    assert await bus.lead("another role", "two", 60_000)
