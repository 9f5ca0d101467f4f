"""How good decisions are: at single Chunks, and on streams, event by event."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from soundflow.items import EITHER, Item, Turn

LATE = 2  # Chunks after an event's last one in which a response still belongs to it


def trigger_accuracy(scores: Tensor, right: Tensor, threshold: float = 0.5) -> float | None:
    """Balanced over the Chunks of both kinds, of P(respond) [n] and what is right [n]; None if one kind is missing."""
    respond = right == 1
    if not respond.any() or respond.all():
        return None
    said = scores > threshold
    return float((said[respond].float().mean() + (~said[~respond]).float().mean()) / 2)


@dataclass(slots=True)
class Events:
    """What came of the events of some streams at one threshold."""

    hits: int = 0  # events that deserve a response and got one
    deserving: int = 0
    quiet: int = 0  # events that deserve none and got none
    undeserving: int = 0
    false: int = 0  # responses that belong to no event
    late: list[int] = field(default_factory=list)  # Chunks from an event's first to the response

    @property
    def recall(self) -> float:
        return self.hits / max(1, self.deserving)

    @property
    def silence(self) -> float:
        return self.quiet / max(1, self.undeserving)

    @property
    def balanced(self) -> float:
        return (self.recall + self.silence) / 2


def judge(judged: Iterable[tuple[Item, Sequence[bool]]], kinds: Sequence[str]) -> Events:
    """Compare what was decided at each Chunk of some items with their turns. Turns of other kinds than `kinds` are
    neither counted nor held against anybody. A bed is no event: a response over it belongs to what else is heard then,
    and is a false one where that is nothing."""
    out = Events()
    for item, decided in judged:
        said = np.array(decided, np.bool_)
        inside = item.background() == EITHER  # nobody knows what was right there
        for turn in (turn for turn in item.turns if not turn.bed):
            first, last = turn.first_chunk, min(turn.last_chunk + LATE, len(said) - 1)
            inside[first : last + 1] = True
            if turn.kind in kinds:
                _count(out, turn, said[first : last + 1])
        out.false += int((said & ~inside).sum())
    return out


def _count(out: Events, turn: Turn, said: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> None:
    if turn.respond:
        out.deserving += 1
        out.hits += bool(said.any())
        out.late += [int(said.argmax())] if said.any() else []
    else:
        out.undeserving += 1
        out.quiet += not said.any()
