"""A checkpoint put to work: tower, tiers and memory on one device."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from subprocess import SubprocessError

import torch
from torch import Tensor

from calls.audio import CHUNK_SAMPLES
from model_worker.interaction.checkpoint import Checkpoint
from model_worker.interaction.config import DecoderConfig, InteractionConfig, MemoryConfig
from model_worker.interaction.decoder import Decoder
from model_worker.interaction.memory import Memory
from model_worker.interaction.padded import Padded
from model_worker.interaction.perception import Perception
from model_worker.interaction.serving import BEHIND, Serving
from model_worker.interaction.tier import TOGETHER, Tier
from model_worker.interaction.unheard import Unheard
from model_worker.scheduler import BATCH

log = logging.getLogger(__name__)

GPU_PASSES = 2  # tokens between two looks at what was written
CPU_READS = 450_000_000
"""Weights that a CPU reads at most to write what is due before an ear's next Chunk. Each token reads a whole decoder:
450 million in float32 take two cores about half of the 0.4 s, and a call that speaks must leave time to hear others."""
FEWEST = 2  # tokens a Chunk, 5 a second: a voice says about as many


def build(checkpoint: Checkpoint, slots: int, sizes: Sequence[int] | None = None) -> Serving:
    """Serve a checkpoint, on the device and in the type that its weights have.

    `sizes`: of batches, or else what can come: as many as the worker steps at once, or as there are slots. On a GPU all
    passes are captured here, which takes a while. Raises torch.OutOfMemoryError if the slots do not fit.
    """
    config, weight = checkpoint.config, checkpoint.decoder["embed_tokens.weight"]
    on_gpu = weight.device.type == "cuda"
    sizes = sizes or batches(min(slots, BATCH), padded=on_gpu)
    perception = Perception(config, slots + 1, weight.device, weight.dtype)
    perception.load(checkpoint.tower)

    def perceive(numbers: Tensor, pcm: Tensor) -> Tensor:
        return perception.hear(numbers[:, 0], pcm)

    if on_gpu:
        # cuDNN would make a plan for each number of tokens, in each thread: whoever opens a call would wait for one.
        torch.backends.cuda.enable_cudnn_sdp(False)
    two = bool(config.ear and config.ear_memory)
    # On a CPU more Chunks in a pass save nothing more, and others would wait for them.
    together = [size for size in sizes if size * TOGETHER <= max(sizes)] if on_gpu else []

    def tier(decoder: DecoderConfig, remembered: MemoryConfig, weights: dict[str, Tensor], ear: bool = False) -> Tier:
        network = Decoder.of(decoder, weights, features=config.ear_features if ear else None)
        memory = Memory(remembered, decoder, slots, weight.device, weight.dtype, compiled=on_gpu)
        if memory.compiled:  # before anything is captured, and not in the middle of a call
            _compile(network, memory, sizes)
        return Tier(config, network, memory, sizes, ear=ear, sleeps=(together or [1]) if two and not ear else ())

    return Serving(
        config,
        perception,
        Padded(perceive, (slots,), torch.zeros(CHUNK_SAMPLES), weight.device, sizes),
        tier(config.decoder, config.memory, checkpoint.decoder),
        tier(config.ear, config.ear_memory, checkpoint.ear, ear=True) if config.ear and config.ear_memory else None,
        Unheard(config, slots, config.memory.chunks + BEHIND, weight.device, weight.dtype) if two else None,
        slots,
        passes=GPU_PASSES if on_gpu else 1,
    )


def _compile(network: Decoder, memory: Memory, sizes: Sequence[int]) -> None:
    """Where that cannot be (torch wants a C compiler for it) the same is computed as it stands, but slower."""
    try:
        network.warm(memory, sizes)
    except (RuntimeError, OSError, SubprocessError) as error:
        if any(isinstance(one, torch.OutOfMemoryError) for one in (error, error.__cause__, error.__context__)):
            raise
        log.warning("reading what calls remember is not compiled, and so slower: %s", error)
        memory.compiled = False


def batches(largest: int, padded: bool) -> list[int]:
    """Sizes of batches of up to `largest`: each, as without graphs nothing is won by padding, or the powers of two."""
    if not padded:
        return list(range(1, largest + 1))
    return [1 << power for power in range((largest - 1).bit_length() + 1)]


def paced(checkpoint: Checkpoint, on_gpu: bool) -> InteractionConfig:
    """The checkpoint's config, on a CPU with no more words a Chunk than CPU_READS allows its decoder."""
    config = checkpoint.config
    weights = sum(tensor.numel() for tensor in checkpoint.decoder.values())
    most = config.words_a_chunk if on_gpu else max(FEWEST, CPU_READS // weights)
    return replace(config, words_a_chunk=min(config.words_a_chunk, most))
