"""The base of a compact model: what others have trained, put under our names.

    tower    Whisper-base's encoder (CTranslate2 in the catalogue)
    decoder  SmolLM2-135M (GGUF in the catalogue, dequantised), where the config has its shape

What is trained by us (adapters, heads, ear, another decoder) begins at random; the taps' statistics are neutral until
`with_statistics` has heard some audio.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from model_worker.interaction.config import COMPACT, InteractionConfig
from model_worker.interaction.formats.ctranslate2 import whisper_tower
from model_worker.interaction.formats.gguf import llama_decoder, llama_tokenizer
from model_worker.interaction.random_weights import RandomWeights

WHISPER, SMOLLM = "whisper-base", "smollm2-135m"
"""Names in the catalogue."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A whole model in float32: state dict with the names of formats/shapes.py, and its tokenizer."""

    config: InteractionConfig
    tensors: dict[str, Tensor]
    tokenizer: Tokenizer

    def part(self, name: str) -> dict[str, Tensor]:
        """The state dict of "tower", "decoder" or "ear"."""
        before = f"{name}."
        return {own.removeprefix(before): tensor for own, tensor in self.tensors.items() if own.startswith(before)}


def base_weights(
    config: InteractionConfig,
    whisper: Path,
    language: Path | None = None,
    tokenizer: Tokenizer | None = None,
    seed: int = 1,
) -> Weights:
    """A model to train: the tower from `whisper`, the decoder from `language`; the rest is random by `seed`.

    Without `language` the decoder begins at random, and `tokenizer` must be given. Raises CheckpointError for files of
    other shapes, ValueError for neither language model nor tokenizer.
    """
    tensors = {name: tensor.float() for name, tensor in RandomWeights(config, seed, torch.float32).all()}
    tensors |= {f"tower.{name}": tensor for name, tensor in whisper_tower(whisper, config.tower).items()}
    if language is not None:
        tensors |= {f"decoder.{name}": tensor for name, tensor in llama_decoder(language, config.decoder).items()}
        # Features as large as the words that the model knows (0.14 for SmolLM2); they begin as large as random ones.
        size = tensors["decoder.embed_tokens.weight"].square().mean().sqrt()
        tensors["tower.proj.weight"] *= size * config.decoder.width**0.5
        tokenizer = llama_tokenizer(language)
    if tokenizer is None:
        raise ValueError("a decoder that begins at random needs a tokenizer")
    return Weights(config, tensors, tokenizer)


def is_smollm(config: InteractionConfig) -> bool:
    """Whether the decoder has the shape of the language model in the catalogue."""
    return config.decoder.width == COMPACT.decoder.width and config.decoder.layers == COMPACT.decoder.layers


def is_whisper(config: InteractionConfig) -> bool:
    """Whether the tower has the shape of the encoder in the catalogue."""
    return config.tower.width == COMPACT.tower.width and config.tower.layers == COMPACT.tower.layers


def statistics(states: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel of the taps' states [n, 20, channels], for `tower.tap_mean` and `tap_std`.

    Whisper's channels differ in scale by a factor of 150, which an adapter learns from badly.
    """
    count, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for part in states:
        flat = part.flatten(0, 1).double()
        count += len(flat)
        total = total + flat.sum(dim=0)
        squares = squares + flat.square().sum(dim=0)
    if count < 2:
        raise ValueError("statistics need audio")
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(1e-8).sqrt()
    return mean.float(), deviation.float()
