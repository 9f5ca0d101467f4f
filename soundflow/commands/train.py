"""`offhook soundflow train --config test|small|compact|3b FOLDER OUT`"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from calls.settings import Settings
from model_worker.catalogue import Catalogue
from soundflow.commands.shared import bar, parser
from soundflow.errors import SoundflowError
from soundflow.features import Encoder
from soundflow.train.loop import Point
from soundflow.train.picture import curve_picture
from soundflow.train.prepare import encode, read_encoded, starting, with_statistics
from soundflow.train.processes import processes
from soundflow.train.run import curve, run, save
from soundflow.train.stages import PLANS
from soundflow.train.tune import tune


def main(arguments: Sequence[str], settings: Settings) -> int:
    options = parser("train", "Train on built shards. Killed, run it again: it goes on from its last checkpoint.")
    options.add_argument("folder", type=Path, help="of the shards")
    options.add_argument("out", type=Path, help="for checkpoints, curves and the trained model")
    options.add_argument("--config", default="test", choices=tuple(PLANS), help="(%(default)s)")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--steps", type=int, help="so many steps a stage instead of the configuration's")
    options.add_argument("--threads", type=int, default=0, help="on a CPU; 0: all")
    options.add_argument("--every", type=int, default=20, help="steps between two checkpoints (%(default)s)")
    given = options.parse_args(arguments)
    plan = replace(PLANS[given.config], seed=given.seed)
    if given.steps is not None:
        stages = (replace(s, steps=given.steps, warm_up=min(s.warm_up, given.steps // 4 + 1)) for s in plan.stages)
        plan = replace(plan, stages=tuple(stages))
    if given.threads:
        torch.set_num_threads(given.threads)
    # The small decoders have no room for a policy, and say so at every Instruction.
    logging.getLogger("model_worker.interaction.instruction").setLevel(logging.ERROR)
    train = sorted(given.folder.glob("train-*.shard"))
    dev = sorted(given.folder.glob("dev-*.shard"))
    if not train:
        raise SoundflowError(f"{given.folder} holds no train shards; make them: offhook soundflow build {given.folder}")
    weights = starting(plan.model, Catalogue(settings.models), plan.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tower = {name.removeprefix("tower."): t for name, t in weights.tensors.items() if name.startswith("tower.")}
    encoder = Encoder(plan.model, tower, _fast(device), device)
    with bar("encoding") as tell:
        encode(encoder, [*train, *dev], tell)
    data = read_encoded(train)
    with_statistics(weights, data)
    together = processes(int(os.environ.get("WORLD_SIZE", "1")))
    trained = run(plan, weights, data, given.out, processes=together, every=given.every, show=_show)
    threshold = plan.model.threshold
    if dev:
        threshold, events = tune(trained, read_encoded(dev))
        print(f"threshold {threshold:.2f}: balanced accuracy on dev {events.balanced:.3f}")
    save(trained, given.out / "model", threshold)
    curve_picture(curve(given.out, plan), given.out / "curves.png", plan.name)
    print(f"{given.out / 'model'}: OFFHOOK_MODEL=interaction:{given.out / 'model'}")
    return 0


def _fast(device: str) -> torch.dtype:
    """bfloat16 halves the tower's time where the machine computes in it."""
    return torch.bfloat16 if device == "cuda" or torch.cpu._is_avx512_bf16_supported() else torch.float32


def _show(point: Point) -> None:
    accuracy = "-" if point.accuracy is None else f"{point.accuracy:.3f}"
    print(f"{point.stage} {point.step}: loss {point.loss:.3f}, trigger accuracy {accuracy}", flush=True)
