"""The worker on a real Valkey, with a model that does nothing; the last tests kill real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager

import numpy as np
import numpy.typing as npt
import pytest

from calls.audio import CHUNK_BYTES
from calls.bus import Bus
from calls.events import (
    PREPARE,
    WORK,
    Answered,
    AnyEvent,
    Assignment,
    AudioChunk,
    CallAccepted,
    CallEnded,
    CancelResponse,
    Decided,
    Event,
    Notice,
    Prepare,
    Say,
    Speech,
    StopSaying,
    audio_stream,
    call_stream,
    speech_stream,
)
from calls.model import Answer, Instruction, Mode, Participant, Role, State
from model_worker import worker as worker_module
from model_worker.echo import EchoModel
from model_worker.engine import Engine
from model_worker.speaker import Speaker
from model_worker.stream import Stream
from model_worker.worker import Worker
from offhook.servers import EmbeddedValkey

BOTH = (Participant("caller", Role.CALLER), Participant("human_agent", Role.HUMAN_AGENT))
PCM = bytes(CHUNK_BYTES)


def assign(bus: Bus, call_id: str, **options: str) -> None:
    instruction = Instruction(Mode.ASSIST, "listen", BOTH, options=options)
    bus.post(WORK, Assignment(call_id=call_id, instruction=instruction))


def send(bus: Bus, call_id: str, indices: Iterable[int], participants: Iterable[str] = ("caller",)) -> None:
    for index in indices:
        for participant in participants:
            chunk = AudioChunk(call_id=call_id, participant_id=participant, index=index, pcm=PCM, sent_at=time.time())
            bus.post(audio_stream(call_id), chunk)


def end(bus: Bus, call_id: str) -> None:
    over = CallEnded(call_id=call_id, state=State.ENDED, reason="bye", ended_at=time.time(), duration_s=1.0)
    bus.post(call_stream(call_id), over)


async def until(found: Callable[[list[AnyEvent]], bool], bus: Bus, stream: str) -> list[AnyEvent]:
    """The events of a stream, once `found` says that they are enough."""
    async with asyncio.timeout(30):
        while True:
            events = [message.event for message in await bus.read(stream)]
            if found(events):
                return events
            await asyncio.sleep(0.02)


async def idle(worker: Worker) -> None:
    async with asyncio.timeout(10):
        while worker.calls:  # noqa: ASYNC110 - there is no event for this, and there should not be one
            await asyncio.sleep(0.02)


def of(events: list[AnyEvent], kind: type[Event]) -> list[AnyEvent]:
    return [event for event in events if isinstance(event, kind)]


def chunks_decided(events: list[AnyEvent], participant: str = "caller") -> list[int]:
    return [e.chunk for e in events if isinstance(e, Decided) and e.participant_id == participant]


class Tone:
    """A voice that hums: 0.1 s a letter, in two blocks."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.prepared: list[str] = []

    def say(self, text: str, *, style: str = "normal") -> Iterator[npt.NDArray[np.float32]]:
        self.said.append(text)
        tone = np.sin(np.arange(1600 * len(text)) / 10).astype(np.float32) * 0.1
        yield from np.array_split(tone, 2)

    def prepare(self, texts: Iterable[str], *, style: str = "normal") -> None:
        self.prepared += texts


@asynccontextmanager
async def working(bus: Bus, name: str = "w1", model: EchoModel | None = None, voice: Tone | None = None,
                  capacity: int = 4, lapse_ms: int = 600) -> AsyncIterator[Worker]:  # fmt: skip
    worker = Worker(
        bus, Engine(model or EchoModel()), name, capacity=capacity, lapse_ms=lapse_ms,
        make_speaker=(lambda post: Speaker(voice, post)) if voice else (lambda post: None),
    )  # fmt: skip
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        yield worker
    finally:
        stop.set()
        await running


