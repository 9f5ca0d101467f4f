"""Was it right? What a model decided beside what was expected. Pure.

Each thing that is expected has a window: from its beginning to the beginning of the next one, the last to the end of
the stream; a Decision belongs to the window in which its Chunk ends. Only Decisions made on the stream count, and of
text only what follows from them.

    silence expected    right if no Decision in the window is a response; where the item has no `events`, in the whole
                        stream, the quiet before it too
    response expected   right if a Decision in the window is one, and not before `respond_after_s`. Earlier ones are
                        premature: they are counted, and do not count as the response. A sound may be told of at once
"""

from __future__ import annotations

from dataclasses import dataclass

from calls.audio import CHUNK_S
from calls.model import Mode
from model_worker.evaluation import kinds, labels
from model_worker.evaluation.listening import Heard, at_s
from model_worker.evaluation.manifest import Expected, Item
from model_worker.evaluation.wer import errors, words


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that was expected, and what came."""

    item: Item
    expected: Expected
    responded: bool
    at_s: float | None  # the end of the Chunk of the response, from the beginning of the audio
    due_s: float  # `respond_after_s`, or the end of the event
    premature: int  # responses before they were due to begin
    text: str

    @property
    def right(self) -> bool:
        return self.responded == self.expected.respond

    @property
    def late_s(self) -> float | None:
        """How long after it was due the response came (negative: before). None: no response, none wanted, or a
        transcript, which is written while somebody speaks and is due all the time."""
        free = self.item.mode is Mode.TRANSCRIBE and self.expected.respond_after_s is None
        return None if self.at_s is None or not self.expected.respond or free else round(self.at_s - self.due_s, 3)

    @property
    def names_label(self) -> bool | None:
        """None where nothing is to be named."""
        if not self.expected.respond or not self.expected.label:
            return None
        return self.responded and labels.names(self.text, self.expected.label)

    @property
    def says_reply(self) -> bool | None:
        """Word for word, spelling apart (wer.words). None where no reply is wanted."""
        if not self.expected.reply:
            return None
        return self.responded and words(self.text) == words(self.expected.reply)

    @property
    def is_safety(self) -> bool:
        safety = self.item.kind.lower() == "safety" or labels.plain(self.expected.label) in labels.SAFETY
        return self.expected.respond and safety


@dataclass(frozen=True, slots=True)
class Score:
    """One item, scored."""

    item: Item
    cases: tuple[Case, ...]
    responses: int  # Decisions to respond; for a transcript, stretches of them
    hours: float  # of the stream, the room included
    text: str
    word_errors: int
    words: int  # that should have been written; 0 where none are asked for
    undecided: int

    @property
    def first(self) -> Case | None:
        """The first thing that was responded to."""
        return next((case for case in self.cases if case.responded), None)


def score(heard: Heard, length_s: float) -> Score:
    """`length_s` is the audio's own length."""
    item = heard.item
    reference = words(item.text) if item.mode is Mode.TRANSCRIBE else []
    text = " ".join(part for _, part in _texts(heard))
    return Score(
        item=item,
        cases=tuple(_case(heard, index, length_s) for index in range(len(item.events))),
        responses=len(_wakes(heard)),
        hours=heard.chunks * CHUNK_S / 3600,
        text=text,
        word_errors=errors(reference, words(text)) if reference else 0,
        words=len(reference),
        undecided=heard.undecided,
    )


def _case(heard: Heard, index: int, length_s: float) -> Case:
    item = heard.item
    expected = item.events[index]
    whole_stream = expected.end_s is None and not expected.respond
    begin = float("-inf") if whole_stream else expected.at_s
    end = item.events[index + 1].at_s if index + 1 < len(item.events) else float("inf")
    due = None if kinds.of(item.kind).early else expected.respond_after_s
    after = begin if due is None else max(begin, due)
    responded = [at for chunk in sorted(heard.responded) if after < (at := at_s(chunk)) <= end]
    # Before the first thing nothing has happened yet: what is said there is premature, too.
    early_from = float("-inf") if index == 0 else begin
    early = [chunk for chunk in _wakes(heard) if early_from < at_s(chunk) <= after]
    return Case(
        item=item,
        expected=expected,
        responded=bool(responded),
        at_s=responded[0] if responded else None,
        due_s=_due(expected, length_s),
        premature=len(early),
        text=" ".join(text for at, text in _texts(heard) if after < at <= end),
    )


def _due(expected: Expected, length_s: float) -> float:
    if expected.respond_after_s is not None:
        return expected.respond_after_s
    return length_s if expected.end_s is None else expected.end_s


def _wakes(heard: Heard) -> list[int]:
    """Chunks at which the model began to respond. A transcript goes on from Chunk to Chunk and is one response."""
    chunks = sorted(heard.responded)
    if heard.item.mode is not Mode.TRANSCRIBE:
        return chunks
    return [chunk for chunk, before in zip(chunks, [-2, *chunks], strict=False) if chunk != before + 1]


def _texts(heard: Heard) -> list[tuple[float, str]]:
    """What was written, in order, each with the second to which it belongs: where a response was decided, where an
    utterance ended."""
    if heard.item.mode is Mode.TRANSCRIBE:
        zero = at_s(-1)
        found = [(round(utterance.end_s + zero, 3), utterance.text) for utterance in heard.utterances.values()]
    else:
        found = [(at_s(response.chunk), response.text) for response in heard.responses.values()]
    return sorted((at, text.strip()) for at, text in found if text.strip())


def wakes_of(item: Item) -> str:
    """Whether its false wakes are those of silence or of noise; "" if of neither."""
    return "" if any(event.respond for event in item.events) else kinds.of(item.kind).wakes
