"""The threads that write: partial transcripts now, final ones when there is time.

A step of the model never waits long for words. It hands jobs to the Transcriber, whose thread takes the most urgent
ones first and decodes several lines in one batch when several wait; a side of a call has at most one job at a time, so
the more calls speak, the rarer each gets a new partial, and nothing piles up. The Refiner does the same for finished
utterances with the better recogniser, at a lower priority, and skips utterances when it is behind: the job after the
call writes them anyway.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, Protocol, TypeVar

from calls.audio import SAMPLE_RATE
from calls.log import for_call
from model_worker.cascade.ear import Pcm

log = logging.getLogger(__name__)

TOGETHER = 4  # lines in one batch
BUSY_S = 0.3
HELPER_NICE = 5
REFINER_BACKLOG_S = 20.0  # of speech


class Urgency(IntEnum):
    TURN = 0  # a caller may be waiting for an answer
    ENDED = 1  # an utterance is over
    RUNNING = 2  # somebody speaks


class Text(Protocol):
    """What a recogniser returns: cascade/partials.py, and a part of cascade/finals.py."""

    @property
    def text(self) -> str: ...
    @property
    def confidence(self) -> float: ...


class Recogniser(Protocol):
    def transcribe(self, pcms: Sequence[Pcm]) -> Sequence[Text]: ...


@dataclass(order=True, slots=True)
class Job:
    """Some audio to be written. `result` is set when `done` is."""

    urgency: Urgency
    serial: int
    pcm: Pcm = field(compare=False)
    asked_at: float = field(compare=False)  # monotonic
    call_id: str = field(compare=False)
    then: Callable[[Text], None] | None = field(compare=False, default=None)
    done: threading.Event = field(compare=False, default_factory=threading.Event)
    result: Text | None = field(compare=False, default=None)


class Transcriber:
    """The threads around the partial recogniser. Those after the first are niced: they help when many calls speak, and
    must not take a core from the media then."""

    def __init__(self, recogniser: Recogniser, threads: int = 1) -> None:
        self._recogniser = recogniser
        self._jobs: list[Job] = []
        self._serial = itertools.count()
        self._wake = threading.Condition()
        self._closing = False
        self._delays: deque[float] = deque(maxlen=8)
        self._threads = [
            threading.Thread(target=self._run, args=(HELPER_NICE if helper else 0,), name="transcriber", daemon=True)
            for helper in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call_id: str, pcm: Pcm, urgency: Urgency, then: Callable[[Text], None] | None = None) -> Job:
        """Have `pcm` written. `then` gets the text, on the transcriber's thread, before the job counts as done."""
        with self._wake:
            job = Job(urgency, next(self._serial), pcm, time.monotonic(), call_id, then)
            heapq.heappush(self._jobs, job)
            self._wake.notify()
        return job

    def delay_s(self) -> float:
        """How long a job took from asking to text, lately: the sign of being busy."""
        with self._wake:
            oldest = time.monotonic() - min((job.asked_at for job in self._jobs), default=time.monotonic())
            return max(oldest, sum(self._delays) / len(self._delays) if self._delays else 0.0)

    def is_busy(self) -> bool:
        """Words come late already: nobody should wait for them."""
        return self.delay_s() > BUSY_S

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(5)

    def _run(self, nice: int) -> None:
        if nice and sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)  # on Linux, of this thread alone
        while batch := self._next():
            try:
                results = self._recogniser.transcribe([job.pcm for job in batch])
            except Exception:
                # The boundary between the recogniser and the calls: these lines have no text, the calls go on.
                log.exception("the recogniser failed on %d lines of %s", len(batch), sorted({j.call_id for j in batch}))
                results = []
            for job, result in itertools.zip_longest(batch, results):
                job.result = result
                self._tell(job)
                job.done.set()
                self._delays.append(time.monotonic() - job.asked_at)

    def _tell(self, job: Job) -> None:
        if job.then is not None and job.result is not None:
            with for_call(job.call_id):
                try:
                    job.then(job.result)
                except Exception:
                    log.exception("what follows from a text failed")  # the same boundary

    def _next(self) -> list[Job]:
        """The most urgent jobs: a turn alone, others together. Empty when closing."""
        with self._wake:
            while not self._jobs and not self._closing:
                if not self._wake.wait(2.0):
                    self._delays.clear()  # nobody speaks: the delays of a minute ago say nothing
            if self._closing:
                return []
            first = heapq.heappop(self._jobs)
            together = 1 if first.urgency is Urgency.TURN else TOGETHER
            return [first, *(heapq.heappop(self._jobs) for _ in range(min(together - 1, len(self._jobs))))]


FinalT = TypeVar("FinalT")


class Refiner(Generic[FinalT]):
    """One thread around the final recogniser (which runs niced)."""

    def __init__(self, transcribe: Callable[[Pcm], FinalT], backlog_s: float = REFINER_BACKLOG_S) -> None:
        self._transcribe = transcribe
        self._backlog = int(backlog_s * SAMPLE_RATE)
        self._queue: deque[tuple[str, Pcm, Callable[[FinalT], None]]] = deque()
        self._samples = 0
        self._wake = threading.Condition()
        self._closing = False
        self.skipped = 0
        self._thread = threading.Thread(target=self._run, name="refiner", daemon=True)
        self._thread.start()

    def submit(self, call_id: str, pcm: Pcm, then: Callable[[FinalT], None]) -> bool:
        """Have `then(final)` called, on the refiner's thread. False: there is too much to do, it never will be."""
        with self._wake:
            if self._samples + len(pcm) > self._backlog:
                self.skipped += 1
                return False
            self._samples += len(pcm)
            self._queue.append((call_id, pcm, then))
            self._wake.notify_all()
        return True

    def wait(self, seconds: float) -> bool:
        """Until everything that was handed in is written."""
        with self._wake:
            return self._wake.wait_for(lambda: not self._samples, seconds)

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._queue and not self._closing:
                    self._wake.wait()
                if self._closing:
                    return
                call_id, pcm, then = self._queue.popleft()
            with for_call(call_id):
                try:
                    then(self._transcribe(pcm))
                except Exception:
                    # The boundary between the recogniser and the calls: the live text of this utterance stays.
                    log.exception("the final recogniser failed on %.1f s of speech", len(pcm) / SAMPLE_RATE)
            with self._wake:
                self._samples -= len(pcm)
                self._wake.notify_all()
