"""One stage of training, from step to step: resumable to the same result, on one process or many.

What a step learns from depends on the seed, the step and the process alone, so a run that was killed goes on from its
last checkpoint to the weights it would have come to. Checkpoints are written whole or not at all.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from model_worker.interaction.config import MemoryConfig
from soundflow import whole
from soundflow.errors import SoundflowError
from soundflow.train.examples import Example
from soundflow.train.measure import trigger_accuracy
from soundflow.train.network import Loss, Network
from soundflow.train.parallel import Batch, collate
from soundflow.train.processes import Processes
from soundflow.train.stages import Stage

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
CURVE = "curve.jsonl"
BETAS = (0.9, 0.98)

MakeExample = Callable[[np.random.Generator], Example]
"""Draws an example."""


@dataclass(slots=True)
class Point:
    """Of the learning curve: means since the point before."""

    stage: str
    step: int
    rate: float
    loss: float
    words: float | None
    control: float | None
    accuracy: float | None  # balanced, of the scored decisions, at a threshold of one half


@dataclass(slots=True)
class _Since:
    """What is summed up between two points."""

    losses: list[float] = field(default_factory=list)
    words: list[float] = field(default_factory=list)
    control: list[float] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)
    right: list[Tensor] = field(default_factory=list)

    def add(self, loss: Loss) -> None:
        self.losses.append(float(loss.total.detach()))
        self.words += [loss.words] if loss.words is not None else []
        self.control += [loss.control] if loss.control is not None else []
        self.scores.append(loss.scores.cpu())
        self.right.append(loss.right.cpu())

    def point(self, stage: str, step: int, rate: float) -> Point:
        accuracy = trigger_accuracy(torch.cat(self.scores), torch.cat(self.right))
        words, control = (_mean(part) for part in (self.words, self.control))
        return Point(stage, step, rate, float(np.mean(self.losses)), words, control, accuracy)


class Trainer:
    """Runs one stage on a network and leaves checkpoints and the curve in `directory`."""

    def __init__(
        self,
        network: Network,
        stage: Stage,
        memory: MemoryConfig,
        make: MakeExample,
        directory: Path,
        *,
        seed: int = 1,
        processes: Processes | None = None,
        mixed: bool = True,
    ) -> None:
        """`mixed`: matrix products in bfloat16, sums and weights in float32.

        Raises ValueError for a stage that names no tensor of the network.
        """
        self.stage, self._memory, self._make, self._seed = stage, memory, make, seed
        self._processes = processes or Processes()
        self._directory, self._mixed = directory, mixed
        self.names = network.train_only(stage.learns)
        self._parameters = [parameter for _, parameter in network.learning()]
        optimizer = torch.optim.AdamW(_groups(network, stage.decay), lr=stage.rate, betas=BETAS)
        self.network = network
        self._wrapped, self._optimizer = self._processes.prepare(network, optimizer)
        self.step = 0
        self.curve: list[Point] = []
        self._since = _Since()

    def run(self, until: int | None = None, every: int = 20, show: Callable[[Point], None] | None = None) -> None:
        """Go on to step `until` (default: the stage's last). A point of the curve and a checkpoint each `every` steps.

        Raises SoundflowError when the loss is no longer a number, NotWritten when a checkpoint cannot be saved.
        """
        last = self.stage.steps if until is None else min(until, self.stage.steps)
        self._wrapped.train()
        while self.step < last:
            self._one_step()
            if self.step % every == 0 or self.step == last:
                self._note(show)
                self.save()

    def _one_step(self) -> None:
        rate = learning_rate(self.stage, self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        for part in range(self.stage.accumulate):
            loss = self._forward(part)
            if not math.isfinite(float(loss.total.detach())):
                raise SoundflowError(
                    f"stage {self.stage.name}: the loss is {float(loss.total.detach())} at step {self.step}; run the "
                    f"same command with a lower rate than {self.stage.rate:g} (--rate): it goes on from the last "
                    "checkpoint"
                )
            self._processes.backward(loss.total / self.stage.accumulate)
            self._since.add(loss)
        clip_grad_norm_(self._parameters, self.stage.clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def _forward(self, part: int) -> Loss:
        rng = np.random.default_rng([self._seed, self.step, part, self._processes.index])
        batch, heard = batched([self._make(rng) for _ in range(self.stage.batch)], self._memory)
        torch.manual_seed(int(rng.integers(2**62)))  # for what is dropped
        stage, device = self.stage, self._parameters[0].device
        with torch.autocast(device.type, torch.bfloat16, enabled=self._mixed):
            loss: Loss = self._wrapped(stage.tier, batch.to(device), heard.to(device), stage.weighting, stage.drop)
        return loss

    def _note(self, show: Callable[[Point], None] | None) -> None:
        if not self._since.losses:
            return
        point = self._since.point(self.stage.name, self.step, learning_rate(self.stage, self.step - 1))
        self._since = _Since()
        self.curve.append(point)
        if show and self._processes.first:
            show(point)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        return self._directory / self.stage.name / CHECKPOINT

    def save(self) -> None:
        """Only what learns, with the optimiser's state. By the first process. Raises NotWritten; what was saved before
        stays."""
        if not self._processes.first:
            return
        weights = {name: parameter.detach().cpu() for name, parameter in self.network.learning()}
        state = {
            "weights": weights,
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "stage": _told(self.stage),
            "seed": self._seed,
            "curve": [asdict(point) for point in self.curve],
        }
        # Through a file of Python's: torch's own error for a full disk does not say so.
        with whole.writing(self.path, RuntimeError) as partial, partial.open("wb") as file:
            torch.save(state, file)
        lines = "".join(json.dumps(asdict(point)) + "\n" for point in self.curve)
        whole.write(self.path.parent / CURVE, [lines.encode()])

    def resume(self) -> bool:
        """Go back to the last checkpoint, if there is one. Raises SoundflowError if it is of another stage or seed.

        The rate may be another one from here on: a loss that is no number wants a lower one.
        """
        if self._processes.first:
            whole.sweep(self.path.parent)
        if not self.path.is_file():
            return False
        state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        if state["stage"] != _told(self.stage) or state["seed"] != self._seed:
            raise SoundflowError(
                f"{self.path} is of a stage or a seed of other settings: name another directory, or remove it"
            )
        mine = dict(self.network.learning())
        if {name: p.shape for name, p in mine.items()} != {name: t.shape for name, t in state["weights"].items()}:
            raise SoundflowError(f"{self.path} is of a model of another shape or rank: name another directory")
        with torch.no_grad():
            for name, parameter in mine.items():
                parameter.copy_(state["weights"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.curve = [Point(**point) for point in state["curve"]]
        return True


def batched(examples: Sequence[Example], memory: MemoryConfig) -> tuple[Batch, Tensor]:
    """Examples of any lengths side by side: the sequences, and the states [B, chunks, 20, channels] float16."""
    most = max(len(example.states) for example in examples)
    heard = torch.zeros((len(examples), most, *examples[0].states.shape[1:]), dtype=torch.float16)
    for row, example in enumerate(examples):
        heard[row, : len(example.states)] = example.states
    return collate([example.layout for example in examples], memory), heard


def learning_rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then half a cosine down to nothing."""
    if step < stage.warm_up:
        return stage.rate * (step + 1) / stage.warm_up
    done = (step - stage.warm_up) / max(1, stage.steps - stage.warm_up)
    return stage.rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _groups(network: Network, decay: float) -> list[dict[str, Any]]:
    """Only matrices decay."""
    matrices = [parameter for _, parameter in network.learning() if parameter.ndim > 1]
    others = [parameter for _, parameter in network.learning() if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def _told(stage: Stage) -> str:
    """A stage in words that change with it, but for its rate."""
    return json.dumps({**asdict(stage), "rate": None}, sort_keys=True, default=str)


def _mean(numbers: Sequence[float]) -> float | None:
    return float(np.mean(numbers)) if numbers else None
