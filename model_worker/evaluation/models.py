"""The model to evaluate, in the form in which it depends least on how fast this machine is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from calls.errors import OffhookError
from calls.settings import Settings
from model_worker.chosen import load_to_decide_again
from model_worker.stream import Model

TOGETHER = 8  # items at a time
SETTLE_S = 120.0


class NotSettled(OffhookError):
    """The model still works on something that the figures depend on."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """`settle` waits for what the model does on threads of its own."""

    model: Model
    together: int
    settle: Callable[[], None]


def load(settings: Settings, environment: Mapping[str, str]) -> Loaded:
    """Raises what model_worker.chosen raises."""
    model = load_to_decide_again(settings, environment, calls=TOGETHER)
    if not settings.model.startswith("cascade"):
        return Loaded(model, TOGETHER, lambda: None)
    from model_worker.cascade.model import Cascade
    from model_worker.joined import Joined

    words = model.words if isinstance(model, Joined) else model
    assert isinstance(words, Cascade)
    refiner = words.parts.refiner

    def settle() -> None:
        if not refiner.wait(SETTLE_S):
            raise NotSettled(f"the final transcripts were not written within {SETTLE_S:.0f} s")

    # One at a time: which lines its recogniser decodes together depends on the moment, and that on rounding.
    return Loaded(model, 1, settle)
