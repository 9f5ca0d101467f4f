"""The scheduler as a state machine: order is kept, nothing is lost, the earliest deadline goes first."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from calls.audio import CHUNK_BYTES, CHUNK_S, Chunk
from model_worker.scheduler import Scheduler, Ticket, deadline_of

PCM = bytes(CHUNK_BYTES)


@dataclass
class Line:
    call_id: str


def ticket(call: str, participant: str, index: int, deadline: float) -> Ticket:
    return Ticket(Line(call), Chunk(call, participant, index, PCM), deadline)


arrivals = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["caller", "human_agent"]), st.floats(0, 100), st.booleans()),
    max_size=120,
)


@given(arrivals, st.integers(1, 5))
def test_every_chunk_comes_out_once_and_in_order(rows: list[tuple[str, str, float, bool]], batch: int) -> None:
    scheduler = Scheduler(capacity=1000, batch=batch)
    put: list[Ticket] = []
    out: list[Ticket] = []
    for index, (call, participant, deadline, step) in enumerate(rows):
        put.append(ticket(call, participant, index, deadline))
        assert scheduler.put(put[-1])
        if step:
            out += scheduler.take()
    while taken := scheduler.take():
        participants = [(t.stream.call_id, t.chunk.participant_id) for t in taken]
        assert len(taken) <= batch
        assert len(set(participants)) == len(participants), "one Chunk a participant in a batch"
        assert [t.deadline for t in taken] == sorted(t.deadline for t in taken)
        out += taken
    assert len(scheduler) == 0
    assert sorted(map(id, out)) == sorted(map(id, put))
    for key in {(t.stream.call_id, t.chunk.participant_id) for t in put}:
        indices = [t.chunk.index for t in out if (t.stream.call_id, t.chunk.participant_id) == key]
        assert indices == sorted(indices)


def test_a_full_queue_refuses_and_keeps_what_it_has() -> None:
    scheduler = Scheduler(capacity=2)
    assert scheduler.put(ticket("a", "caller", 0, 1.0))
    assert scheduler.put(ticket("a", "caller", 1, 2.0))
    assert not scheduler.put(ticket("a", "caller", 2, 3.0))
    assert scheduler.put(ticket("b", "caller", 0, 3.0)), "another participant has a queue of its own"
    assert [t.chunk.index for t in scheduler.take()] == [0, 0]
    assert scheduler.put(ticket("a", "caller", 2, 3.0))


def test_a_small_batch_takes_the_most_urgent() -> None:
    scheduler = Scheduler(batch=1)
    scheduler.put(ticket("late", "caller", 0, 9.0))
    scheduler.put(ticket("soon", "caller", 0, 1.0))
    assert [t.stream.call_id for t in scheduler.take()] == ["soon"]


def test_forgetting_a_call_leaves_the_others() -> None:
    scheduler = Scheduler()
    scheduler.put(ticket("a", "caller", 0, 1.0))
    scheduler.put(ticket("b", "caller", 0, 1.0))
    scheduler.forget("a")
    assert scheduler.waiting("a") == 0
    assert [t.stream.call_id for t in scheduler.take()] == ["b"]


def test_deadlines() -> None:
    assert deadline_of(sent_at=100.0, now=100.3) == 100.0 + CHUNK_S
    assert deadline_of(sent_at=0.0, now=50.0) == 50.0 + CHUNK_S, "unknown: from now"
    assert deadline_of(sent_at=200.0, now=100.0) == 100.0 + CHUNK_S, "a clock that runs ahead buys no time"
