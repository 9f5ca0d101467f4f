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
"""Of a threshold: a false response that a model came so near to is kept as well."""


def missed(item: Item, decided: Sequence[bool]) -> int:
    """Events that deserve a response and got none."""
    events = judge([(item, decided)], _kinds(item))
    return events.deserving - events.hits


def false(item: Item, decided: Sequence[bool]) -> int:
    """Events that deserve none and got one, and responses that belong to no event."""
    events = judge([(item, decided)], _kinds(item))
    return events.undeserving - events.quiet + events.false


def _kinds(item: Item) -> list[str]:
    return sorted({turn.kind for turn in item.turns})


class Judge:
    """Tells the streams that a model gets wrong, in a call that is assisted or in one that is answered."""

    def __init__(self, weights: Weights) -> None:
        self._encoder = Encoder(weights.config, weights.part("tower"), fast())
        self._weights = weights

    def hard(self, items: Sequence[Item]) -> list[Item]:
        """Those that are decided wrongly, in their order."""
        data = [Encoded(item, states) for item, states in zip(items, self._encoder.states(items), strict=True)]
        wrongly = [0] * len(items)
        for mode in MODES:
            threshold = self._weights.config.threshold_in(mode)
            for count, at in ((missed, threshold), (false, threshold * NEARLY)):
                for number, (item, decided) in enumerate(decisions(self._weights, data, mode, at)):
                    wrongly[number] += count(item, decided)
        return [item for item, errors in zip(items, wrongly, strict=True) if errors]


def draw(
    make: Callable[[int], Item], first: int, wanted: int, tried: int, choose: Callable[[Sequence[Item]], list[Item]]
) -> Iterator[Item]:
    """`wanted` items that `choose` keeps, of those that `make` makes of the `tried` seeds from `first` on; or fewer."""
    kept = 0
    for start in range(first, first + tried, TOGETHER):
        for item in choose([make(seed) for seed in range(start, min(start + TOGETHER, first + tried))]):
            yield item
            kept += 1
            if kept == wanted:
                return