async def test_claims_accepts_decides_and_releases(bus: Bus) -> None:
    async with working(bus) as worker:
        assign(bus, "c1")
        story = await until(lambda e: bool(of(e, CallAccepted)), bus, call_stream("c1"))
        accepted = of(story, CallAccepted)[0]
        assert (accepted.worker, accepted.model, accepted.takeover) == ("w1", "echo", False)
        send(bus, "c1", range(5), ("caller", "human_agent"))
        end(bus, "c1")
        await until(lambda e: not e, bus, WORK)
        await idle(worker)
    story = await until(lambda e: True, bus, call_stream("c1"))
    assert chunks_decided(story) == [0, 1, 2, 3, 4]
    assert chunks_decided(story, "human_agent") == [0, 1, 2, 3, 4]


async def test_takes_no_more_calls_than_it_has_room_for(bus: Bus) -> None:
    async with working(bus, capacity=2):
        for call_id in ("c1", "c2", "c3"):
            assign(bus, call_id)
        for call_id in ("c1", "c2"):
            await until(lambda e: bool(of(e, CallAccepted)), bus, call_stream(call_id))
        assert await bus.read(call_stream("c3")) == []
        end(bus, "c1")
        await until(lambda e: bool(of(e, CallAccepted)), bus, call_stream("c3"))


async def test_repeats_are_ignored_and_a_gap_is_said(bus: Bus) -> None:
    async with working(bus) as worker:
        assign(bus, "c1")
        send(bus, "c1", [0, 1, 1, 0, 2, 5, 6])
        story = await until(lambda e: 6 in chunks_decided(e), bus, call_stream("c1"))
        assert chunks_decided(story) == [0, 1, 2, 5, 6]
        notice = of(story, Notice)[0]
        assert (notice.kind, notice.at_s) == ("hole", 3 * 0.4)
        assert worker.missing_chunks == 2


async def test_a_lease_outlives_its_lapse_while_it_is_renewed(bus: Bus) -> None:
    async with working(bus, lapse_ms=300) as worker:
        assign(bus, "c1")
        await until(lambda e: bool(of(e, CallAccepted)), bus, call_stream("c1"))
        await asyncio.sleep(1.0)
        assert await bus.leases.claim("rival", 1, 300) == []
        assert list(worker.calls) == ["c1"]


async def test_a_call_whose_lease_is_lost_is_dropped_at_once(bus: Bus) -> None:
    async with working(bus) as worker:
        assign(bus, "c1")
        send(bus, "c1", [0])
        await until(lambda e: chunks_decided(e) == [0], bus, call_stream("c1"))
        stolen = await bus.leases.claim("rival", 1, 0)  # a lapse of 0 ms: whatever is pending has lapsed
        assert [lease.takeover for lease in stolen] == [True]
        await idle(worker)
        send(bus, "c1", [1])
        await asyncio.sleep(0.2)
        assert chunks_decided([m.event for m in await bus.read(call_stream("c1"))]) == [0]


async def test_what_is_dropped_while_the_lease_is_uncertain_is_said(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "UNCERTAIN_EVENTS", 2)
    async with working(bus) as worker:
        assign(bus, "c1")
        await until(lambda e: bool(of(e, CallAccepted)), bus, call_stream("c1"))
        call = worker.calls["c1"]
        call.renewed_at = 0.0  # as if it could not be renewed for long; no other task runs until all is posted
        for seq in range(5):
            worker._post(call, speech_stream("c1"), say(seq, "x"))
        assert worker.dropped == 3
        story = await until(lambda e: bool(of(e, Notice)), bus, call_stream("c1"))
        assert of(story, Notice)[0].text.startswith("3 events of the model are lost")
        said = await until(lambda e: len(e) == 2, bus, speech_stream("c1"))
        assert [event.seq for event in of(said, Say)] == [3, 4]


class Remembering(EchoModel):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[Answer] = []

    def hear_answer(self, stream: Stream, answer: Answer) -> None:
        self.heard.append(answer)


