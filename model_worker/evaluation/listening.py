"""Plays items to a model as live streams and keeps what it decided: open, one Chunk after the other, close.

Several items are stepped together, as calls are; when one ends the next takes its place, so what the model is given
depends on the manifest alone. Nothing here knows what is expected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from calls.audio import CHUNK_S, Chunk
from calls.events import Decided, Event, ResponseClosed, ResponseDelta, ResponseOpened, Uttered
from calls.model import Choice, Instruction, Mode, Participant, Role, Utterance
from model_worker.evaluation.audio import BEFORE_S, Channel, stream
from model_worker.evaluation.manifest import Item
from model_worker.stream import Model, Past, Stream

CALLER = Participant("caller", Role.CALLER)
RESPONDS = {Mode.ANSWER: Choice.ANSWER, Mode.ASSIST: Choice.ASSIST, Mode.TRANSCRIBE: Choice.TRANSCRIBE}


@dataclass(slots=True)
class Response:
    chunk: int  # at which it was decided
    text: str = ""


@dataclass(slots=True)
class Heard:
    """What a model made of one item."""

    item: Item
    chunks: int = 0  # that were played
    responded: list[int] = field(default_factory=list)  # Chunks whose Decision is a response in this mode
    responses: dict[str, Response] = field(default_factory=dict)
    utterances: dict[str, Utterance] = field(default_factory=dict)  # the best revision of each
    undecided: int = 0  # Chunks without a Decision

    def take(self, event: Event) -> None:
        """Any thread. Decisions are only taken for Chunks that were played."""
        match event:
            case Decided():
                self.undecided -= 1
                if event.choice is RESPONDS[self.item.mode]:
                    self.responded.append(event.chunk)
            case ResponseOpened():
                # A model may name the Chunk that begins where the one it heard ends.
                self.responses[event.response_id] = Response(min(event.chunk, self.chunks - 1))
            case ResponseDelta():
                self.responses[event.response_id].text += event.text
            case ResponseClosed():
                self.responses[event.response_id].text = event.text
            case Uttered(utterance=utterance):
                known = self.utterances.get(utterance.id)
                if known is None or utterance.revision >= known.revision:
                    self.utterances[utterance.id] = utterance


@dataclass(slots=True)
class _Line:
    """One item under way."""

    heard: Heard
    stream: Stream
    pcm: Iterator[bytes]

    def next(self) -> Chunk | None:
        """The next Chunk; None at the end."""
        pcm = next(self.pcm, None)
        if pcm is None:
            return None
        heard = self.heard
        chunk = Chunk(self.stream.call_id, CALLER.id, heard.chunks, pcm)
        heard.chunks += 1
        heard.undecided += 1
        return chunk


def listen(
    model: Model,
    items: Iterable[Item],
    channel: Channel,
    together: int = 1,
    settle: Callable[[], None] = lambda: None,
    progress: Callable[[int], None] = lambda chunks: None,
) -> Iterator[Heard]:
    """Play every item, `together` at a time; gives each when it is over. `settle` waits for what the model does on
    other threads; `progress` is told how many Chunks were played. Raises AudioError, and what the model raises."""
    waiting = iter(enumerate(items))
    open_lines: list[_Line] = []
    while True:
        while len(open_lines) < together and (following := next(waiting, None)) is not None:
            open_lines.append(_open(model, *following, channel))
        if not open_lines:
            return
        chunks = [(line, line.next()) for line in open_lines]
        if batch := [(line.stream, chunk) for line, chunk in chunks if chunk is not None]:
            model.step(batch)
            while model.respond():
                pass
            settle()
            progress(len(batch))
        for line, chunk in chunks:
            if chunk is None:
                open_lines.remove(line)
                model.close(line.stream)
                settle()
                yield line.heard


def _open(model: Model, number: int, item: Item, channel: Channel) -> _Line:
    heard = Heard(item)
    instruction = Instruction(item.mode, item.instruction, (CALLER,))
    opened = model.open(f"item-{number}", instruction, heard.take, Past())
    return _Line(heard, opened, stream(item.path, channel, item.audio))


def at_s(chunk: int) -> float:
    """The end of a Chunk, in seconds from the beginning of the item's own audio."""
    return round((chunk + 1) * CHUNK_S - BEFORE_S, 3)
