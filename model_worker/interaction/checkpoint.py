"""Loads a checkpoint of the Audio Interaction Model, in whichever of three formats it comes.

| format | recognised by | what |
| --- | --- | --- |
| native | manifest.json | our own, see formats/native.py |
| published | model_config.yaml | the release of the paper's authors, see formats/published.py |
| omni | config.json | a Qwen2.5-Omni directory of transformers, see formats/omni.py |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from model_worker.interaction.config import InteractionConfig
from model_worker.interaction.formats import native, omni, published
from model_worker.interaction.formats.base import Find
from model_worker.interaction.formats.shapes import model_shapes
from model_worker.interaction.formats.weights import CheckpointError, Store, Translate, existing, gather

__all__ = ["Checkpoint", "CheckpointError", "load", "recognise"]
FORMATS = {native.MANIFEST: "native", published.CONFIG: "published", "config.json": "omni"}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole model, as it was stored. State dicts have the names of formats/shapes.py without their first part."""

    format: str
    config: InteractionConfig
    tower: dict[str, Tensor]
    decoder: dict[str, Tensor]
    ear: dict[str, Tensor]  # empty without one
    tokenizer: Tokenizer


def recognise(directory: Path) -> str:
    """The format of a checkpoint, by the files in its directory. Raises CheckpointError."""
    for name, form in FORMATS.items():
        if (directory / name).is_file():
            return form
    raise CheckpointError(
        f"{directory} is no checkpoint: it has none of {', '.join(FORMATS)}. Give the directory of an Audio "
        "Interaction Model or of Qwen2.5-Omni; `python -m model_worker.interaction.make DIR` makes a small random one."
    )


def load(
    directory: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    find: Find | None = None,
) -> Checkpoint:
    """All weights on `device` in `dtype`. `find` tells where the catalogue has what a small checkpoint builds on.

    Raises CheckpointError when a file or a tensor is missing, of the wrong shape, unknown or not what was written; the
    text lists all of it.
    """
    form = recognise(directory)
    config, sources = _open(form, directory, find)
    if config.tokens.highest >= config.decoder.vocabulary:
        raise CheckpointError(
            f"{directory}: the vocabulary of {config.decoder.vocabulary} has no place for the marker "
            f"{config.tokens.highest}: it is not a model of this kind."
        )
    tokenizer = read_tokenizer(directory, config)
    tensors = gather(sources, model_shapes(config), directory, device, dtype)
    tower, decoder, ear = (_part(tensors, name) for name in ("tower.", "decoder.", "ear."))
    return Checkpoint(form, config, tower, decoder, ear, tokenizer)


def read_tokenizer(directory: Path, config: InteractionConfig) -> Tokenizer:
    """The tokenizer beside the weights. Raises CheckpointError if it has words that the decoder has not."""
    [path] = existing(directory, [native.TOKENIZER])
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more specific
        raise CheckpointError(f"{path} is no tokenizer ({error}). Fetch it again.") from error
    if (words := tokenizer.get_vocab_size()) > config.decoder.vocabulary:
        raise CheckpointError(
            f"{path} has {words} words, the decoder {config.decoder.vocabulary}: they are not of one model."
        )
    return tokenizer


def _open(form: str, directory: Path, find: Find | None) -> tuple[InteractionConfig, Sequence[tuple[Store, Translate]]]:
    if form == "native":
        config = native.read_config(directory)
        return config, native.sources(directory, config, find)
    if form == "published":
        config = published.read_config(directory)
        return config, published.sources(directory, config)
    config = omni.read_config(directory)
    return config, omni.sources(directory, config)


def _part(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(part): tensor for name, tensor in tensors.items() if name.startswith(part)}
