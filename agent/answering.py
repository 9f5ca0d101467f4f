"""What is being said to the caller: answers cut into clauses, at most one of them alive.

An answer lives from the decision to say it until its playout has ended. Stopping it is final: whatever the model still
writes for it is dropped, so late speech of a dead answer is never posted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from calls.clauses import Clauses
from calls.events import (
    Answered,
    BargeIn,
    CancelResponse,
    Event,
    PlayoutEnded,
    PlayoutResumed,
    PlayoutStarted,
    ResponseClosed,
    ResponseDelta,
    Say,
    StopSaying,
)
from calls.model import Answer


@dataclass(slots=True)
class Saying:
    """One answer on its way. A response of the model keeps its id; a fixed phrase is named by its kind and count."""

    id: str
    since_s: float
    prompted_s: float | None
    sources: tuple[str, ...] = ()
    style: str = "normal"
    ends_call: bool = False
    writer: Clauses | None = None  # while the model still writes it
    next_delta: int = 0
    said: list[str] = field(default_factory=list)
    started_s: float | None = None  # the first sample on the wire
    paused_s: float | None = None  # playout is paused since then: the caller may be interrupting

    @property
    def text(self) -> str:
        return " ".join(self.said)


class Answering:
    """The answers of one call; `issue` takes the commands."""

    def __init__(self, call_id: str, most_words: int, issue: Callable[[Event], None]) -> None:
        self._call_id = call_id
        self._most_words = most_words
        self._issue = issue
        self._known: dict[str, Saying] = {}  # those whose playout has not ended, also stopped ones
        self.current: Saying | None = None  # the one that has not been stopped
        self.last_text = ""

    @property
    def is_heard(self) -> bool:
        """An answer is on the wire, playing or paused, and nothing has stopped it."""
        return self.current is not None and self.current.started_s is not None

    def begin(self, saying: Saying) -> None:
        """From now on this is the answer; an older one is dropped, whether the caller hears it yet or not."""
        self.stop("replaced")
        self._known[saying.id] = self.current = saying

    def say(self, saying: Saying, clauses: Sequence[str]) -> None:
        """All of a finished text."""
        self.begin(saying)
        for clause in clauses[:-1]:
            self._clause(saying, clause)
        self._clause(saying, clauses[-1], last=True)

    def write(self, delta: ResponseDelta) -> None:
        """More of the model's answer."""
        saying = self._known.get(delta.response_id)
        if saying is None or saying.writer is None or delta.seq < saying.next_delta:
            return
        saying.next_delta = delta.seq + 1
        for clause in saying.writer.feed(delta.text):
            # A small model that has nothing more to say says it again.
            if clause in saying.said or len(saying.text.split()) >= self._most_words:
                self._drop_writer(saying, "long enough")
                self._clause(saying, "", last=True)
                return
            self._clause(saying, clause)

    def finish(self, closed: ResponseClosed) -> Saying | None:
        """The model will write no more of this. Returns the answer if it turned out to be without a word."""
        saying = self._known.get(closed.response_id)
        if saying is None or saying.writer is None:
            return None
        if saying.next_delta == 0 and not closed.cancelled:
            self.write(ResponseDelta(call_id=self._call_id, response_id=saying.id, seq=0, text=closed.text))
        if saying.writer is None:
            return None
        rest, saying.writer = saying.writer.finish(), None
        if not saying.said and not rest:
            self._forget(saying)
            return saying
        *more, final = [clause for clause in rest if clause not in saying.said] or [""]
        for clause in more:
            self._clause(saying, clause)
        self._clause(saying, final, last=True)
        return None

    def stop(self, reason: str) -> None:
        """The current answer is dead: nothing more of it is posted. It stays known until its playout has ended."""
        saying = self.current
        if saying is None:
            return
        self._drop_writer(saying, reason)
        if saying.said:
            self._issue(StopSaying(call_id=self._call_id, answer_id=saying.id, reason=reason))
            self.current = None
        else:
            self._forget(saying)

    def pause(self, event: BargeIn | PlayoutResumed) -> None:
        """The 20 ms path paused playout, or took it up again."""
        if saying := self._known.get(event.answer_id):
            saying.paused_s = event.at_s if isinstance(event, BargeIn) else None

    def started(self, event: PlayoutStarted) -> None:
        saying = self._known.get(event.answer_id)
        if saying is not None and saying.started_s is None:
            saying.started_s = event.at_s

    def ended(self, event: PlayoutEnded) -> Saying | None:
        """Playout is over: what was heard is known. Returns the answer; None if it is not ours, or ended before."""
        saying = self._known.get(event.answer_id)
        if saying is None:
            return None
        self._drop_writer(saying, "interrupted" if event.interrupted else "playout ended")
        self._forget(saying)
        if saying.started_s is not None:
            self._issue(Answered(call_id=self._call_id, answer=_answer(saying, saying.started_s, event)))
        return saying

    def _clause(self, saying: Saying, clause: str, last: bool = False) -> None:
        say = Say(
            call_id=self._call_id,
            answer_id=saying.id,
            seq=len(saying.said),
            text=clause,
            last=last,
            style=saying.style,
            prompted_s=saying.prompted_s,
        )
        self._issue(say)
        if clause:
            saying.said.append(clause)
            self.last_text = saying.text

    def _drop_writer(self, saying: Saying, reason: str) -> None:
        if saying.writer is not None:
            saying.writer = None
            self._issue(CancelResponse(call_id=self._call_id, response_id=saying.id, reason=reason))

    def _forget(self, saying: Saying) -> None:
        del self._known[saying.id]
        if saying is self.current:
            self.current = None


def _answer(saying: Saying, started_s: float, ended: PlayoutEnded) -> Answer:
    response_ms = None if saying.prompted_s is None else max(0, round((started_s - saying.prompted_s) * 1000))
    return Answer(
        id=saying.id,
        at_s=started_s,
        text=saying.text,
        heard_text=ended.heard_text,
        interrupted=ended.interrupted,
        response_ms=response_ms,
        sources=saying.sources,
    )
