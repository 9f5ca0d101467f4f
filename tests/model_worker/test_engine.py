"""The engine with a clock in the test's hand."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import pytest

from calls.audio import CHUNK_BYTES, Chunk
from calls.events import Decided, Event, Notice, Partial
from calls.model import Choice, Instruction, Mode, Participant, Role
from model_worker.echo import EchoModel, EchoStream
from model_worker.engine import CATCH_UP_S, FAILED_STEPS, Engine, ModelDied
from model_worker.errors import NoRoom
from model_worker.stream import Emit, Past, Stream

INSTRUCTION = Instruction(Mode.TRANSCRIBE, "", (Participant("caller", Role.CALLER),))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def chunk(index: int, call: str = "c1", participant: str = "caller") -> Chunk:
    return Chunk(call, participant, index, bytes(CHUNK_BYTES))


def test_one_decision_a_chunk_in_order() -> None:
    engine, posted = Engine(EchoModel(), clock=Clock()), list[Event]()
    stream = engine.open("c1", INSTRUCTION, Past(), posted.append)
    for index in range(3):
        assert engine.hear(stream, chunk(index), deadline=1.0)
    assert [engine.step() for _ in range(4)] == [1, 1, 1, 0]
    assert [(e.chunk, e.choice, e.late) for e in posted if isinstance(e, Decided)] == [
        (0, Choice.SILENT, False),
        (1, Choice.SILENT, False),
        (2, Choice.SILENT, False),
    ]
    assert engine.books.decided == 3


def test_a_late_decision_is_marked_and_counted() -> None:
    clock = Clock()
    engine, posted = Engine(EchoModel(), clock=clock), list[Event]()
    stream = engine.open("c1", INSTRUCTION, Past(), posted.append)
    engine.hear(stream, chunk(0), deadline=0.4)
    engine.hear(stream, chunk(1), deadline=0.8)
    clock.now = 0.5
    engine.step()
    engine.step()
    assert [e.late for e in posted if isinstance(e, Decided)] == [True, False]
    assert engine.books.missed == 1


def test_chunks_decided_by_an_earlier_worker_are_heard_but_not_decided_again() -> None:
    engine, posted = Engine(EchoModel(), clock=Clock()), list[Event]()
    stream = engine.open("c1", INSTRUCTION, Past(decided=(("caller", 1),)), posted.append)
    for index in range(4):
        engine.hear(stream, chunk(index), deadline=-1.0 if index < 2 else 1.0)
    while engine.step():
        pass
    assert [e.chunk for e in posted if isinstance(e, Decided)] == [2, 3]
    assert engine.books.missed == 0


def decide_at(engine: Engine, clock: Clock, stream: Stream, index: int, now: float, deadline: float) -> None:
    engine.hear(stream, chunk(index, stream.call_id), deadline)
    clock.now = now
    engine.step()


def test_decisions_near_their_deadline_are_overload_until_it_is_calm_again() -> None:
    clock = Clock()
    engine = Engine(EchoModel(), clock=clock)
    stream = engine.open("c1", INSTRUCTION, Past(), lambda event: None)
    for index in range(10):
        decide_at(engine, clock, stream, index, index * 0.4, index * 0.4 + 0.3)
    assert not engine.overloaded()
    for index in range(10, 20):
        decide_at(engine, clock, stream, index, index * 0.4, index * 0.4 + 0.05)
    assert engine.overloaded()
    assert engine.books.missed == 0, "none was late yet"
    for index in range(20, 40):
        decide_at(engine, clock, stream, index, index * 0.4, index * 0.4 + 0.3)
    assert not engine.overloaded()


def test_a_call_that_was_taken_over_may_catch_up() -> None:
    clock = Clock()
    engine = Engine(EchoModel(), clock=clock)
    stream = engine.open("c1", INSTRUCTION, Past(decided=(("caller", 9),)), lambda event: None)
    for index in range(10, 30):
        decide_at(engine, clock, stream, index, 1.0, -5.0)
    assert not engine.overloaded()
    assert engine.books.missed == 20
    decide_at(engine, clock, stream, 30, 1.0, 1.3)  # in time: it has caught up
    for index in range(31, 51):
        decide_at(engine, clock, stream, index, 2.0, 1.5)
    assert engine.overloaded()


def test_a_call_that_never_catches_up_is_overload() -> None:
    clock = Clock()
    engine = Engine(EchoModel(), clock=clock)
    stream = engine.open("c1", INSTRUCTION, Past(decided=(("caller", 9),)), lambda event: None)
    for index in range(10, 30):
        decide_at(engine, clock, stream, index, CATCH_UP_S + 1.0, 0.0)
    assert engine.overloaded()


class Long(EchoModel):
    """What is asked in the middle of a step."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.engine: Engine | None = None
        self.seen: list[bool] = []

    def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
        assert self.engine is not None
        for _ in range(3):
            self.seen.append(self.engine.overloaded())
            self.clock.now += 0.3
        super().step(batch)


