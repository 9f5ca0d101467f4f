"""The worker on a real Valkey, with a model that does nothing; the last tests break real processes."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Sequence

import pytest

from calls.audio import Chunk
from calls.bus import Bus
from calls.errors import BusError
from calls.events import CALLS, WORK, CallAccepted, CallEnded, call_stream
from calls.model import Instruction, State
from model_worker.echo import EchoModel
from model_worker.engine import Engine
from model_worker.speaker import Speaker
from model_worker.stream import Emit, Past, Stream
from model_worker.worker import ThreadDied, Worker
from offhook.servers import EmbeddedValkey
from tests.model_worker.working import Tone, assign, chunks_decided, end, idle, of, process, send, until, working


async def test_claims_accepts_decides_and_releases(bus: Bus) -> None:
    async with working(bus) as worker:
        assign(bus, "c1")
        story = await until(lambda e: bool(of(e, CallAccepted)), bus, call_stream("c1"))
        accepted = of(story, CallAccepted)[0]
        assert (accepted.worker, accepted.model, accepted.takeover) == ("w1", "echo", False)
        assert not accepted.transcribes  # it hears, and tells nothing in words
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


class Slow(EchoModel):
    """A step takes longer than a Chunk, while it is slow."""

    def __init__(self) -> None:
        self.fast = threading.Event()

    def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
        self.fast.wait(0.5)
        super().step(batch)


async def test_a_worker_that_is_too_slow_claims_no_more_calls_and_goes_on_with_those_it_has(bus: Bus) -> None:
    model = Slow()
    async with working(bus, model=model) as worker:
        assign(bus, "c1")
        await until(lambda e: bool(of(e, CallAccepted)), bus, call_stream("c1"))
        send(bus, "c1", range(14))
        await until(lambda e: len(chunks_decided(e)) >= 12, bus, call_stream("c1"))
        assert worker.room() == 0
        await asyncio.sleep(0.5)  # a claim that began when there was room has ended
        assign(bus, "lapsed")
        await bus.outbox.flush()
        assert await bus.leases.claim("rival", 1, 600_000)  # the rival is never heard of again
        assign(bus, "new")
        await until(lambda e: len(chunks_decided(e)) == 14, bus, call_stream("c1"))
        await asyncio.sleep(1.0)
        assert list(worker.calls) == ["c1"], "neither new work nor a lapsed lease"
        model.fast.set()
        send(bus, "c1", range(14, 18))
        await until(lambda e: len(chunks_decided(e)) == 18, bus, call_stream("c1"))
        for call_id in ("lapsed", "new"):  # it is calm again
            await until(lambda e: bool(of(e, CallAccepted)), bus, call_stream(call_id))


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


async def test_a_call_whose_audio_has_stopped_is_ended_and_let_go(bus: Bus) -> None:
    """Telephony died, say, and its CallEnded never came."""
    model = Closing()
    async with working(bus, model=model, lapse_ms=300, no_audio_s=1.0) as worker:
        assign(bus, "c1")
        for index in range(10):  # no longer than this between two Chunks: then it is none of its business
            send(bus, "c1", [index])
            await asyncio.sleep(0.2)
        assert list(worker.calls) == ["c1"]
        await until(lambda e: not e, bus, WORK)
        await idle(worker)
        [ended] = of(await until(lambda e: True, bus, call_stream("c1")), CallEnded)
        assert (ended.state, ended.reason, ended.duration_s) == (State.FAILED, "no audio came for 1 s", 4.0)
        assert of(await until(lambda e: True, bus, CALLS), CallEnded) == [ended]
        assert model.closed == ["c1"]


async def test_nothing_is_ended_for_want_of_audio_while_the_bus_is_away(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew, away = bus.leases.renew, [BusError("away")] * 12

    async def renew_later(worker: str, position: str) -> bool:
        if away:
            raise away.pop()
        return await renew(worker, position)

    monkeypatch.setattr(bus.leases, "renew", renew_later)
    async with working(bus, lapse_ms=300, no_audio_s=0.5) as worker:
        assign(bus, "c1")
        async with asyncio.timeout(20):
            while away:
                assert not of([m.event for m in await bus.read(call_stream("c1"))], CallEnded)
                await asyncio.sleep(0.02)
        await idle(worker)
        assert of([m.event for m in await bus.read(call_stream("c1"))], CallEnded)


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

    def prepare_phrases(self: Speaker, instruction: Instruction) -> None:
        if failures:
            raise failures.pop()

    monkeypatch.setattr(Speaker, "prepare_phrases", prepare_phrases)
    async with working(bus, model=model, voice=Tone()):
        assign(bus, "c1")
        send(bus, "c1", range(2))
        await until(lambda e: chunks_decided(e) == [0, 1], bus, call_stream("c1"))  # its lease lapsed to us again
        assert model.closed == ["c1"]
    assert "gave the call up" in caplog.text


class Opening(Closing):
    """Opens when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()
        self.opened: list[str] = []

    def open(self, call_id: str, instruction: Instruction, emit: Emit, past: Past) -> Stream:
        self.opened.append(call_id)
        self.may.wait(20)
        return super().open(call_id, instruction, emit, past)


async def test_a_call_that_is_given_up_while_it_opens_closes_its_stream_when_that_comes(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, failures = Opening(), [ValueError("on purpose")]
    renew = bus.leases.renew

    async def failing_renew(worker: str, position: str) -> bool:
        if failures:
            raise failures.pop()
        return await renew(worker, position)

    monkeypatch.setattr(bus.leases, "renew", failing_renew)
    async with working(bus, model=model) as worker:
        try:
            assign(bus, "c1")
            async with asyncio.timeout(30):
                while "gave the call up" not in caplog.text:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            await asyncio.sleep(1.0)  # its lease lapses
            assert (model.opened, list(worker.calls)) == (["c1"], ["c1"]), "not opened again beside the first"
        finally:
            model.may.set()
        await until(lambda e: bool(of(e, CallAccepted)), bus, call_stream("c1"))
        assert (model.opened, model.closed) == (["c1", "c1"], ["c1"])


class Dead(EchoModel):
    def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
        raise RuntimeError("CUDA error: the device is gone")


async def test_the_calls_of_a_worker_whose_gpu_is_lost_go_to_another(bus: Bus) -> None:
    worker = Worker(bus, Engine(Dead()), "dead", capacity=4, lapse_ms=600)
    running = asyncio.create_task(worker.run(asyncio.Event()))
    assign(bus, "c1")
    send(bus, "c1", range(3))
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(running, 30)
    assert raised.group_contains(ThreadDied)
    async with working(bus, "w2"):
        story = await until(lambda e: len(chunks_decided(e)) == 3, bus, call_stream("c1"))
        assert chunks_decided(story) == [0, 1, 2]
        assert [accepted.worker for accepted in story if isinstance(accepted, CallAccepted)] == ["dead", "w2"]


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
