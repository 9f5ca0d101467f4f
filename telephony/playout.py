"""What is said to the caller: answers in order, clause by clause, and how much of each was really heard.

Sans-IO: `now` is the call's clock as a sample count, and what happened is returned as events. An answer is heard up
to what was written to the leg less what the leg has not played yet, so a flush takes the cursor back and a resumed
answer goes on where the caller's ear left it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

from calls.audio import FRAME_BYTES, FRAME_SAMPLES, SAMPLE_BYTES, SAMPLE_RATE, SILENT_FRAME, Frame, seconds
from calls.events import Event, PlayoutEnded, PlayoutResumed, PlayoutStarted, Speech

DROUGHT = 10 * SAMPLE_RATE  # an answer whose speech does not come for so long is closed
DRAIN = 5 * SAMPLE_RATE  # a leg that never says it has played the rest is believed after so long
MAX_ANSWERS = 32  # waiting; more are dropped
MAX_ANSWER_BYTES = 300 * SAMPLE_RATE * SAMPLE_BYTES  # five minutes; the rest is dropped
_TRAIL_FRAMES = 500  # 10 s: the longest backlog of a leg that can be reasoned about


@dataclass(slots=True)
class Spoken:
    """One answer: its audio so far, where its clauses begin, and how far it was written."""

    id: str
    pcm: bytearray = field(default_factory=bytearray)
    clauses: list[tuple[int, str]] = field(default_factory=list)  # first sample, text
    newest: tuple[int, int] = (-1, -1)  # seq and piece of the newest Speech
    complete: bool = False  # the last piece is here
    written: int = 0  # samples
    started: bool = False

    @property
    def samples(self) -> int:
        return len(self.pcm) // SAMPLE_BYTES

    def take(self, speech: Speech) -> None:
        """Append a piece. A repeated or late piece (bus replay, a taken-over worker) changes nothing."""
        if self.complete or (speech.seq, speech.piece) <= self.newest:
            return
        if speech.seq != self.newest[0]:
            self.clauses.append((self.samples, speech.text))
        self.newest = (speech.seq, speech.piece)
        self.complete = speech.last
        if len(self.pcm) + len(speech.pcm) <= MAX_ANSWER_BYTES:
            self.pcm += speech.pcm[: len(speech.pcm) // SAMPLE_BYTES * SAMPLE_BYTES]

    def heard_text(self, heard: int) -> str:
        """The text of the first `heard` samples: whole clauses, then whole words of the clause in hand by its share
        of samples (of those that have come; a clause still being synthesised is taken for as long as it is)."""
        ends = [*(first for first, _ in self.clauses[1:]), self.samples]
        parts = (
            text if heard >= end else _cut(text, (heard - first) / (end - first))
            for (first, text), end in zip(self.clauses, ends, strict=False)
            if heard > first or first == end <= heard
        )
        return " ".join(part for part in parts if part)


def _cut(text: str, share: float) -> str:
    """The first `share` of `text`, ending with a whole word."""
    end = int(len(text) * share)
    if end < len(text) and not text[end].isspace():
        end = (
            max(
                (i for i, (a, b) in enumerate(pairwise(text[: end + 1])) if b.isspace() and not a.isspace()), default=-1
            )
            + 1
        )
    return text[:end].strip()


class Playout:
    """The answers of one call on their way to the caller, one at a time."""

    def __init__(self, call_id: str) -> None:
        self._call_id = call_id
        self._answers: dict[str, Spoken] = {}  # in the order in which they came; the first is the current one
        self._closed: set[str] = set()  # played, stopped or given up: never again
        self._trail: deque[tuple[Spoken | None, int]] = deque(maxlen=_TRAIL_FRAMES)  # what each written Frame held
        self._paused = False
        self._waited = 0  # samples since the current answer last had something to write

    @property
    def current(self) -> str | None:
        """The answer that has begun and is not over; None while nothing is being said."""
        answer = self._first()
        return answer.id if answer and answer.started else None

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def idle(self) -> bool:
        """Nothing is being said and nothing is about to be."""
        return not self._answers

    def expect(self, answer_id: str) -> None:
        """Its text was sent to the voice: audio will follow, so a hang-up waits for it."""
        self._answer(answer_id)

    def push(self, speech: Speech) -> None:
        """Take a piece of synthesised speech; dropped if its answer was stopped or is over."""
        answer = self._answer(speech.answer_id)
        if answer:
            answer.take(speech)

    def next_frame(self, now: int, unplayed: int) -> tuple[Frame, list[Event]]:
        """The 20 ms to write at `now`, and what that brought about. `unplayed`: samples that the leg still holds."""
        answer = self._first()
        if answer is None or self._paused:
            return self._wrote(None, SILENT_FRAME), []
        start = answer.written * SAMPLE_BYTES
        pcm = bytes(answer.pcm[start : start + FRAME_BYTES])
        if len(pcm) < FRAME_BYTES and not answer.complete:
            pcm = b""  # half a Frame waits for its other half
        if pcm:
            self._waited = 0
            answer.written += len(pcm) // SAMPLE_BYTES
            events: list[Event] = []
            if not answer.started:
                answer.started = True
                events = [PlayoutStarted(call_id=self._call_id, answer_id=answer.id, at_s=seconds(now))]
            return self._wrote(answer, pcm), events
        self._waited += FRAME_SAMPLES
        over = self._heard(answer, unplayed) >= answer.written or self._waited > DRAIN
        if (answer.complete and over) or self._waited > DROUGHT:
            return self._wrote(None, SILENT_FRAME), self._close(answer, now, answer.written, interrupted=False)
        return self._wrote(None, SILENT_FRAME), []

    def silence(self) -> Frame:
        """20 ms to write while no answer is to begin or to go on."""
        return self._wrote(None, SILENT_FRAME)

    def pause(self, flushed: int) -> None:
        """Stop writing; the last `flushed` samples were taken back from the leg and are to be said again."""
        self._paused = True
        answer = self._first()
        if answer:
            answer.written = self._heard(answer, flushed)
        self._trail.clear()

    def resume(self, now: int) -> list[Event]:
        """Go on from what was really heard."""
        self._paused = False
        answer = self._first()
        return [PlayoutResumed(call_id=self._call_id, answer_id=answer.id, at_s=seconds(now))] if answer else []

    def stop(self, answer_id: str, now: int, unplayed: int) -> list[Event]:
        """Drop `answer_id` wherever it is. PlayoutEnded if it had begun. Flush the leg first: `unplayed` is what it
        held and will not play."""
        answer = self._answers.get(answer_id)
        self._closed.add(answer_id)
        if answer is None:
            return []
        heard = answer.written if self._paused else self._heard(answer, unplayed)
        return self._close(answer, now, heard, interrupted=True)

    def stop_all(self, now: int, unplayed: int) -> list[Event]:
        """The call is over."""
        return [event for answer_id in list(self._answers) for event in self.stop(answer_id, now, unplayed)]

    def _answer(self, answer_id: str) -> Spoken | None:
        if answer_id in self._closed:
            return None
        if answer_id not in self._answers and len(self._answers) >= MAX_ANSWERS:
            self._closed.add(answer_id)
            return None
        return self._answers.setdefault(answer_id, Spoken(answer_id))

    def _first(self) -> Spoken | None:
        return next(iter(self._answers.values()), None)

    def _wrote(self, answer: Spoken | None, pcm: bytes) -> Frame:
        self._trail.append((answer, len(pcm) // SAMPLE_BYTES))
        return pcm.ljust(FRAME_BYTES, b"\0")

    def _heard(self, answer: Spoken, unplayed: int) -> int:
        """Samples of `answer` that are out, when the newest `unplayed` samples written to the leg are not."""
        held = 0
        for owner, samples in reversed(self._trail):
            if unplayed <= 0:
                break
            padding = FRAME_SAMPLES - samples
            if owner is answer:
                held += min(samples, max(0, unplayed - padding))
            unplayed -= FRAME_SAMPLES
        return answer.written - held

    def _close(self, answer: Spoken, now: int, heard: int, interrupted: bool) -> list[Event]:
        if answer is self._first():
            self._paused = False
            self._waited = 0
        del self._answers[answer.id]
        self._closed.add(answer.id)
        if interrupted and not answer.started:
            return []
        text = answer.heard_text(heard)
        return [
            PlayoutEnded(
                call_id=self._call_id, answer_id=answer.id, at_s=seconds(now), heard_text=text, interrupted=interrupted
            )
        ]
