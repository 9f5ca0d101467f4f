"""The voice thread: clauses to say -> speech on the bus.

One clause at a time for all the calls of this worker, first come first served. When there is nothing to say aloud, the
fixed phrases of a call (greeting, "one moment") are synthesised and kept by the voice, and so is a clause that the
model expects to say while the caller still speaks. Everything has an answer id, so an answer that was interrupted
stops wherever it is: in the queue or in synthesis.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from calls.audio import CHUNK_BYTES, FRAME_BYTES
from calls.events import Say, Speech
from calls.model import Instruction

log = logging.getLogger(__name__)

FIRST_PIECE = 10 * FRAME_BYTES  # 0.2 s: on the wire soon
PIECE = CHUNK_BYTES
PHRASES = "phrases"  # Instruction.options: fixed phrases, one a line, to be synthesised before they are needed
QUEUE = 1000  # clauses that wait; an answer has a handful, so this many means that the voice is broken
_LIVE, _AHEAD, _PHRASE = range(3)  # priorities: must be heard now, will be said if the turn ends, may be needed


class Voice(Protocol):
    """The part of model_worker/voice.py that is needed here. Its clauses are cached by what they say."""

    def say(self, text: str, *, style: str = "normal") -> Iterator[npt.NDArray[np.float32]]:
        """16 kHz mono float32 in -1..1, in blocks as they are ready."""
        ...

    def prepare(self, texts: Iterable[str], *, style: str = "normal") -> None:
        """Synthesise fixed phrases now and keep them for good."""
        ...


@dataclass(order=True, slots=True)
class _Job:
    priority: int
    serial: int
    call_id: str = field(compare=False)
    say: Say = field(compare=False)
    skip: int = field(compare=False, default=0)
    keep: bool = field(compare=False, default=False)


class Speaker:
    """Owns the queue and the cache; `run` is the thread. The other methods may be called from any thread.

    `post` takes (call id, Speech) and must be thread-safe.
    """

    def __init__(self, voice: Voice, post: Callable[[str, Speech], None]) -> None:
        self._voice = voice
        self._post = post
        self._jobs: list[_Job] = []
        self._serial = itertools.count()
        self._wake = threading.Condition()  # guards everything below and the jobs
        self._stopped: set[tuple[str, str]] = set()  # (call, answer)
        self._known: set[tuple[str, str, int]] = set()  # clauses taken: an event may come twice
        self._closing = False

    # --- from any thread ----------------------------------------------------------------------------------------

    def say(self, say: Say, skip: int = 0) -> None:
        """Speak a clause. `skip` pieces of it are already on the bus (another worker began it)."""
        with self._wake:
            clause = (say.call_id, say.answer_id, say.seq)
            if clause in self._known or (say.call_id, say.answer_id) in self._stopped:
                return
            if len(self._jobs) >= QUEUE:
                about = {"call_id": say.call_id}
                log.error("the voice is behind by %d clauses: '%s' is not spoken", QUEUE, say.text, extra=about)
                return
            self._known.add(clause)
            heapq.heappush(self._jobs, _Job(_LIVE, next(self._serial), say.call_id, say, skip))
            self._wake.notify()

    def prepare(self, texts: Iterable[str], keep: bool = False) -> None:
        """Have these ready soon. `keep`: fixed phrases, wanted again and again."""
        with self._wake:
            for text in texts:
                if text.strip() and len(self._jobs) < QUEUE:
                    ahead = Say(call_id="", answer_id="", seq=0, text=text)
                    heapq.heappush(
                        self._jobs, _Job(_PHRASE if keep else _AHEAD, next(self._serial), "", ahead, 0, keep)
                    )
            self._wake.notify()

    def prepare_phrases(self, instruction: Instruction) -> None:
        """Have the fixed phrases of such calls ready soon."""
        if phrases := instruction.options.get(PHRASES, ""):
            self.prepare(phrases.splitlines(), keep=True)

    def stop(self, call_id: str, answer_id: str) -> None:
        """Drop an answer wherever it is; clauses of it that still come are dropped too."""
        with self._wake:
            self._stopped.add((call_id, answer_id))
            self._jobs = [job for job in self._jobs if (job.call_id, job.say.answer_id) != (call_id, answer_id)]
            heapq.heapify(self._jobs)

    def forget(self, call_id: str) -> None:
        """The call is over, or not ours any more."""
        with self._wake:
            self._jobs = [job for job in self._jobs if job.call_id != call_id]
            heapq.heapify(self._jobs)
            self._stopped = {key for key in self._stopped if key[0] != call_id}
            self._known = {key for key in self._known if key[0] != call_id}

    def close(self) -> None:
        """End the thread after the clause under way."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()

    # --- the thread -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._speak(job) if job.priority == _LIVE else self._make_ready(job)
            except Exception:
                # The boundary between the voice and the calls. The answer must still come to its end.
                log.exception("could not synthesise '%s'", job.say.text, extra={"call_id": job.call_id})
                if job.priority == _LIVE:
                    self._emit(job, 0, b"", job.say.last)

    def _next(self) -> _Job | None:
        with self._wake:
            while not self._jobs and not self._closing:
                self._wake.wait()
            return None if self._closing else heapq.heappop(self._jobs)

    def _speak(self, job: _Job) -> None:
        """One clause, piece by piece. The end of the answer is a piece of its own, so that no audio waits for it."""
        if self._is_stopped(job):
            return  # before the voice has worked for it: other calls wait for the voice
        count = 0
        blocks = self._voice.say(job.say.text, style=job.say.style) if job.say.text.strip() else ()
        for piece in pieces(blocks):
            if self._is_stopped(job):
                return
            self._emit(job, count, piece)
            count += 1
        if job.say.last and not self._is_stopped(job):
            self._emit(job, count, b"", last=True)

    def _emit(self, job: _Job, piece: int, pcm: bytes, last: bool = False) -> None:
        say = job.say
        if piece >= job.skip or last:
            text = say.text if piece == 0 else ""
            speech = Speech(
                call_id=say.call_id, answer_id=say.answer_id, seq=say.seq, piece=piece, pcm=pcm, text=text, last=last
            )
            self._post(job.call_id, speech)

    def _make_ready(self, job: _Job) -> None:
        if job.keep:
            self._voice.prepare([job.say.text])
        else:
            for _ in self._voice.say(job.say.text):
                pass

    def _is_stopped(self, job: _Job) -> bool:
        with self._wake:
            known = (job.call_id, job.say.answer_id, job.say.seq) in self._known
            return self._closing or not known or (job.call_id, job.say.answer_id) in self._stopped


def pieces(blocks: Iterable[npt.NDArray[np.float32]]) -> Iterator[bytes]:
    """Each block as 16-bit PCM, cut into a short piece first and Chunks after it. Nothing waits for the next block."""
    size = FIRST_PIECE
    for block in blocks:
        pcm = (np.clip(block, -1.0, 1.0) * 32767).astype("<i2").tobytes()
        at = 0
        while at < len(pcm):
            yield pcm[at : at + size]
            at, size = at + size, PIECE
