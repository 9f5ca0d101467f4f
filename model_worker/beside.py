"""A second model that hears the calls beside the first, on a thread of its own, and may never cost them anything.

It takes what the first leaves of the machine: its thread is niced, nobody waits for it, and where it is too far behind
with a call it misses Chunks, which are counted. A failure is logged once and counted; after FAILURES in a row it is
given up, which the calls' reviewers are told, and the calls go on without it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from dataclasses import dataclass, field

from calls.audio import CHUNK_S, Chunk
from calls.events import Notice
from calls.log import for_call
from calls.model import Instruction
from model_worker.scheduler import BATCH
from model_worker.stream import Emit, Model, Past, Stream

log = logging.getLogger(__name__)

NICE = 10  # of its thread: more than those that write the calls' words have
WAITING = 10  # Chunks of a call (4 s) that may wait to be heard
BEHIND = 5  # Chunks of any call that wait: no further call is listened to
FAILURES = 5  # in a row


@dataclass(eq=False, slots=True)
class Listening:
    """One call as the second model hears it."""

    stream: Stream
    emit: Emit
    waiting: int = 0  # Chunks
    at_s: float = 0.0  # heard up to here
    lost: int = 0  # Chunks that were not heard
    last: dict[str, int] = field(default_factory=dict)  # participant -> the last Chunk that came


class Beside:
    """Any thread may call anything. `failed`: how often the model raised."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.failed = 0
        self._in_a_row = 0
        self._calls: set[Listening] = set()
        self._queue: deque[tuple[Listening, Chunk | None]] = deque()  # None: the call is over
        self._wake = threading.Condition()  # guards all that stands above
        self._working = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="beside", daemon=True)
        self._thread.start()

    @property
    def given_up(self) -> bool:
        return self._in_a_row >= FAILURES

    def open(self, call_id: str, instruction: Instruction, emit: Emit, past: Past) -> Listening | None:
        """Listen to a call. None: that is not possible now, and the call's reviewer is told."""
        if self.given_up or any(call.waiting >= BEHIND for call in list(self._calls)):
            self._tell(call_id, emit, 0.0)
            return None
        try:
            call = Listening(self.model.open(call_id, instruction, emit, past), emit)
        except Exception:
            # The boundary between the second model and the calls: this one goes on without it.
            log.exception("%s does not hear this call", self.model.name)
            self._tell(call_id, emit, 0.0)
            return None
        with self._wake:
            self._calls.add(call)
        return call

    def hear(self, call: Listening, chunk: Chunk) -> None:
        """Its turn comes when there is time for it. One that came before, and on which the first model failed, is not
        heard again."""
        with self._wake:
            if chunk.index <= call.last.get(chunk.participant_id, -1):
                return
            call.last[chunk.participant_id] = chunk.index
            if call.waiting >= WAITING or self.given_up:
                call.lost += 1
                return
            call.waiting += 1
            self._queue.append((call, chunk))
            self._wake.notify_all()

    def close(self, call: Listening) -> None:
        """No more of this call comes."""
        with self._wake:
            self._queue.append((call, None))
            self._wake.notify_all()

    def wait(self, seconds: float) -> bool:
        """Until all is heard, and what follows from it is written. False: that took longer."""
        with self._wake:
            return self._wake.wait_for(lambda: not self._queue and not self._working, seconds)

    def shut_down(self) -> None:
        """End the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join(5)

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)  # on Linux, of this thread alone
        while True:
            with self._wake:
                while not self._queue and not self._working and not self._closing:
                    self._wake.wait()
                if self._closing:
                    return
                batch, over = self._take()
                self._working = True
            writing = self._work(batch, over)
            with self._wake:
                for call, _ in batch:
                    call.waiting -= 1
                self._working = writing
                self._wake.notify_all()

    def _take(self) -> tuple[list[tuple[Listening, Chunk]], Listening | None]:
        """The next Chunk of each participant; or a call that is over, behind its last Chunk."""
        batch: dict[tuple[Listening, str], tuple[Listening, Chunk]] = {}
        while self._queue and len(batch) < BATCH:
            call, chunk = self._queue[0]
            if chunk is None and not batch:
                self._queue.popleft()
                return [], call
            if chunk is None or (call, chunk.participant_id) in batch:
                break
            self._queue.popleft()
            batch[call, chunk.participant_id] = (call, chunk)
        return list(batch.values()), None

    def _work(self, batch: list[tuple[Listening, Chunk]], over: Listening | None) -> bool:
        """One piece of work. True: there is more to write."""
        try:
            if over is not None:
                self._calls.discard(over)
                self._report(over)
                self.model.close(over.stream)
                return True  # as before: other calls may have something to be written
            if batch and not self.given_up:
                self.model.step([(call.stream, chunk) for call, chunk in batch])
                self._in_a_row = 0
            writing = not self.given_up and self.model.respond()
        except Exception:
            # The same boundary.
            self._fail()
            return False
        for call, chunk in batch:
            call.at_s = round((chunk.index + 1) * CHUNK_S, 3)
        return writing

    def _fail(self) -> None:
        self.failed += 1
        self._in_a_row += 1
        if self.failed == 1:
            log.exception("%s failed; further failures are only counted", self.model.name)
        if self._in_a_row == FAILURES:
            log.error("%s has failed %d times in a row and is given up", self.model.name, FAILURES)
            for call in list(self._calls):
                self._tell(call.stream.call_id, call.emit, call.at_s)

    def _tell(self, call_id: str, emit: Emit, at_s: float) -> None:
        emit(
            Notice(
                call_id=call_id, kind="sounds", text="background sounds are not listened for on this call", at_s=at_s
            )
        )

    def _report(self, call: Listening) -> None:
        if call.lost:
            with for_call(call.stream.call_id):
                log.warning("%s was too slow to hear %.1f s of the call", self.model.name, call.lost * CHUNK_S)
