"""One worker goes on where another has ended: what is said then, and on a real Valkey. In the last test a real process
is killed."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace

import pytest

from calls.bus import Bus, Message
from calls.events import (
    WORK,
    CallAccepted,
    Event,
    Notice,
    ResponseClosed,
    Speech,
    audio_stream,
    call_stream,
    speech_stream,
)
from model_worker.echo import EchoStream
from model_worker.recall import Recollection
from model_worker.stream import Fate, PastResponse
from model_worker.takeover import go_on
from tests.model_worker.working import (
    Tone,
    assign,
    chunk,
    chunks_decided,
    end,
    held,
    of,
    process,
    say,
    send,
    until,
    working,
)


def test_torn_responses_are_closed_and_lost_audio_is_said() -> None:
    sent: list[Event] = []
    call = held(sent)
    call.stream = EchoStream("c1", sent.append, going_on=frozenset({"r3"}))
    begun = [PastResponse(id, "caller", 3, text="We open") for id in ("r1", "r2", "r3")]
    begun[1] = replace(begun[1], fate=Fate.FINISHED)
    known = Recollection(decided={"caller": 4}, responses={one.id: one for one in begun})
    audio = [Message(audio_stream("c1"), f"{n}-0", chunk("c1", "caller", n)) for n in range(7, 9)]
    go_on(call, known, audio, "w2")
    took, hole, closed = sent
    assert isinstance(took, Notice)
    assert (took.kind, took.at_s) == ("takeover", pytest.approx(2.0))
    assert isinstance(hole, Notice)
    assert (hole.kind, hole.at_s) == ("hole", pytest.approx(2.0))
    assert closed == ResponseClosed(call_id="c1", response_id="r1", text="We open", cancelled=True)
    assert call.next_chunk == {"caller": 7}
    assert call.losses.missing_chunks == 2


async def test_a_worker_that_stops_leaves_its_calls_to_another(bus: Bus) -> None:
    assign(bus, "c1")
    async with working(bus, "w1"):
        send(bus, "c1", range(3))
        await until(lambda e: chunks_decided(e) == [0, 1, 2], bus, call_stream("c1"))
    bus.post(call_stream("c1"), say(0, "Unsaid.", last=True))
    async with working(bus, "w2", voice=Tone()):
        send(bus, "c1", range(3, 6))
        story = await until(lambda e: 5 in chunks_decided(e), bus, call_stream("c1"))
        await until(lambda e: any(s.last for s in of(e, Speech)), bus, speech_stream("c1"))
    assert chunks_decided(story) == [0, 1, 2, 3, 4, 5], "each once"
    assert [(a.worker, a.takeover) for a in of(story, CallAccepted)] == [("w1", False), ("w2", True)]
    assert [(n.kind, n.at_s) for n in of(story, Notice)] == [("takeover", pytest.approx(1.2))]
    assert of(story, Notice)[0].text.startswith("model worker w2 took the call over, ")


async def test_a_takeover_says_what_was_lost(bus: Bus) -> None:
    assign(bus, "c1")
    async with working(bus, "w1"):
        send(bus, "c1", range(3))
        await until(lambda e: chunks_decided(e) == [0, 1, 2], bus, call_stream("c1"))
    await asyncio.sleep(0.1)
    await bus._client.delete("offhook:" + audio_stream("c1"))  # as if more than a minute had passed
    send(bus, "c1", range(10, 12))
    async with working(bus, "w2"):
        story = await until(lambda e: 11 in chunks_decided(e), bus, call_stream("c1"))
    assert [n.text for n in of(story, Notice)] == [
        "model worker w2 took the call over, heard again from 4.0 s",
        "no audio of caller from 1.2 s to 4.0 s: not in the transcript"
    ]  # fmt: skip


async def test_kill_9_and_takeover(bus: Bus, bus_url: str) -> None:
    assign(bus, "c1")
    async with process(bus_url) as first:
        send(bus, "c1", range(4), ("caller", "human_agent"))
        await until(lambda e: 3 in chunks_decided(e, "human_agent"), bus, call_stream("c1"))
        first.kill()
        await first.wait()
    send(bus, "c1", range(4, 8), ("caller", "human_agent"))
    async with process(bus_url) as second:
        story = await until(lambda e: 7 in chunks_decided(e, "human_agent"), bus, call_stream("c1"))
        end(bus, "c1")
        await until(lambda e: not e, bus, WORK)
        second.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(second.wait(), 10) == 0
    for participant in ("caller", "human_agent"):
        assert chunks_decided(story, participant) == list(range(8))
    assert [a.takeover for a in of(story, CallAccepted)] == [False, True]