def test_a_step_that_is_longer_than_a_chunk_is_overload_before_it_ends() -> None:
    clock = Clock()
    model = Long(clock)
    model.engine = engine = Engine(model, clock=clock)
    stream = engine.open("c1", INSTRUCTION, Past(), lambda event: None)
    engine.hear(stream, chunk(0), deadline=1e12)
    engine.step()
    assert model.seen == [False, False, True]
    assert not engine.overloaded()


class Faulty(EchoModel):
    def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
        if any(chunk.index == 1 for _, chunk in batch):
            raise RuntimeError("weights on fire")
        super().step(batch)


def test_a_model_that_raises_does_not_end_the_call(caplog: pytest.LogCaptureFixture) -> None:
    engine, posted = Engine(Faulty(), clock=Clock()), list[Event]()
    stream = engine.open("c1", INSTRUCTION, Past(), posted.append)
    for index in range(3):
        engine.hear(stream, chunk(index), deadline=1.0)
    with caplog.at_level(logging.ERROR):
        while engine.step():
            pass
    assert [e.chunk for e in posted if isinstance(e, Decided)] == [0, 1, 2]
    assert engine.books.failed == 1
    assert "c1" in caplog.text


class Failing(EchoModel):
    """Raises what it is given, one a step; None: it decides."""

    def __init__(self, failures: Sequence[Exception | None]) -> None:
        self.failures = list(failures)

    def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
        failure = self.failures.pop(0)
        if failure is not None:
            raise failure
        super().step(batch)


def failing(failures: Sequence[Exception | None]) -> tuple[Engine, list[Event]]:
    engine, posted = Engine(Failing(failures), clock=Clock()), list[Event]()
    stream = engine.open("c1", INSTRUCTION, Past(), posted.append)
    for index in range(len(failures)):
        engine.hear(stream, chunk(index), deadline=1.0)
    return engine, posted


def test_a_model_that_fails_at_everything_ends_the_thread() -> None:
    engine, posted = failing([RuntimeError("no more")] * FAILED_STEPS)
    with pytest.raises(ModelDied, match="no more"):
        engine.run()
    decided = [event.chunk for event in posted if isinstance(event, Decided)]
    assert decided == list(range(FAILED_STEPS - 1)), "the last one is left for whoever takes the call over"
    assert engine.books.failed == FAILED_STEPS - 1


def test_a_model_that_decides_now_and_then_goes_on() -> None:
    fault = RuntimeError("again")
    engine, posted = failing(([fault] * (FAILED_STEPS - 1) + [None]) * 3)
    while engine.step():
        pass
    assert len(posted) == FAILED_STEPS * 3
    assert engine.books.failed == (FAILED_STEPS - 1) * 3


class Half(EchoModel):
    """Decides the first of a batch, then raises."""

    def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
        super().step(batch[:1])
        raise RuntimeError("only one")


def test_a_model_that_decides_for_some_goes_on() -> None:
    engine, posted = Engine(Half(), clock=Clock()), list[Event]()
    for call_id in ("c1", "c2"):
        stream = engine.open(call_id, INSTRUCTION, Past(), posted.append)
        for index in range(FAILED_STEPS + 1):
            engine.hear(stream, chunk(index, call_id), deadline=1.0)
    while engine.step():
        pass
    assert len(posted) == 2 * (FAILED_STEPS + 1)


def test_a_lost_gpu_ends_the_thread_at_once() -> None:
    engine, posted = failing([RuntimeError("CUDA error: an illegal memory access was encountered")])
    with pytest.raises(ModelDied, match="illegal memory access"):
        engine.step()
    assert posted == []


def test_too_little_memory_for_once_is_no_lost_gpu() -> None:
    engine, posted = failing([RuntimeError("CUDA out of memory. Tried to allocate 2 MiB"), None])
    while engine.step():
        pass
    assert len(posted) == 2


class Choosy(EchoModel):
    """Cannot bear the audio of one call, and forgets whom it closes."""

    def __init__(self, unbearable: str) -> None:
        self.unbearable = unbearable
        self.closed: list[str] = []
        self.batches: list[list[str]] = []

    def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
        self.batches.append([chunk.call_id for _, chunk in batch])
        if any(chunk.call_id == self.unbearable for _, chunk in batch):
            raise ValueError("no such sound")
        super().step(batch)

    def close(self, stream: Stream) -> None:
        self.closed.append(stream.call_id)


