"""What is trained in which order, and how long: the four stages of SoundFlow (arXiv 2606.05121), for four models; and
how a trained model is tuned on more data.

    format         finished clips and their answers, offline layout: what an answer looks like
    adapter        streams; only what stands between the tower and the decoder learns
    streaming      streams; everything that is meant to learn does
    instructions   the same at a lower rate, on items with instructions of their own

A model with an ear begins with a stage of the ear's own: it decides, needs no words, and learns in minutes on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from model_worker.interaction.config import COMPACT, OMNI_3B, SMALL, TEST_TIERS, InteractionConfig
from soundflow.train.examples import Crop
from soundflow.train.network import DECODER, EAR, Weighting

OF_EAR = (r"tower\.ear\..*", r"ear\..*")
BETWEEN = (r"tower\.adapter\..*", r"tower\.proj\..*")
"""Tensors between the tower and the decoder."""
WHOLE = (*BETWEEN, r"decoder\..*")
MARKER_TABLE = r"decoder\.embed_tokens\.markers"
LOW_RANK = (*BETWEEN, MARKER_TABLE, r"decoder\.layers\..*\.(up|down)")
"""Of a decoder that stays as it is: what it learns beside that (low_rank.py)."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stretch of training. A step learns from `batch` * `accumulate` examples on each process."""

    name: str
    tier: str
    learns: tuple[str, ...]  # regular expressions of whole names of tensors
    steps: int
    crop: Crop
    rate: float = 2e-4
    warm_up: int = 200
    batch: int = 8
    accumulate: int = 1
    finished: bool = False  # clips and answers instead of streams
    instructed: bool = False  # only streams with an Instruction of their own, where there are any
    weighting: Weighting = field(default_factory=Weighting)
    decay: float = 0.01
    drop: float = 0.0  # share of the tower's states left out at random: few recordings are soon known by heart
    clip: float = 1.0  # largest norm of all gradients together


@dataclass(frozen=True, slots=True)
class Plan:
    """A model and its stages."""

    model: InteractionConfig
    stages: tuple[Stage, ...]
    seed: int = 1
    rank: int = 0  # of what the decoder's matrices learn beside what they are; 0: they learn as a whole

    @property
    def name(self) -> str:
        return self.model.name

    def short(self, steps: int, batch: int = 1) -> Plan:
        """The same with so few steps: a dry run."""
        stages = (replace(stage, steps=steps, warm_up=1, batch=batch, accumulate=1) for stage in self.stages)
        return replace(self, stages=tuple(stages))


def _four(
    common: Stage,
    steps: tuple[int, int, int, int],
    rate: float,
    slow: float,
    between: tuple[str, ...] = BETWEEN,
    all_of_it: tuple[str, ...] = WHOLE,
) -> tuple[Stage, ...]:
    """The paper's stages. `rate` is of what begins at random, `slow` of what is fine-tuned."""
    return (
        replace(common, name="format", learns=between, steps=steps[0], rate=rate, finished=True),
        replace(common, name="adapter", learns=between, steps=steps[1], rate=rate),
        replace(common, name="streaming", learns=all_of_it, steps=steps[2], rate=slow),
        replace(common, name="instructions", learns=all_of_it, steps=steps[3], rate=slow / 4, instructed=True),
    )


_EAR = Stage("ear", EAR, OF_EAR, steps=1_200, crop=Crop(chunks=32), rate=1e-3, warm_up=40, decay=0.1, drop=0.4)
_COMPACT = Stage(
    "", DECODER, (), 0, Crop(chunks=40, told=True), warm_up=100, batch=8, accumulate=4, weighting=Weighting(control=0.0)
)
"""Its ear decides: the decoder is woken where something is to be said, and learns what."""
_WRITER = Stage(
    "writer", DECODER, WHOLE, steps=1_300, crop=Crop(chunks=16), rate=1e-3, warm_up=40, decay=0.1, drop=0.3, batch=16
)
_TEST_EAR = replace(_EAR, steps=1_000, crop=Crop(chunks=16), rate=2e-3, warm_up=20, batch=16, drop=0.3)
_TEST = Stage("", DECODER, (), 0, Crop(chunks=12), warm_up=10, batch=8)
_3B = Stage("", DECODER, (), 0, Crop(chunks=150), warm_up=200, batch=4, accumulate=4)

PLANS = {
    plan.name: plan
    for plan in (
        Plan(TEST_TIERS, (_TEST_EAR, *_four(_TEST, (20, 40, 160, 20), rate=3e-3, slow=3e-3))),
        Plan(SMALL, (_EAR, _WRITER)),
        Plan(
            COMPACT,
            (_EAR, *_four(_COMPACT, (300, 500, 2000, 500), 1e-3, 5e-4, (*BETWEEN, MARKER_TABLE), LOW_RANK)),
            rank=16,
        ),
        Plan(OMNI_3B, _four(_3B, (2_000, 5_000, 40_000, 10_000), rate=2e-4, slow=2e-4)),
    )
}

TUNED_RATE = 0.1  # of what the stage was trained at
TUNED_STEPS = 0.2  # of its steps, and 20 at least


def tuning(plan: Plan) -> Plan:
    """For a model that was trained by `plan`: its last stage of each tier again, for a fifth of the steps at a tenth of
    the rate. A writer of our own, which only names what it hears, is left as it is: it has no words for a hint."""
    last = {stage.tier: stage for stage in plan.stages if stage.name != _WRITER.name}
    stages = tuple(
        replace(
            stage,
            name=f"tuned-{stage.name}",
            steps=_few(stage),
            rate=stage.rate * TUNED_RATE,
            warm_up=min(stage.warm_up, _few(stage) // 5),
            instructed=False,
        )
        for stage in last.values()
    )
    return replace(plan, stages=stages)


def _few(stage: Stage) -> int:
    return max(20, round(stage.steps * TUNED_STEPS))
