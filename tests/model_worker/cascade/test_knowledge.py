from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from calls.model import Card
from model_worker.cascade.knowledge import Libraries


class Recovering:
    """Fails once, then embeds everything alike."""

    def __init__(self) -> None:
        self.failures = [RuntimeError("on purpose")]

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if self.failures:
            raise self.failures.pop()
        return np.full((len(texts), 4), 0.5, np.float32)

    embed_set = embed


def test_cards_that_could_not_be_indexed_are_indexed_again() -> None:
    libraries = Libraries(Recovering())
    cards = [Card("hours", "Opening hours", "We are open Monday to Friday.", "hours.md")]
    failed = libraries.get(cards)
    with pytest.raises(RuntimeError, match="on purpose"):
        failed.result(10)
    built = libraries.get(cards)
    assert built.result(10) is not None
    assert libraries.get(cards) is built
