"""The engine: one thread that steps one model for all the calls of this worker.

    worker (event loop)                         engine (this thread)
    ------------------                          --------------------------------------------------------------
    open(call)  ------------------------------> the model's Stream for the call
    hear(stream, chunk, deadline)  -----------> scheduler: one queue a participant
                                                step: admit -> perceive -> decide -> respond
    post(event)  <----------------------------- Decided, Partial, Uttered, ResponseOpened / Delta / Closed
    close(stream)  ---------------------------> the last Chunks are heard, then the Stream is gone

The model (model_worker/stream.py) perceives and decides; the engine decides *when*, and keeps the books: a Decision
that came after its deadline is marked late and counted, a Chunk that the model failed to decide is decided `silent`
and logged. A model that fails at everything ends the thread, and with it the worker: its calls go to another, which
hears again what was not decided. Whatever a model says beside its Decisions goes out at once, from whichever thread it
is said. What the Audio Interaction Model does in a step is the second file to read: interaction/serving.py.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from calls.audio import CHUNK_S, Chunk
from calls.errors import OffhookError
from calls.events import Decided, Event, Notice
from calls.model import Instruction
from model_worker.pressure import TIGHT_S, Pressure
from model_worker.probe import hears_silence
from model_worker.scheduler import Scheduler, Ticket
from model_worker.stream import Emit, Model, Past, Stream, silent

log = logging.getLogger(__name__)

IDLE_S = 0.5  # the longest the thread sleeps when nothing wakes it
CATCH_UP_S = 15.0  # a call that was taken over may be behind for so long: it is the old worker's loss, not overload
FAILED_STEPS = 5  # so many failed steps in a row: the call is given up, or the model is dead

Key = tuple[str, str, int]  # call, participant, chunk


class ModelDied(OffhookError):
    """The model decides nothing any more, or its GPU is gone."""


@dataclass(slots=True)
class Books:
    """What the engine counts, for the heartbeat and the benchmarks."""

    decided: int = 0
    missed: int = 0  # late Decisions: posted after their deadline
    failed: int = 0  # Chunks that the model did not decide: it raised or refused them, or their call was given up
    given_up: int = 0  # calls about which the model is not asked any more
    step_ms: deque[float] = field(default_factory=lambda: deque(maxlen=1000))

    def quantile(self, q: float) -> float:
        """The q-quantile of the last 1,000 steps, in milliseconds."""
        steps = sorted(self.step_ms)
        return steps[min(len(steps) - 1, int(q * len(steps)))] if steps else 0.0


@dataclass(slots=True)
class _Line:
    """Where a call's events go, and the last Chunk of each participant that an earlier worker decided."""

    stream: Stream
    post: Emit
    decided: dict[str, int]
    excused_until: float  # by the engine's clock: until then, or until it has caught up, it is no sign of overload
    failed: dict[str, int] = field(default_factory=dict)  # participants heard alone -> steps that raised, in a row
    given_up: bool = False