def given(engine: Engine, calls: Sequence[str], count: int, posted: dict[str, list[Event]]) -> dict[str, Stream]:
    """Calls of so many Chunks, all decided."""
    streams = {name: engine.open(name, INSTRUCTION, Past(), posted.setdefault(name, []).append) for name in calls}
    for index in range(count):
        for name, stream in streams.items():
            engine.hear(stream, chunk(index, name), deadline=1.0)
        while engine.step():
            pass
    return streams


def decided(events: list[Event]) -> list[tuple[int, float]]:
    return [(event.chunk, event.score) for event in events if isinstance(event, Decided)]


def test_a_call_that_the_model_cannot_bear_is_given_up_and_costs_the_others_nothing() -> None:
    model, posted = Choosy("bad"), dict[str, list[Event]]()
    engine = Engine(model, clock=Clock())
    streams = given(engine, ("c1", "bad", "c2"), 10, posted)
    for name in ("c1", "c2"):
        assert decided(posted[name]) == [(index, 1.0) for index in range(10)]
    assert decided(posted["bad"]) == [(index, 0.0) for index in range(10)], "its agent's clock still runs"
    [notice] = [event for event in posted["bad"] if isinstance(event, Notice)]
    assert (notice.kind, notice.at_s) == ("model", round(0.4 * (FAILED_STEPS - 1), 3))
    assert "no such sound" in notice.text
    assert (engine.books.given_up, engine.books.failed) == (1, 10)
    assert model.batches.count(["bad"]) == FAILED_STEPS
    assert sum("bad" in batch and len(batch) > 1 for batch in model.batches) == 1
    closed = threading.Semaphore(0)
    for stream in streams.values():
        engine.close(stream, closed.release)
    engine.step()
    assert all(closed.acquire(timeout=10) for _ in streams)
    assert sorted(model.closed) == ["bad", "c1", "c2"], "each once"


def test_the_only_call_of_a_worker_is_given_up_too_where_silence_can_be_heard() -> None:
    model, posted = Choosy("bad"), dict[str, list[Event]]()
    engine = Engine(model, clock=Clock())
    given(engine, ("bad",), FAILED_STEPS + 2, posted)
    assert engine.books.given_up == 1
    assert ["probe"] in model.batches
    given(engine, ("c1",), 3, posted)
    assert decided(posted["c1"]) == [(index, 1.0) for index in range(3)]


def test_one_side_of_a_call_that_cannot_be_borne_is_enough() -> None:
    class Onesided(EchoModel):
        def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
            if any(chunk.participant_id == "human_agent" for _, chunk in batch):
                raise ValueError("not this one")
            super().step(batch)

    engine, posted = Engine(Onesided(), clock=Clock()), list[Event]()
    stream = engine.open("c1", INSTRUCTION, Past(), posted.append)
    for index in range(FAILED_STEPS):
        engine.hear(stream, chunk(index), deadline=1.0)
        engine.hear(stream, chunk(index, participant="human_agent"), deadline=1.0)
        engine.step()
    assert engine.books.given_up == 1
    assert sum(score == 1.0 for _, score in decided(posted)) == FAILED_STEPS, "the caller was heard so far"


def test_a_call_that_failed_for_a_while_is_heard_with_the_others_again() -> None:
    model, posted = Choosy("c2"), dict[str, list[Event]]()
    engine = Engine(model, clock=Clock())
    streams = given(engine, ("c1", "c2"), FAILED_STEPS - 1, posted)
    model.unbearable = ""
    for index in range(FAILED_STEPS - 1, FAILED_STEPS + 1):
        for name, stream in streams.items():
            engine.hear(stream, chunk(index, name), deadline=1.0)
        engine.step()
    assert model.batches[-3:] == [["c1"], ["c2"], ["c1", "c2"]]
    assert engine.books.given_up == 0


def test_a_model_that_fails_at_silence_too_ends_the_thread_with_several_calls() -> None:
    class Broken(EchoModel):
        def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
            raise RuntimeError("weights on fire")

    engine, posted = Engine(Broken(), clock=Clock()), dict[str, list[Event]]()
    with pytest.raises(ModelDied, match="weights on fire"):
        given(engine, ("c1", "c2", "c3"), FAILED_STEPS, posted)
    assert engine.books.given_up == 0


class Narrow(EchoModel):
    """Has room for two calls, and fails at all of them or at all but silence."""

    def __init__(self, hears: str = "") -> None:
        self.hears = hears
        self.room = threading.Semaphore(2)
        self.left = threading.Semaphore(0)

    def open(self, call_id: str, instruction: Instruction, emit: Emit, past: Past) -> EchoStream:
        if not self.room.acquire(blocking=False):
            raise NoRoom("all slots are taken")
        return super().open(call_id, instruction, emit, past)

    def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
        if any(chunk.call_id != self.hears for _, chunk in batch):
            raise RuntimeError("weights on fire")
        super().step(batch)

    def close(self, stream: Stream) -> None:
        self.room.release()
        self.left.release()


