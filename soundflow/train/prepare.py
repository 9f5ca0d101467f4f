"""What a plan needs before its first step: base weights, encoded shards, the taps' statistics, a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from model_worker.catalogue import Catalogue
from model_worker.interaction.config import InteractionConfig
from model_worker.interaction.formats.gguf import llama_tokenizer
from model_worker.interaction.make import make_tokenizer
from model_worker.interaction.random_weights import RandomWeights
from soundflow.base import SMOLLM, WHISPER, Weights, base_weights, is_smollm, is_whisper, statistics
from soundflow.clips import DIGITS
from soundflow.features import Encoded, Encoder, cache, encoded
from soundflow.policy import SOUNDS
from soundflow.wake import SPOKEN

Progress = Callable[[int, int, str], None]
MARKER_TOKENS = 18  # of the token table
STATISTICS = 200  # items at most that the taps' statistics are taken from
SPREAD = 0.5  # of the ear's embeddings at the beginning


def starting(config: InteractionConfig, catalogue: Catalogue, seed: int) -> Weights:
    """A model before training. Raises CatalogueError for weights that are not on this machine."""
    if not is_whisper(config):
        tensors = {name: tensor.float() for name, tensor in RandomWeights(config, seed, torch.float32).all()}
        return Weights(config, tensors, make_tokenizer())
    language = catalogue.path(SMOLLM) if is_smollm(config) else None
    tokenizer = llama_tokenizer(language) if language else own_tokenizer(config)
    weights = base_weights(config, catalogue.path(WHISPER), language, tokenizer, seed)
    if config.ear is not None:
        generator = torch.Generator().manual_seed(seed)
        shape = weights.tensors["ear.embed_tokens.weight"].shape
        weights.tensors["ear.embed_tokens.weight"] = torch.randn(shape, generator=generator) * SPREAD
    return weights


def own_tokenizer(config: InteractionConfig) -> Tokenizer:
    """Byte-level, for a decoder that only names what it hears: its words are whole, any other text is spelt.

    It leaves room for the markers in the vocabulary.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.decoder.vocabulary - MARKER_TOKENS - 14,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    said = [sound.name for sound in SOUNDS.values() if sound.respond]
    tokenizer.train_from_iterator([*said, *DIGITS, *(f" {digit}" for digit in DIGITS), SPOKEN] * 8, trainer)
    return tokenizer


def encode(encoder: Encoder, paths: Sequence[Path], tell: Progress) -> None:
    """Features of all shards on disk; those that are there are not computed again."""
    for number, path in enumerate(paths):
        made, new = cache(encoder, path)
        tell(number + 1, len(paths), f"{made.name}{'' if new else ' (was there)'}")


def read_encoded(paths: Sequence[Path]) -> list[Encoded]:
    return [one for path in paths for one in encoded(path)]


def with_statistics(weights: Weights, data: Sequence[Encoded]) -> None:
    """Set the taps' mean and deviation from some of the training items."""
    if not weights.config.tower.taps:
        return
    step = max(1, len(data) // STATISTICS)
    mean, deviation = statistics(one.states.float() for one in data[::step])
    weights.tensors["tower.tap_mean"], weights.tensors["tower.tap_std"] = mean, deviation
