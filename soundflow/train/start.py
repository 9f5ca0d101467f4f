"""A trained model as the beginning of more training."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from model_worker.interaction.checkpoint import load
from model_worker.interaction.config import COMPACT, InteractionConfig
from model_worker.interaction.formats.base import Find
from model_worker.interaction.shipped import located
from soundflow.base import Weights
from soundflow.errors import SoundflowError
from soundflow.train.stages import PLANS, Plan

_FREE = ("name", "threshold", "answering", "words_a_chunk", "longest")
"""What two configs may differ in and still be of one shape: no tensor depends on it."""
_OF_WRITER = ("decoder.", "tower.adapter.", "tower.proj.")
"""Tensors that an ear does not depend on."""


def trained(model: str, find: Find) -> Weights:
    """A checkpoint's weights in float32; `model` is its directory, or the name of one that comes with offhook.

    Raises SettingsError when there is none, CheckpointError when it is damaged, CatalogueError without its base.
    """
    checkpoint = load(Path(located(model)), find=find)
    parts = {"tower": checkpoint.tower, "decoder": checkpoint.decoder, "ear": checkpoint.ear}
    tensors = {f"{part}.{name}": tensor.float() for part, own in parts.items() for name, tensor in own.items()}
    return Weights(checkpoint.config, tensors, checkpoint.tokenizer)


def fingerprint(model: str) -> str:
    """Of a checkpoint: its manifest has the sums of all its files."""
    digest = hashlib.sha256()
    for path in sorted(located(model).glob("*.json")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def with_ear(weights: Weights, ear: Weights, model: str) -> Weights:
    """These weights with the ear of `model`, and its thresholds. Raises SoundflowError if it hears otherwise."""
    mine, theirs = (_of_ear(one.config) for one in (weights, ear))
    if mine.ear is None or mine != theirs:
        different = "; ".join(differences(theirs, mine)) if mine.ear and theirs.ear else "one of them has none"
        raise SoundflowError(f"the ear of {model} does not fit this --config: {different}")
    heard = {n: t for n, t in ear.tensors.items() if not n.startswith(_OF_WRITER)}
    config = replace(weights.config, threshold=ear.config.threshold, answering=ear.config.answering)
    return replace(weights, config=config, tensors={**weights.tensors, **heard})


def _of_ear(config: InteractionConfig) -> InteractionConfig:
    """Without what an ear does not depend on."""
    return replace(COMPACT, tower=replace(config.tower, adapter=0), ear=config.ear, ear_memory=config.ear_memory)


def plan_for(config: InteractionConfig, wanted: str, model: str) -> Plan:
    """The plan `wanted`, or without one that of the model's own shape, for a model of this config.

    Raises SoundflowError, naming what differs, if it is not of that shape.
    """
    if wanted:
        if different := differences(config, PLANS[wanted].model):
            raise SoundflowError(
                f"{model} is no {wanted} model and cannot be the start of one: {'; '.join(different)}. Leave --config "
                "out, or start from another model"
            )
        return replace(PLANS[wanted], model=config)
    for plan in PLANS.values():
        if not differences(config, plan.model):
            return replace(plan, model=config)
    nearest = min(PLANS.values(), key=lambda plan: len(differences(config, plan.model)))
    raise SoundflowError(
        f"{model} has the shape of none of {', '.join(PLANS)}; nearest is {nearest.name}: "
        f"{'; '.join(differences(config, nearest.model))}"
    )


def differences(one: InteractionConfig, other: InteractionConfig) -> list[str]:
    """ "decoder.width 96, not 256" for all that decides a tensor's shape or meaning."""
    mine, theirs = (_flat(asdict(config)) for config in (one, other))
    names = sorted(mine.keys() | theirs.keys())
    return [f"{name} {mine.get(name)}, not {theirs.get(name)}" for name in names if mine.get(name) != theirs.get(name)]


def _flat(raw: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in raw.items():
        if not before and name in _FREE:
            continue
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return found