@pytest.mark.parametrize("hears", ["", "probe"])
def test_a_full_worker_gives_one_call_up_before_it_judges_its_model(hears: str) -> None:
    model, posted = Narrow(hears), dict[str, list[Event]]()
    engine = Engine(model, clock=Clock())
    streams = given(engine, ("c1", "c2"), FAILED_STEPS, posted)
    assert engine.books.given_up == 1
    assert model.left.acquire(timeout=10)
    for name, stream in streams.items():
        engine.hear(stream, chunk(FAILED_STEPS, name), deadline=1.0)
    if hears:
        engine.step()
        assert engine.books.given_up == 2
    else:
        with pytest.raises(ModelDied, match="weights on fire"):
            engine.step()
        assert engine.books.given_up == 1


class Chatty(EchoModel):
    def close(self, stream: Stream) -> None:
        partial = Partial(
            call_id=stream.call_id, utterance_id="u", participant_id="caller", start_s=0.0, end_s=1.0, text="bye"
        )
        stream.emit(partial)  # type: ignore[attr-defined]


def test_closing_hears_what_is_queued_first_and_lets_the_model_finish() -> None:
    engine, posted, closed = Engine(Chatty(), clock=Clock()), list[Event](), threading.Event()
    stream = engine.open("c1", INSTRUCTION, Past(), posted.append)
    engine.hear(stream, chunk(0), deadline=1.0)
    engine.hear(stream, chunk(1), deadline=1.0)
    engine.close(stream, closed.set)
    while engine.step():
        pass
    assert closed.wait(10)
    assert [type(e) for e in posted] == [Decided, Decided, Partial]


def test_closing_at_once_forgets_the_queue() -> None:
    engine, posted, closed = Engine(EchoModel(), clock=Clock()), list[Event](), threading.Event()
    stream = engine.open("c1", INSTRUCTION, Past(), posted.append)
    engine.hear(stream, chunk(0), deadline=1.0)
    engine.close(stream, closed.set, at_once=True)
    engine.step()
    assert closed.wait(10)
    assert posted == []


class Writing(EchoModel):
    """Has some words to write after each Chunk, one at a time."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.left = 0
        self.wrote_all = threading.Event()

    def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
        super().step(batch)
        self.order.append("heard")
        self.left = 2

    def respond(self) -> bool:
        if self.left:
            self.order.append("wrote")
            self.left -= 1
        else:
            self.wrote_all.set()
        return self.left > 0


def test_a_step_writes_a_little_after_it_has_heard_and_also_when_nothing_is_heard() -> None:
    model = Writing()
    engine = Engine(model, clock=Clock())
    stream = engine.open("c1", INSTRUCTION, Past(), lambda event: None)
    engine.hear(stream, chunk(0), deadline=1.0)
    engine.hear(stream, chunk(1), deadline=1.0)
    while engine.step():
        pass
    assert model.order == ["heard", "wrote", "heard", "wrote", "wrote"]


def test_the_thread_writes_until_there_is_nothing_more() -> None:
    model = Writing()
    model.left = 50
    engine = Engine(model)
    thread = threading.Thread(target=engine.run)
    thread.start()
    try:
        assert model.wrote_all.wait(10)
        assert model.order == ["wrote"] * 50
    finally:
        engine.stop()
        thread.join(10)


class Speechless(EchoModel):
    def respond(self) -> bool:
        raise RuntimeError("no words")


def test_a_model_that_fails_to_write_still_hears(caplog: pytest.LogCaptureFixture) -> None:
    engine, posted = Engine(Speechless(), clock=Clock()), list[Event]()
    stream = engine.open("c1", INSTRUCTION, Past(), posted.append)
    engine.hear(stream, chunk(0), deadline=1.0)
    with caplog.at_level(logging.ERROR):
        assert [engine.step(), engine.step()] == [1, 0]
    assert [type(e) for e in posted] == [Decided]
    assert "no words" in caplog.text


class Mute(EchoModel):
    def respond(self) -> bool:
        raise RuntimeError("CUDA error: device-side assert triggered")


def test_a_gpu_that_is_lost_while_writing_ends_the_thread() -> None:
    with pytest.raises(ModelDied, match="device-side assert"):
        Engine(Mute(), clock=Clock()).step()


def test_the_thread_steps_and_stops() -> None:
    engine, decided = Engine(EchoModel()), threading.Semaphore(0)
    stream = engine.open("c1", INSTRUCTION, Past(), lambda event: decided.release())
    thread = threading.Thread(target=engine.run)
    thread.start()
    try:
        for index in range(5):
            engine.hear(stream, chunk(index), deadline=1e12)
        for _ in range(5):
            assert decided.acquire(timeout=10)
    finally:
        engine.stop()
        thread.join(10)
    assert not thread.is_alive()
