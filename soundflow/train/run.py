"""A plan from its first stage to its last, and what comes of it as a checkpoint that serves."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from model_worker.interaction.config import MemoryConfig
from model_worker.interaction.formats import native
from model_worker.interaction.formats.base import Find
from model_worker.interaction.formats.difference import differences
from model_worker.interaction.formats.gguf import llama_decoder
from model_worker.interaction.tokens import LOSS_MASK
from soundflow.base import SMOLLM, WHISPER, Weights, is_smollm, is_whisper
from soundflow.errors import SoundflowError
from soundflow.features import Encoded
from soundflow.train.examples import Example, decoder_example, ear_example
from soundflow.train.loop import Point, Trainer
from soundflow.train.low_rank import merged
from soundflow.train.network import EAR, Network
from soundflow.train.processes import Processes
from soundflow.train.stages import Plan, Stage
from soundflow.whole import not_written

BESIDE = 0.7
"""How much of what a model is tuned on is what it was trained on before, so that nothing is forgotten."""
FROZEN = ("tower.conv", "tower.layers.", "tower.ln_post.")
"""Tensors that are never trained: they stay the base's."""
_DRAWS = 50  # items that are looked at for one with something to say


def run(
    plan: Plan,
    weights: Weights,
    data: Sequence[Encoded],
    directory: Path,
    *,
    beside: Sequence[Encoded] = (),
    share: float = BESIDE,
    processes: Processes | None = None,
    mixed: bool = True,
    every: int = 20,
    show: Callable[[Point], None] | None = None,
) -> Weights:
    """Train all stages, one after the other; those that are finished are not begun again.

    `data` are encoded train items; so large a `share` of what is learnt from is drawn from `beside` instead.

    Returns the trained model. Raises SoundflowError for no data, or nothing to say in it, and what Trainer does.
    """
    if not data:
        raise SoundflowError("nothing to train on: build train shards first")
    told = any(turn.respond for one in (*data, *beside) for turn in one.item.turns)
    if not told and any(stage.crop.told for stage in plan.stages):
        raise SoundflowError("no stream has a response that a writer could learn: name shards that have, --beside")
    tensors = dict(weights.tensors)
    for stage in plan.stages:
        network = Network(plan.model, (stage.tier,), plan.rank, plan.seed)
        network.load(tensors)
        trainer = Trainer(
            network,
            stage,
            memory_of(plan, stage),
            maker(plan, stage, weights, data, beside, share),
            directory,
            seed=plan.seed,
            processes=processes,
            mixed=mixed,
        )
        trainer.resume()
        trainer.run(every=every, show=show)
        tensors |= {name: tensor.detach().cpu().clone() for name, tensor in network.learning()}
    return replace(weights, tensors=merged(tensors))


def memory_of(plan: Plan, stage: Stage) -> MemoryConfig:
    memory = plan.model.ear_memory if stage.tier == EAR else plan.model.memory
    assert memory is not None  # Network has checked it
    return memory


def maker(
    plan: Plan,
    stage: Stage,
    weights: Weights,
    data: Sequence[Encoded],
    beside: Sequence[Encoded] = (),
    share: float = BESIDE,
) -> Callable[[np.random.Generator], Example]:
    """Draws examples of a stage, every item equally likely, but for the share of those beside."""
    if stage.instructed:
        data = [one for one in data if one.item.instruction] or data

    def draw(pool: Sequence[Encoded], rng: np.random.Generator) -> Example:
        one = pool[int(rng.integers(len(pool)))]
        if stage.tier == EAR:
            return ear_example(one, stage.crop, rng)
        return decoder_example(plan.model, weights.tokenizer, one, stage.crop, rng, finished=stage.finished)

    def make(rng: np.random.Generator) -> Example:
        pool = beside if beside and rng.random() < share else data
        for _ in range(_DRAWS if stage.crop.told else 1):
            example = draw(pool, rng)
            if (example.layout.words != LOSS_MASK).any():
                break
        return example

    return make


def save(
    weights: Weights,
    directory: Path,
    threshold: float,
    answering: float | None = None,
    dtype: torch.dtype = torch.float16,
    find: Find | None = None,
) -> None:
    """A checkpoint for OFFHOOK_MODEL=interaction:DIR: only what was trained; the rest is in the catalogue.

    `find` tells where the catalogue has the language model: of one that is built on it, only what differs is written.
    Raises NotWritten; what was there before stays.
    """
    config = replace(weights.config, threshold=threshold, answering=answering)
    base = {"tower": WHISPER} if is_whisper(config) else {}
    kept = {name: tensor for name, tensor in weights.tensors.items() if not (base and name.startswith(FROZEN))}
    if find and is_smollm(config):
        language = {f"decoder.{name}": t for name, t in llama_decoder(find(SMOLLM), config.decoder).items()}
        whole, kept = set(kept), differences(kept, language)
        base |= {} if whole == set(kept) else {"decoder": SMOLLM}
    tensors = ((name, _stored(name, tensor, dtype)) for name, tensor in sorted(kept.items()))
    partial = directory.with_name(f".{directory.name}.{os.getpid()}.part")
    try:
        native.save(partial, config, tensors, weights.tokenizer, base=base)
        directory.mkdir(parents=True, exist_ok=True)
        for path in sorted(partial.iterdir(), key=lambda path: path.name == native.MANIFEST):  # it comes last
            path.replace(directory / path.name)
    except (OSError, SafetensorError) as error:
        raise not_written(directory, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The statistics keep their precision: they are few, and some are far from one."""
    return tensor.to(torch.float32 if name.startswith("tower.tap_") else dtype).contiguous()


def curve(directory: Path, plan: Plan) -> list[Mapping[str, float]]:
    """All points of a run, in the order of the stages."""
    points = []
    for stage in plan.stages:
        path = directory / stage.name / "curve.jsonl"
        if path.is_file():
            points += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return points
