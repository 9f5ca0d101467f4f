"""A worker on a real Valkey, and what the tests around it need."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager

import numpy as np
import numpy.typing as npt

from calls.audio import CHUNK_BYTES
from calls.bus import Bus, Lease
from calls.events import (
    WORK,
    AnyEvent,
    Assignment,
    AudioChunk,
    CallEnded,
    Decided,
    Event,
    Say,
    audio_stream,
    call_stream,
)
from calls.model import Instruction, Mode, Participant, Role, State
from model_worker.echo import EchoModel
from model_worker.engine import Engine
from model_worker.held import HeldCall, Losses
from model_worker.speaker import Speaker
from model_worker.worker import Worker

BOTH = (Participant("caller", Role.CALLER), Participant("human_agent", Role.HUMAN_AGENT))
PCM = bytes(CHUNK_BYTES)


def assign(bus: Bus, call_id: str, **options: str) -> None:
    instruction = Instruction(Mode.ASSIST, "listen", BOTH, options=options)
    bus.post(WORK, Assignment(call_id=call_id, instruction=instruction))


def held(sent: list[Event], streams: list[str] | None = None, lapse_s: float = 60.0) -> HeldCall:
    """A call that notes what it sends, and to which streams."""
    assignment = Assignment(call_id="c1", instruction=Instruction(Mode.ASSIST, "listen", BOTH))

    def send(stream: str, event: Event) -> None:
        sent.append(event)
        if streams is not None:
            streams.append(stream)

    return HeldCall(Lease("1-0", assignment, takeover=False), lapse_s, send, Losses())


def chunk(call_id: str, participant: str, index: int) -> AudioChunk:
    return AudioChunk(call_id=call_id, participant_id=participant, index=index, pcm=PCM, sent_at=time.time())


def send(bus: Bus, call_id: str, indices: Iterable[int], participants: Iterable[str] = ("caller",)) -> None:
    for index in indices:
        for participant in participants:
            bus.post(audio_stream(call_id), chunk(call_id, participant, index))


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


def say(seq: int, text: str, last: bool = False, answer: str = "a1") -> Say:
    return Say(call_id="c1", answer_id=answer, seq=seq, text=text, last=last)


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
                  capacity: int = 4, lapse_ms: int = 600, no_audio_s: float = 99) -> AsyncIterator[Worker]:  # fmt: skip
    worker = Worker(
        bus, Engine(model or EchoModel()), name, capacity=capacity, lapse_ms=lapse_ms, no_audio_s=no_audio_s,
        make_speaker=(lambda post: Speaker(voice, post)) if voice else (lambda post: None),
    )  # fmt: skip
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        yield worker
    finally:
        stop.set()
        await running


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
