"""A call that this worker holds: its lease, how far it has been heard, and what it says.

A worker that was frozen must not speak for a call that another has taken over meanwhile. So what is said for a call
goes to the bus while its lease was renewed lately, and otherwise waits here until the next renewal tells.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from calls.audio import CHUNK_S
from calls.bus import FROM_START, Lease
from calls.events import Event, Notice, Speech, call_stream, speech_stream
from calls.model import Instruction
from model_worker.stream import Stream

log = logging.getLogger(__name__)

UNCERTAIN_EVENTS = 5_000  # kept while we do not know whether the call is still ours


@dataclass(slots=True)
class Losses:
    """What this worker has lost of all its calls, for the heartbeat."""

    missing_chunks: int = 0
    dropped: int = 0  # events that waited for a lease to be renewed, and were too many


@dataclass(slots=True)
class HeldCall:
    """A call whose lease this worker holds. `send(stream, event)` posts to the bus."""

    lease: Lease
    lapse_s: float
    send: Callable[[str, Event], None]
    losses: Losses
    stream: Stream | None = None
    opening: asyncio.Future[Stream] | None = None  # what gives the stream, in a thread that cannot be cancelled
    audio_position: str = FROM_START
    next_chunk: dict[str, int] = field(default_factory=dict)  # participant -> the index that must come next
    answered: set[str] = field(default_factory=set)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False  # another worker has it, or is to have it: nothing may be said for it any more
    leaving: bool = False  # its Stream was handed back to the engine, to be closed
    quiet_s: float = 0.0  # since a Chunk came, as far as this worker was awake and the bus there
    renewed_at: float = field(default_factory=time.monotonic)  # the last renewal that is known to have worked
    _uncertain: deque[Event] = field(default_factory=deque)
    _dropped: int = 0  # of those, the oldest: there were more than UNCERTAIN_EVENTS

    @property
    def id(self) -> str:
        return self.lease.assignment.call_id

    @property
    def instruction(self) -> Instruction:
        return self.lease.assignment.instruction

    def open(self, opening: asyncio.Future[Stream]) -> None:
        """The Stream is on its way. It is this call's when it comes, whoever still waits for it then."""
        self.opening = opening
        opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Future[Stream]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            self.stream = opening.result()

    def lose(self) -> None:
        """Give the call up at once."""
        self.lost = True
        self.ended.set()

    def renewed(self) -> None:
        """The lease is ours: say what has waited for that."""
        self.renewed_at = time.monotonic()
        while self._uncertain:
            self._send(self._uncertain.popleft())
        if self._dropped:
            text = f"{self._dropped} events of the model are lost: for too long no lease of the call could be renewed"
            log.error("%s", text, extra={"call_id": self.id})
            at_s = max(self.next_chunk.values(), default=0) * CHUNK_S
            self._send(Notice(call_id=self.id, kind="hole", text=text, at_s=at_s))
            self._dropped = 0

    def post(self, event: Event) -> None:
        """Post now, or when the lease is known to be ours still."""
        if time.monotonic() - self.renewed_at <= self.lapse_s and not self._uncertain:
            self._send(event)
            return
        self._uncertain.append(event)
        if len(self._uncertain) > UNCERTAIN_EVENTS:
            self._uncertain.popleft()
            self._dropped += 1
            self.losses.dropped += 1

    def _send(self, event: Event) -> None:
        self.send(speech_stream(self.id) if isinstance(event, Speech) else call_stream(self.id), event)

    def miss(self, participant_id: str, expected: int, found: int) -> None:
        """Count and say a gap: Chunk `found` came where `expected` should have."""
        self.losses.missing_chunks += found - expected
        start_s, end_s = expected * CHUNK_S, found * CHUNK_S
        text = f"no audio of {participant_id} from {start_s:.1f} s to {end_s:.1f} s: not in the transcript"
        log.warning("%s", text, extra={"call_id": self.id})
        self.post(Notice(call_id=self.id, kind="hole", text=text, at_s=start_s))