async def test_answers_reach_the_model_once(bus: Bus) -> None:
    model, answer = Remembering(), Answer("a1", 1.0, "We close at six.", "We close", True, 640)
    async with working(bus, model=model):
        assign(bus, "c1")
        await until(lambda e: bool(of(e, CallAccepted)), bus, call_stream("c1"))
        for _ in range(2):
            bus.post(call_stream("c1"), Answered(call_id="c1", answer=answer))
        send(bus, "c1", [0])
        await until(lambda e: chunks_decided(e) == [0], bus, call_stream("c1"))
        await asyncio.sleep(0.1)
    assert model.heard == [answer]


class Deaf(EchoModel):
    """Fails wherever the event loop asks something of it."""

    def prepare(self, instruction: Instruction) -> None:
        raise RuntimeError("not prepared")

    def hear_answer(self, stream: Stream, answer: Answer) -> None:
        raise RuntimeError("no answers")

    def cancel(self, stream: Stream, response_id: str) -> None:
        raise RuntimeError("no cancelling")


async def test_what_fails_at_one_message_ends_no_call(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    answer = Answer("a1", 1.0, "We close at six.", "We close", True, 640)
    async with working(bus, model=Deaf()):
        assign(bus, "c1")
        await until(lambda e: bool(of(e, CallAccepted)), bus, call_stream("c1"))
        bus.post(PREPARE, Prepare(call_id="", instruction=Instruction(Mode.ASSIST, "listen", BOTH)))
        bus.post(call_stream("c1"), Answered(call_id="c1", answer=answer))
        bus.post(call_stream("c1"), CancelResponse(call_id="c1", response_id="r1", reason="not now"))
        send(bus, "c1", range(2))
        await until(lambda e: chunks_decided(e) == [0, 1], bus, call_stream("c1"))
        async with asyncio.timeout(10):
            while any(word not in caplog.text for word in ("prepared", "no answers", "cancelling")):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert "[c1] failed at Answered" in caplog.text


class Closing(EchoModel):
    """Notes which calls were closed."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    def close(self, stream: Stream) -> None:
        self.closed.append(stream.call_id)


async def test_a_call_that_fails_after_its_stream_was_opened_closes_it(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, failures = Closing(), [RuntimeError("on purpose")]

    def prepare_phrases(self: Worker, instruction: Instruction) -> None:
        if failures:
            raise failures.pop()

    monkeypatch.setattr(Worker, "_prepare_phrases", prepare_phrases)
    async with working(bus, model=model):
        assign(bus, "c1")
        send(bus, "c1", range(2))
        await until(lambda e: chunks_decided(e) == [0, 1], bus, call_stream("c1"))  # its lease lapsed to us again
        assert model.closed == ["c1"]
    assert "gave the call up" in caplog.text


def say(seq: int, text: str, last: bool = False, answer: str = "a1") -> Say:
    return Say(call_id="c1", answer_id=answer, seq=seq, text=text, last=last)


async def test_clauses_become_speech_in_order(bus: Bus) -> None:
    voice = Tone()
    async with working(bus, voice=voice):
        assign(bus, "c1", phrases="One moment.\nHello.")
        await until(lambda e: bool(of(e, CallAccepted)), bus, call_stream("c1"))
        for event in (say(0, "Good morning, "), say(0, "Good morning, "), say(1, "we open."), say(2, "", last=True)):
            bus.post(call_stream("c1"), event)
        spoken = await until(lambda e: any(s.last for s in of(e, Speech)), bus, speech_stream("c1"))
    pieces = [(s.seq, s.piece, s.text, s.last) for s in of(spoken, Speech)]
    assert [p for p in pieces if p[2] or p[3]] == [
        (0, 0, "Good morning, ", False),
        (1, 0, "we open.", False),
        (2, 0, "", True),
    ]
    assert pieces == sorted(pieces)
    pcm = {seq: b"".join(s.pcm for s in of(spoken, Speech) if s.seq == seq) for seq in range(3)}
    assert [len(pcm[seq]) // 3200 for seq in range(3)] == [14, 8, 0]
    assert all(len(s.pcm) <= CHUNK_BYTES for s in of(spoken, Speech))
    assert voice.prepared == ["One moment.", "Hello."]


async def test_prepares_before_the_first_call(bus: Bus) -> None:
    voice = Tone()
    instruction = Instruction(Mode.ANSWER, "listen", BOTH, options={"phrases": "One moment.\nHello."})
    bus.post(PREPARE, Prepare(call_id="", instruction=instruction))
    async with working(bus, voice=voice), asyncio.timeout(10):
        while voice.prepared != ["One moment.", "Hello."]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_an_answer_that_is_stopped_is_not_spoken(bus: Bus) -> None:
    voice = Tone()
    async with working(bus, voice=voice):
        assign(bus, "c1")
        await until(lambda e: bool(of(e, CallAccepted)), bus, call_stream("c1"))
        bus.post(call_stream("c1"), StopSaying(call_id="c1", answer_id="a1", reason="barge-in"))
        bus.post(call_stream("c1"), say(0, "Never heard.", last=True))
        bus.post(call_stream("c1"), say(0, "Heard.", last=True, answer="a2"))
        spoken = await until(lambda e: any(s.last for s in of(e, Speech)), bus, speech_stream("c1"))
    assert {s.answer_id for s in of(spoken, Speech)} == {"a2"}
    assert voice.said == ["Heard."]


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


# --- real processes --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def process(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {**os.environ, "OFFHOOK_REDIS_URL": url, "OFFHOOK_MODEL": "echo", "OFFHOOK_LEASE_MS": "600"}
    worker = await asyncio.create_subprocess_exec(sys.executable, "-m", "model_worker", env=environment)
    try:
        yield worker
    finally:
        if worker.returncode is None:
            worker.kill()
        await worker.wait()


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


BROKEN = """
import runpy
from {module} import {name}
async def broken(self): raise RuntimeError("on purpose")
{name}.run = {how}
runpy.run_module("model_worker", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("module", "name", "how"),
    [
        ("model_worker.engine", "Engine", "lambda self: None"),
        ("model_worker.engine", "Engine", "lambda self: 1 / 0"),
        ("calls.bus", "Outbox", "broken"),
    ],
)
async def test_a_worker_without_one_of_its_parts_ends(bus: Bus, bus_url: str, module: str, name: str, how: str) -> None:
    environment = {**os.environ, "OFFHOOK_REDIS_URL": bus_url, "OFFHOOK_MODEL": "echo"}
    code = BROKEN.format(module=module, name=name, how=how)
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", code, env=environment)
    try:
        assert await asyncio.wait_for(worker.wait(), 30) == 1
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()


async def test_the_bus_is_killed_in_mid_call(own_valkey: EmbeddedValkey) -> None:
    bus = Bus(own_valkey.url)
    sender = asyncio.create_task(bus.outbox.run())
    await bus.leases.prepare()
    try:
        async with process(own_valkey.url):
            assign(bus, "c1")
            send(bus, "c1", range(3))
            await until(lambda e: 2 in chunks_decided(e), bus, call_stream("c1"))
            await asyncio.sleep(1.2)  # the append-only file is written once a second
            assert own_valkey.process is not None
            own_valkey.process.kill()
            own_valkey.process.wait()
            send(bus, "c1", range(3, 6))
            await asyncio.sleep(1.0)
            await asyncio.to_thread(own_valkey.start)
            story = await until(lambda e: 5 in chunks_decided(e), bus, call_stream("c1"))
            assert sorted(set(chunks_decided(story))) == list(range(6))
            end(bus, "c1")
            await until(lambda e: not e, bus, WORK)
    finally:
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
        await bus.close()
