"""Streams that a model gets wrong: what it learns most from, and what a person's own lines carry that it stumbles over.

Most of what is composed is decided rightly after a while, and a model learns nothing from it: of hours of music it is
minutes that it takes for a siren. Here streams are composed, decided, and kept only where the decisions are wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from calls.model import Mode
from soundflow.base import Weights
from soundflow.features import Encoded, Encoder, fast
from soundflow.items import Item
from soundflow.train.measure import judge
from soundflow.train.tune import TOGETHER, decisions

MODES = (Mode.ASSIST, Mode.ANSWER)
NEARLY = 0.6
"""Of a threshold: what a model comes that near to is kept as well."""
TRIED = 40  # streams for each that is kept, before it is said that there are no more


def wrong(item: Item, decided: Sequence[bool]) -> int:
    """Events that were missed, events and stretches of nothing that were responded to."""
    events = judge([(item, decided)], sorted({turn.kind for turn in item.turns}))
    return events.deserving - events.hits + events.undeserving - events.quiet + events.false


class Judge:
    """Tells the streams that a model gets wrong, in a call that is assisted or in one that is answered."""

    def __init__(self, weights: Weights) -> None:
        tower = {name.removeprefix("tower."): t for name, t in weights.tensors.items() if name.startswith("tower.")}
        self._encoder = Encoder(weights.config, tower, fast())
        self._weights = weights

    def hard(self, items: Sequence[Item]) -> list[Item]:
        """Those that are decided wrongly, in their order."""
        data = [Encoded(item, states) for item, states in zip(items, self._encoder.states(items), strict=True)]
        threshold = self._weights.config.threshold * NEARLY
        wrongly = [0] * len(items)
        for mode in MODES:
            for number, (item, decided) in enumerate(decisions(self._weights, data, mode, threshold)):
                wrongly[number] += wrong(item, decided)
        return [item for item, count in zip(items, wrongly, strict=True) if count]


def draw(
    make: Callable[[int], Item], first: int, wanted: int, choose: Callable[[Sequence[Item]], list[Item]]
) -> Iterator[Item]:
    """`wanted` items that `choose` keeps, of those that `make` makes of the seeds from `first` on; fewer, if of TRIED
    times as many there are not so many."""
    kept = 0
    for start in range(first, first + wanted * TRIED, TOGETHER):
        for item in choose([make(seed) for seed in range(start, min(start + TOGETHER, first + wanted * TRIED))]):
            yield item
            kept += 1
            if kept == wanted:
                return
