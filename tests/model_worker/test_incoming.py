"""What a worker does with what comes from a real Valkey."""

from __future__ import annotations

import asyncio

import pytest

from calls.audio import CHUNK_BYTES
from calls.bus import Bus
from calls.events import (
    PREPARE,
    Answered,
    CallAccepted,
    CancelResponse,
    Notice,
    Prepare,
    Speech,
    StopSaying,
    call_stream,
    speech_stream,
)
from calls.log import _CallIdFilter
from calls.model import Answer, Instruction, Mode
from model_worker.echo import EchoModel
from model_worker.stream import Stream
from tests.model_worker.working import BOTH, Tone, assign, chunks_decided, of, say, send, until, working


async def test_repeats_are_ignored_and_a_gap_is_said(bus: Bus) -> None:
    async with working(bus) as worker:
        assign(bus, "c1")
        send(bus, "c1", [0, 1, 1, 0, 2, 5, 6])
        story = await until(lambda e: 6 in chunks_decided(e), bus, call_stream("c1"))
        assert chunks_decided(story) == [0, 1, 2, 5, 6]
        notice = of(story, Notice)[0]
        assert (notice.kind, notice.at_s) == ("hole", 3 * 0.4)
        assert worker.losses.missing_chunks == 2


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
    caplog.handler.addFilter(_CallIdFilter())
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
    assert [r.call_id for r in caplog.records if r.getMessage().startswith("failed at Answered")] == ["c1"]  # type: ignore[attr-defined]


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


class GettingReady(EchoModel):
    """Has no room until it may."""

    def __init__(self) -> None:
        self.told: list[Mode] = []
        self.ready = False

    def prepare(self, instruction: Instruction) -> None:
        self.told.append(instruction.mode)

    def load(self) -> float:
        return 1.0 if self.told and not self.ready else 0.0


async def test_a_worker_says_that_it_has_room_when_its_model_is_ready(bus: Bus) -> None:
    """Not one heartbeat before: whoever called then would be refused."""
    model = GettingReady()
    for mode in Mode:
        bus.post(PREPARE, Prepare(call_id="", instruction=Instruction(mode, "listen", BOTH)))
    await bus.outbox.flush()
    rooms: list[int] = []
    async with working(bus, model=model) as worker:
        beat = bus.beat

        async def noted(service: str, instance: str, info: dict[str, str | int | float]) -> None:
            rooms.append(int(info["room"]))
            await beat(service, instance, info)

        bus.beat = noted  # type: ignore[method-assign,assignment]
        assign(bus, "c1")
        async with asyncio.timeout(10):
            while len(rooms) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert (model.told, worker.calls) == ([*Mode], {})
        model.ready = True
        await until(lambda e: bool(of(e, CallAccepted)), bus, call_stream("c1"))
    assert set(rooms[:2]) == {0}


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
