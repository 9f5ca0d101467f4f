"""A dry run: every stage of a plan takes one step, in the plan's own layout and in small shapes.

It shows that tower, adapter, decoder, memory and all stages fit together before a cluster is asked for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from model_worker.catalogue import Catalogue
from model_worker.interaction.config import TEST, InteractionConfig
from model_worker.interaction.tokens import Tokens
from soundflow.base import Weights
from soundflow.features import Encoded, Encoder
from soundflow.items import Item
from soundflow.train.loop import Point
from soundflow.train.prepare import starting
from soundflow.train.processes import Processes
from soundflow.train.run import run
from soundflow.train.stages import Plan


def shrunk(config: InteractionConfig) -> InteractionConfig:
    """The same layout in small shapes."""
    ear = config.ear and replace(config.ear, width=16, layers=1, heads=2, kv_heads=2, head_width=8, feed_forward=16)
    return replace(
        config,
        tokens=Tokens.after(500),
        tower=replace(
            TEST.tower, context=config.tower.context, join=config.tower.join, ear=16 if config.tower.ear else 0
        ),
        decoder=replace(TEST.decoder, control_head=config.decoder.control_head),
        ear=ear,
    )


def dry_run(
    plan: Plan,
    items: Sequence[Item],
    directory: Path,
    processes: Processes | None = None,
    show: Callable[[Point], None] | None = None,
) -> Weights:
    """One step of each stage on `items`. Raises what `run` does."""
    small = replace(plan, model=shrunk(plan.model)).short(steps=1)
    weights = starting(small.model, Catalogue(), plan.seed)
    states = Encoder(small.model, weights.part("tower")).states(items)
    data = [Encoded(item, own) for item, own in zip(items, states, strict=True)]
    return run(small, weights, data, directory, processes=processes, show=show)
