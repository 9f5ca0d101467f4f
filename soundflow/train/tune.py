"""The threshold, from streams that were not trained on: what is decided Chunk after Chunk, as serving decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from calls.audio import CHUNK_S
from calls.model import Instruction, Mode
from model_worker.interaction.config import EAR_TOKENS
from model_worker.interaction.decoder import Decoder
from model_worker.interaction.instruction import prefix_of
from model_worker.interaction.memory import Memory
from model_worker.interaction.tier import NOTHING, Tier
from model_worker.interaction.tower import Tower
from soundflow.base import Weights
from soundflow.features import Encoded
from soundflow.items import EITHER, RESPOND, Item
from soundflow.train.examples import WAKE
from soundflow.train.measure import Events, judge, trigger_accuracy
from soundflow.wake import in_mode

THRESHOLDS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
TOGETHER = 32


class Decider:
    """The tier that decides, over encoded items."""

    def __init__(self, weights: Weights, threshold: float) -> None:
        config = weights.config
        self._weights, self._config, self._threshold = weights, config, threshold
        parts = {part: weights.part(part) for part in ("tower", "decoder", "ear")}
        self._tower = Tower(config.tower, config.decoder.width)
        self._tower.load_state_dict(parts["tower"])
        self._ear = config.ear is not None and config.ear_memory is not None
        shape, memory = (config.ear, config.ear_memory) if self._ear else (config.decoder, config.memory)
        assert shape is not None
        assert memory is not None
        network = Decoder.of(
            shape, parts["ear" if self._ear else "decoder"], config.ear_features if self._ear else None
        )
        kept = Memory(memory, shape, TOGETHER, torch.device("cpu"), torch.float32)
        self._tier = Tier(config, network, kept, range(1, TOGETHER + 1), ear=self._ear)

    @torch.inference_mode()
    def decide(self, given: Sequence[tuple[Item, torch.Tensor]]) -> list[list[float]]:
        """P(respond) at each Chunk of at most TOGETHER items, given with their states; decisions are remembered."""
        features = [self._tower.features(states.float()) for _, states in given]
        for slot, (item, _) in enumerate(given):
            self._tier.open(slot, self._prefix(item))
        scores: list[list[float]] = [[] for _ in given]
        before = [NOTHING] * len(given)
        for chunk in range(max(len(part) for part in features)):
            here = [slot for slot, part in enumerate(features) if chunk < len(part)]
            heard = torch.stack([features[slot][chunk] for slot in here])
            said = self._tier.hear([(slot, chunk, before[slot]) for slot in here], heard).tolist()
            for slot, score in zip(here, said, strict=True):
                scores[slot].append(score)
                respond = score > self._threshold
                # Words that nobody writes here are not remembered: only that there was a response.
                before[slot] = self._tier.markers.control(respond)
        for slot in range(len(given)):
            self._tier.close(slot)
        return scores

    def _prefix(self, item: Item) -> list[int]:
        if self._ear:
            return [EAR_TOKENS.index(item.mode.value)]
        instruction = Instruction(mode=item.mode, text=item.instruction, participants=())
        config = self._config
        return prefix_of(instruction, self._weights.tokenizer, config.tokens, config.memory.prefix)


def triggers(weights: Weights, data: Sequence[Encoded], mode: Mode, threshold: float) -> float | None:
    """Trigger accuracy, balanced over the Chunks that are scored: what training shows of its batches, of whole items
    decided as serving does. One half: always silent, or always responding. None where nothing deserves a response."""
    said, right = [], []
    for item, decided in decisions(weights, data, mode, threshold):
        labels = item.labels()
        said += [own for own, label in zip(decided, labels, strict=True) if label != EITHER]
        right += [label == RESPOND for label in labels if label != EITHER]
    return trigger_accuracy(torch.tensor(said, dtype=torch.float32), torch.tensor(right).long())


def decisions(weights: Weights, data: Sequence[Encoded], mode: Mode, threshold: float) -> list[tuple[Item, list[bool]]]:
    """What would be decided on these items at a threshold; items for every mode are taken in `mode`."""
    decider = Decider(weights, threshold)
    pairs = [(in_mode(one.item, mode) if one.item.task == WAKE else one.item, one.states) for one in data]
    out: list[tuple[Item, list[bool]]] = []
    for start in range(0, len(pairs), TOGETHER):
        part = pairs[start : start + TOGETHER]
        scores = decider.decide(part)
        out += [(item, [s > threshold for s in own]) for (item, _), own in zip(part, scores, strict=True)]
    return out


def tune(
    weights: Weights,
    data: Sequence[Encoded],
    mode: Mode = Mode.ASSIST,
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[float, Events]:
    """The threshold with the best balanced accuracy of events, of all kinds, the higher one of two that are as good.
    `progress`: (done, in all, what), in thresholds."""
    best: tuple[float, Events] | None = None
    kinds = sorted({turn.kind for one in data for turn in one.item.turns})
    for number, threshold in enumerate(THRESHOLDS, 1):
        events = judge(decisions(weights, data, mode, threshold), kinds)
        if best is None or events.balanced >= best[1].balanced:
            best = threshold, events
        if progress:
            progress(number, len(THRESHOLDS), f"{threshold}")
    assert best is not None
    return best


@dataclass(frozen=True, slots=True)
class Patience:
    """A threshold for calls that are answered, and what it costs."""

    threshold: float
    wakes: int  # Chunks that are responded to of streams that carry nothing
    hours: float  # of these
    hits: int  # events that deserve a response and get one in mode ANSWER
    deserving: int

    def __str__(self) -> str:
        return (
            f"{self.wakes} false wakes in {self.hours * 60:.0f} minutes of streams that carry nothing, "
            f"{self.hits} of {self.deserving} events responded to"
        )


def patient(weights: Weights, data: Sequence[Encoded], threshold: float) -> Patience | None:
    """The threshold for calls that are answered: the lowest one from `threshold` up at which streams that carry nothing
    wake it at most once an hour; the highest there is, if none is enough. None without such streams."""
    wake = [one for one in data if one.item.task == WAKE]
    nothing = [one for one in wake if not any(turn.respond for turn in one.item.turns)]
    if not nothing:
        return None
    hours = sum(one.item.chunks for one in nothing) * CHUNK_S / 3600
    for chosen in (threshold, *(one for one in THRESHOLDS if one > threshold)):
        wakes = sum(sum(decided) for _, decided in decisions(weights, nothing, Mode.ANSWER, chosen))
        if wakes <= hours:
            break
    kinds = sorted({turn.kind for one in wake for turn in one.item.turns})
    events = judge(decisions(weights, wake, Mode.ANSWER, chosen), kinds)
    return Patience(chosen, wakes, hours, events.hits, events.deserving)
