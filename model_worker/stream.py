"""The one interface of every model: open a Stream with an Instruction, step a batch of Chunks, close it.

`cascade` (pretrained parts) and `interaction` (the Audio Interaction Model) implement `Model`; worker.py and engine.py
know nothing else of them. Everything a model has to say goes through `Emit`, from whatever thread it runs on: a
Decision for each Chunk during `step`, transcripts and responses whenever they are ready.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from calls.audio import Chunk
from calls.events import Decided, Event
from calls.model import Answer, Choice, Instruction, Utterance

Emit = Callable[[Event], None]
"""Takes Decided, Partial, Uttered, ResponseOpened, ResponseDelta, ResponseClosed, Notice. Thread-safe, never blocks."""


At = tuple[str, int]
"""A participant and a Chunk of theirs."""


class Fate(Enum):
    """What became of a response with its worker."""

    FINISHED = auto()
    CUT = auto()  # by another response
    UNWANTED = auto()  # policy has ended it, or it was torn too long ago
    TORN = auto()  # it was being written, just now: whoever goes on with the call may write it to its end


@dataclass(frozen=True, slots=True)
class PastResponse:
    """A response that an earlier worker opened."""

    id: str
    participant_id: str
    chunk: int
    emotion: str = "normal"
    text: str = ""  # as it was written, whatever was heard of it
    pieces: int = 0  # in so many ResponseDeltas
    fate: Fate = Fate.TORN


@dataclass(frozen=True, slots=True)
class Past:
    """What a Stream that takes over a running call must know of it. Empty for a new call."""

    utterances: tuple[Utterance, ...] = ()  # finished so far, in order
    answers: tuple[Answer, ...] = ()  # said so far, as heard
    decided: tuple[At, ...] = ()  # the last Chunk of each participant that is decided
    responses: tuple[PastResponse, ...] = ()  # opened so far, in order
    responded: tuple[At, ...] = ()  # Chunks that were not decided `silent`
    stopped: tuple[At, ...] = ()  # Chunks before which policy ended a response
    again: tuple[At, ...] = ()  # the first Chunk of each participant that is heard again
    fresh: tuple[At, ...] = ()  # the first Chunk of each at which a response is not too late to be given now


class Stream(Protocol):
    """A model's own state for one call. Only its model looks inside."""

    call_id: str

    @property
    def going_on(self) -> frozenset[str]:
        """Ids of torn responses that it will write to their end. The others are closed for it."""
        ...


class Model(Protocol):
    """Serves many Streams. `step` is called from one thread at a time, never from the event loop."""

    name: str
    transcribes: bool  # it tells what it hears in words, whatever the mode of the call
    hears_all_again: bool  # when it takes a call over, it wants all audio that is left, not only what is unwritten

    def prepare(self, instruction: Instruction) -> None:
        """Calls with such an Instruction will come: begin to get ready for them. Returns at once; `load` may be 1
        until that is done."""
        ...

    def open(self, call_id: str, instruction: Instruction, emit: Emit, past: Past) -> Stream:
        """Begin a call, or continue one. Chunks up to `past.decided` will come again: they are heard, to rebuild
        the state, but nothing is emitted for them a second time. Raises NoRoom."""
        ...

    def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
        """Perceive and decide one Chunk of each pair; emits one Decided for each before it returns. Chunks of one
        participant come in order; a missing index means its audio was lost. Must not wait for text generation. When it
        raises, the Chunks that it has not decided may come once more, one at a time: it hears them then, or refuses
        them without raising."""
        ...

    def respond(self) -> bool:
        """Write a little more of the responses under way, if that is done in the step's thread: one short piece of
        work, because Chunks may come meanwhile. False: there is nothing to write now."""
        ...

    def hear_answer(self, stream: Stream, answer: Answer) -> None:
        """The caller heard this much of an answer (also of a greeting or other fixed phrase). Any thread."""
        ...

    def cancel(self, stream: Stream, response_id: str) -> None:
        """Stop generating this response. Any thread."""
        ...

    def close(self, stream: Stream) -> None:
        """The call is over: finish open utterances, emit them, free everything. On a thread of its own, while other
        Streams are stepped."""
        ...

    def load(self) -> float:
        """How busy the model is, 0 (idle) to 1 (no room for one more call): admission asks."""
        ...


def silent(chunk: Chunk, score: float = 1.0) -> Decided:
    """The Decision not to do anything."""
    return Decided(
        call_id=chunk.call_id,
        participant_id=chunk.participant_id,
        chunk=chunk.index,
        choice=Choice.SILENT,
        score=score,
    )
