"""Which Chunks are stepped next. Plain data and no clock of its own: deadlines are numbers that the caller gives.

Every participant of every call has a queue. A batch takes at most the oldest Chunk of each queue, the one with the
earliest deadline first: so Chunks of one participant are always heard in order, and a call that is behind catches up
without starving the others. Nothing is ever thrown away here. A full queue refuses (`put` is False), and the worker
stops reading that call's audio from the bus until there is room again.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calls.audio import CHUNK_S, Chunk

if TYPE_CHECKING:
    from model_worker.stream import Stream

CAPACITY = 400  # Chunks a participant: more than the bus keeps, so that a takeover can queue all of it
BATCH = 32


@dataclass(frozen=True, slots=True)
class Ticket:
    """A Chunk that waits for its step. `deadline` is on the clock of whoever made the ticket."""

    stream: Stream
    chunk: Chunk
    deadline: float


def deadline_of(sent_at: float, now: float) -> float:
    """A Chunk must be decided before the next one of its participant is due: 0.4 s after it was sent.

    `sent_at` 0 means unknown. A sender whose clock runs ahead of ours cannot buy more time than one Chunk.
    """
    return (min(sent_at, now) if sent_at > 0 else now) + CHUNK_S


class Scheduler:
    """One queue a participant, earliest deadline first."""

    def __init__(self, capacity: int = CAPACITY, batch: int = BATCH) -> None:
        self._capacity = capacity
        self._batch = batch
        self._queues: dict[tuple[str, str], deque[Ticket]] = {}

    def put(self, ticket: Ticket) -> bool:
        """Queue a Chunk; False, and nothing is changed, when its participant's queue is full."""
        key = (ticket.stream.call_id, ticket.chunk.participant_id)
        queue = self._queues.setdefault(key, deque())
        if len(queue) >= self._capacity:
            return False
        queue.append(ticket)
        return True

    def take(self) -> list[Ticket]:
        """The next batch: at most one Chunk a participant, earliest deadline first. Empty when nothing waits."""
        heads = heapq.nsmallest(self._batch, self._queues.items(), key=lambda item: item[1][0].deadline)
        batch = [queue.popleft() for _, queue in heads]
        for key, queue in heads:
            if not queue:
                del self._queues[key]
        return batch

    def waiting(self, call_id: str) -> int:
        """How many Chunks of a call wait."""
        return sum(len(queue) for (call, _), queue in self._queues.items() if call == call_id)

    def forget(self, call_id: str) -> None:
        """The call is not ours any more: its Chunks need no step."""
        for key in [key for key in self._queues if key[0] == call_id]:
            del self._queues[key]

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))
