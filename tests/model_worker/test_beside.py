"""A second model on a thread of its own: what it may not cost the first."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import pytest

from calls.audio import CHUNK_BYTES, Chunk
from calls.events import Event, Notice
from calls.model import Instruction, Mode, Participant, Role
from model_worker.beside import FAILURES, WAITING, Beside, Listening
from model_worker.echo import EchoModel, EchoStream
from model_worker.stream import Emit, Past, Stream

ASSIST = Instruction(Mode.ASSIST, "", (Participant("caller", Role.CALLER),))


class Second(EchoModel):
    """Keeps what it hears. `gate` holds it up; it fails at Chunks in `bad`, and to open calls in `refused`."""

    def __init__(self, bad: Sequence[int] = (), refused: Sequence[str] = ()) -> None:
        self.bad = set(bad)
        self.refused = set(refused)
        self.steps: list[list[tuple[str, int]]] = []
        self.written: list[bool] = []
        self.closed: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def open(self, call_id: str, instruction: Instruction, emit: Emit, past: Past) -> EchoStream:
        if call_id in self.refused:
            raise RuntimeError("no room")
        return super().open(call_id, instruction, emit, past)

    def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
        self.entered.set()
        assert self.gate.wait(30)
        self.steps.append([(stream.call_id, chunk.index) for stream, chunk in batch])
        if self.bad & {chunk.index for _, chunk in batch}:
            raise RuntimeError("broken")
        self.written = [True, True, False]

    def respond(self) -> bool:
        return bool(self.written) and self.written.pop(0)

    def close(self, stream: Stream) -> None:
        self.closed.append(stream.call_id)


def chunk(call_id: str, index: int) -> Chunk:
    return Chunk(call_id, "caller", index, bytes(CHUNK_BYTES))


def opened(beside: Beside, call_id: str, events: list[Event]) -> Listening:
    listening = beside.open(call_id, ASSIST, events.append, Past())
    assert listening is not None
    return listening


def test_chunks_are_heard_in_order_calls_together_and_all_is_written() -> None:
    second, events = Second(), list[Event]()
    beside = Beside(second)
    one, two = opened(beside, "one", events), opened(beside, "two", events)
    second.gate.clear()
    for index in range(3):
        beside.hear(one, chunk("one", index))
        assert index or second.entered.wait(30)  # the first Chunk is alone: nobody waits for company
        beside.hear(two, chunk("two", index))
    beside.hear(two, chunk("two", 2))  # once more, because the first model failed on it
    second.gate.set()
    assert beside.wait(30)
    assert [pair for step in second.steps for pair in step if pair[0] == "one"] == [("one", i) for i in range(3)]
    assert [pair for step in second.steps for pair in step if pair[0] == "two"] == [("two", i) for i in range(3)]
    assert [("two", 0), ("one", 1)] in second.steps
    assert second.written == []
    beside.close(one)
    assert beside.wait(30)
    assert (second.closed, events, beside.failed) == (["one"], [], 0)
    beside.shut_down()


def test_where_it_is_too_slow_it_misses_chunks_and_takes_no_further_call(caplog: pytest.LogCaptureFixture) -> None:
    second, events = Second(), list[Event]()
    beside = Beside(second)
    listening = opened(beside, "one", events)
    second.gate.clear()
    beside.hear(listening, chunk("one", 0))
    assert second.entered.wait(30)
    for index in range(1, WAITING + 5):
        beside.hear(listening, chunk("one", index))
    assert beside.open("two", ASSIST, events.append, Past()) is None
    assert [(event.call_id, event.kind) for event in events if isinstance(event, Notice)] == [("two", "sounds")]
    second.gate.set()
    assert beside.wait(30)
    assert [index for step in second.steps for _, index in step] == list(range(WAITING))
    assert listening.lost == 5
    beside.close(listening)
    assert beside.wait(30)
    assert "was too slow to hear 2.0 s" in caplog.text
    assert beside.open("two", ASSIST, events.append, Past()) is not None
    beside.shut_down()


def test_a_failure_is_logged_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    second, events = Second(bad=[1, 3]), list[Event]()
    beside = Beside(second)
    listening = opened(beside, "one", events)
    with caplog.at_level(logging.ERROR):
        for index in range(5):
            beside.hear(listening, chunk("one", index))
            assert beside.wait(30)
    assert (beside.failed, beside.given_up, events) == (2, False, [])
    assert len(caplog.records) == 1
    assert [index for step in second.steps for _, index in step] == list(range(5))
    beside.shut_down()


def test_what_fails_all_the_time_is_given_up_and_reviewers_are_told() -> None:
    second, events = Second(bad=range(100)), list[Event]()
    beside = Beside(second)
    listening = opened(beside, "one", events)
    for index in range(FAILURES + 3):
        beside.hear(listening, chunk("one", index))
        assert beside.wait(30)
    assert beside.given_up
    assert len(second.steps) == beside.failed == FAILURES
    assert beside.open("two", ASSIST, events.append, Past()) is None
    assert [(event.call_id, event.kind) for event in events if isinstance(event, Notice)] == [
        ("one", "sounds"),
        ("two", "sounds"),
    ]
    beside.close(listening)
    assert beside.wait(30)
    beside.shut_down()


def test_a_call_that_cannot_be_opened_goes_on_without_it() -> None:
    second, events = Second(refused=["one"]), list[Event]()
    beside = Beside(second)
    assert beside.open("one", ASSIST, events.append, Past()) is None
    assert [type(event) for event in events] == [Notice]
    beside.shut_down()