class Engine:
    """Steps `model` until stopped. `open`, `hear`, `close` and `stop` may be called from any thread."""

    def __init__(
        self, model: Model, scheduler: Scheduler | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.model = model
        self.books = Books()
        self._scheduler = scheduler or Scheduler()
        self._clock = clock  # the clock of the Chunks' deadlines
        self._wake = threading.Condition()  # guards the scheduler, _leaving and _stopping
        self._leaving: dict[str, tuple[Stream, Callable[[], None]]] = {}
        self._lines: dict[str, _Line] = {}
        self._failed_steps = 0  # in a row
        self._pressure = Pressure()
        self._step_began: float | None = None  # by `clock`; None between steps
        self._decided: dict[Key, Decided] = {}  # of the step under way: Decisions are emitted in the step only
        self._stopping = False

    def step(self) -> int:
        """Admit, let the model hear and decide, post what it decided: once for every participant that has a Chunk.
        Respond: a little more of what is being written. Returns how much was done: 0 means that there is nothing to do
        now."""
        batch = self._admit()
        if batch:
            self._step_began = self._clock()
            took_ms = self._perceive(batch)
            self._decide(batch, took_ms)
            self._step_began = None
        writing = self._respond()
        self._retire()
        return len(batch) + writing

    # --- the four parts of a step ---------------------------------------------------------------------------

    def _admit(self) -> Sequence[Ticket]:
        """The Chunks whose turn it is: at most one a participant, earliest deadline first."""
        with self._wake:
            return self._scheduler.take()

    def _perceive(self, batch: Sequence[Ticket]) -> float:
        """Let the model hear and decide the batch. Its Decisions collect in `_decided`; all else is already on its
        way. Returns how long that took, in milliseconds. Raises ModelDied."""
        began = time.perf_counter()
        heard = [(line, ticket) for ticket in batch if (line := self._line(ticket))]
        together = [(line, ticket) for line, ticket in heard if ticket.chunk.participant_id not in line.failed]
        alone = [(line, ticket) for line, ticket in heard if ticket.chunk.participant_id in line.failed]
        failure = self._hear([ticket for _, ticket in together])
        if failure is not None:
            for line, ticket in together:
                line.failed[ticket.chunk.participant_id] = 0
            if len(together) == 1:
                self._note_alone(*together[0], failure)
            else:
                alone += together
        for line, ticket in alone:
            error = None if _key(ticket.chunk) in self._decided else self._hear([ticket])
            self._note_alone(line, ticket, error)
            failure = error or failure
        if failure is not None:
            self._judge(heard, failure)
        elif heard:
            self._failed_steps = 0
        return (time.perf_counter() - began) * 1000

    def _line(self, ticket: Ticket) -> _Line | None:
        """None: the model is not to hear this Chunk. Its call is closed, or was given up."""
        line = self._lines.get(ticket.stream.call_id)
        return line if line is not None and line.stream is ticket.stream and not line.given_up else None

    def _hear(self, tickets: Sequence[Ticket]) -> Exception | None:
        """One step of the model; returns what it raised. Raises ModelDied when the GPU is gone."""
        try:
            if tickets:
                self.model.step([(ticket.stream, ticket.chunk) for ticket in tickets])
        except Exception as error:
            # The boundary between the model and the calls: a fault must not end the calls of this worker.
            log.exception("the model failed on calls %s", sorted({ticket.stream.call_id for ticket in tickets}))
            if _lost_gpu(error):
                raise ModelDied(f"the GPU is lost: {error}") from error
            return error
        return None

    def _note_alone(self, line: _Line, ticket: Ticket, error: Exception | None) -> None:
        """A participant was heard alone. It is heard with the others again when it was decided, or was only to be heard
        again; what a model heard in the step that failed it may refuse now, and that tells nothing."""
        participant_id = ticket.chunk.participant_id
        again = error is None and ticket.chunk.index <= line.decided.get(participant_id, -1)
        if again or _key(ticket.chunk) in self._decided:
            del line.failed[participant_id]
        elif error is not None:
            line.failed[participant_id] += 1

    def _judge(self, heard: Sequence[tuple[_Line, Ticket]], failure: Exception) -> None:
        """Something failed in this step: is it the model, or a call? Raises ModelDied."""
        lives = any(ticket.chunk.participant_id not in line.failed for line, ticket in heard)
        self._failed_steps = 0 if lives else self._failed_steps + 1
        long = [(line, t.chunk) for line, t in heard if line.failed.get(t.chunk.participant_id, 0) >= FAILED_STEPS]
        if self._failed_steps >= FAILED_STEPS:
            hears = hears_silence(self.model)
            if hears is False:
                raise ModelDied(f"the model has failed {self._failed_steps} times in a row: {failure}") from failure
            if hears is None:
                long = long[:1]  # one call makes room; the next failure tells more
        for line, chunk in long:
            if not line.given_up:
                self._give_up(line, chunk, failure)

    def _give_up(self, line: _Line, chunk: Chunk, failure: Exception) -> None:
        """The model is asked no more about a call. The call stays ours until it ends: another worker would fail too."""
        call_id, line.given_up = chunk.call_id, True
        self.books.given_up += 1
        text = f"the model failed on this call {FAILED_STEPS} times in a row and listens to it no longer: {failure}"
        log.error("%s", text, extra={"call_id": call_id})
        line.post(Notice(call_id=call_id, kind="model", text=text, at_s=round(chunk.index * CHUNK_S, 3)))
        threading.Thread(target=self._let_go, args=(line.stream,), name=f"give up {call_id}").start()

    def _decide(self, batch: Sequence[Ticket], took_ms: float) -> None:
        """Post what the model decided: one Decided for each Chunk of the batch, none for those that an earlier worker
        has decided."""
        now = self._clock()
        judged = tight = 0
        share_ms = round(took_ms / len(batch), 3)
        for ticket in batch:
            chunk, line = ticket.chunk, self._lines.get(ticket.stream.call_id)
            decision = self._decided.pop(_key(chunk), None)
            if line is not None and chunk.index > line.decided.get(chunk.participant_id, -1):
                late = now > ticket.deadline
                if decision is None:
                    decision = silent(chunk, score=0.0)
                    self.books.failed += 1
                self.books.decided += 1
                self.books.missed += late
                if _counts(line, ticket.deadline, now):
                    judged += 1
                    tight += now > ticket.deadline - TIGHT_S
                line.post(msgspec.structs.replace(decision, late=late, compute_ms=share_ms))
        self.books.step_ms.append(took_ms)
        if judged:
            self._pressure.note(now, judged, tight)

    def _respond(self) -> bool:
        """Let the model write on. False: it has nothing to write. Raises ModelDied."""
        try:
            return self.model.respond()
        except Exception as error:
            if _lost_gpu(error):
                raise ModelDied(f"the model cannot write: {error}") from error
            log.exception("the model failed to write")  # the same boundary
            return False

    # --- calls come and go ------------------------------------------------------------------------------------

    def open(self, call_id: str, instruction: Instruction, past: Past, post: Emit) -> Stream:
        """Open the model's Stream (this may take a while: call it in a thread). `post` takes all that is emitted."""

        def emit(event: Event) -> None:
            if isinstance(event, Decided):
                self._decided[event.call_id, event.participant_id, event.chunk] = event
            else:
                post(event)

        stream = self.model.open(call_id, instruction, emit, past)
        excused_until = self._clock() + CATCH_UP_S if past.decided else 0.0
        self._lines[call_id] = _Line(stream, post, dict(past.decided), excused_until)
        return stream

    def hear(self, stream: Stream, chunk: Chunk, deadline: float) -> bool:
        """Queue a Chunk for its step. False: this participant's queue is full, bring the Chunk again later."""
        with self._wake:
            taken = self._scheduler.put(Ticket(stream, chunk, deadline))
            self._wake.notify()
        return taken

    def backlog(self, call_id: str) -> int:
        """Chunks of a call that wait for their step."""
        with self._wake:
            return self._scheduler.waiting(call_id)

    def overloaded(self) -> bool:
        """Whether one more call would be one too many now: Decisions come too near their deadline (pressure.py), or the
        step under way is longer than a Chunk. Any thread."""
        now, began = self._clock(), self._step_began
        return self._pressure.overloaded(now) or (began is not None and now - began > CHUNK_S)

    def close(self, stream: Stream, then: Callable[[], None], *, at_once: bool = False) -> None:
        """Close the Stream after its queued Chunks were heard (`at_once`: forget them), then call `then`."""
        with self._wake:
            if at_once:
                self._scheduler.forget(stream.call_id)
            self._leaving[stream.call_id] = (stream, then)
            self._wake.notify()

    def _retire(self) -> None:
        """Close the Streams that have heard their last Chunk. A model may take seconds to write the last words of a
        call; the other calls do not wait for that."""
        with self._wake:
            ready = [call_id for call_id in self._leaving if not self._scheduler.waiting(call_id)]
            leaving = [self._leaving.pop(call_id) for call_id in ready]
        for stream, then in leaving:
            threading.Thread(target=self._close, args=(stream, then), name=f"close {stream.call_id}").start()

    def _close(self, stream: Stream, then: Callable[[], None]) -> None:
        line = self._lines.get(stream.call_id)
        if line is None or line.stream is not stream:  # the call was opened again meanwhile
            self._let_go(stream)
        else:
            if not line.given_up:
                self._let_go(stream)
            del self._lines[stream.call_id]
        then()

    def _let_go(self, stream: Stream) -> None:
        try:
            self.model.close(stream)
        except Exception:
            # The call's boundary again: it is over either way.
            log.exception("the model failed to close the call", extra={"call_id": stream.call_id})

    # --- the thread -------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Step as long as there is something to do, sleep while there is not, until `stop`. Raises ModelDied."""
        while not self._stopping:
            if not self.step():
                with self._wake:
                    if not self._stopping and not len(self._scheduler) and not self._leaving:
                        self._wake.wait(IDLE_S)

    def stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify_all()


def _lost_gpu(error: Exception) -> bool:
    """After such an error every further one of this process's uses of the GPU fails too. Known by its text, which is
    the same in every version of torch. That it had too little memory ("CUDA out of memory") passes and reads otherwise.
    """
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)


def _counts(line: _Line, deadline: float, now: float) -> bool:
    """Whether a Decision tells how busy we are: not while the call catches up with what it missed between workers."""
    if now < line.excused_until and now > deadline - TIGHT_S:
        return False
    line.excused_until = 0.0
    return True


def _key(chunk: Chunk) -> Key:
    return chunk.call_id, chunk.participant_id, chunk.index
