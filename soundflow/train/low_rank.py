"""A language model that learns little: beside each matrix the product of two narrow ones (LoRA, arXiv 2106.09685), and
the embeddings of the markers, which it had never seen.

The rest of it stays what the catalogue has, so what is trained of 135 million weights fits into ten megabytes
(model_worker/interaction/formats/difference.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_worker.interaction.config import InteractionConfig
from model_worker.interaction.decoder import Decoder
from model_worker.interaction.formats.difference import DOWN, MARKERS, UP


class LowRank(nn.Linear):
    """A linear layer, and `up` [out, rank] times `down` [rank, in] on top of it. It begins as what it was."""

    def __init__(self, layer: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None)
        self.weight, self.bias = layer.weight, layer.bias
        spread = layer.in_features**-0.5
        self.down = nn.Parameter(torch.randn(rank, layer.in_features, generator=generator) * spread)
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + F.linear(F.linear(x, self.down), self.up)


class Marked(nn.Module):
    """Embeddings [words + markers, width] of which the markers are a tensor of their own."""

    def __init__(self, embedding: nn.Embedding, markers: int) -> None:
        super().__init__()
        self.words = nn.Parameter(embedding.weight.detach()[:-markers].clone())
        self.markers = nn.Parameter(embedding.weight.detach()[-markers:].clone())

    @property
    def weight(self) -> Tensor:
        return torch.cat([self.words, self.markers])

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight)


def lower(decoder: Decoder, config: InteractionConfig, rank: int, seed: int) -> None:
    """Let every linear layer of a decoder, and its markers, learn beside what they are."""
    generator = torch.Generator().manual_seed(seed)
    for module in list(decoder.layers.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, LowRank(child, rank, generator))
    decoder.add_module("embed_tokens", Marked(decoder.embed_tokens, marker_rows(config)))


def marker_rows(config: InteractionConfig) -> int:
    """How many embeddings there are from the first marker on."""
    return config.decoder.vocabulary - config.tokens.lowest


def lowered(tensors: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A whole model's tensors, with or without what was learnt beside them, for a network that was lowered.

    `now` is what the network holds: what was not learnt yet stays as it began.
    """
    out = dict(tensors)
    for name, tensor in now.items():
        if name.endswith(MARKERS):
            layer = name.removesuffix(MARKERS)
            whole = out.pop(f"{layer}.weight")
            out[f"{layer}.words"] = whole[: -len(tensor)]
            out.setdefault(name, whole[-len(tensor) :])
        elif name.endswith((UP, DOWN)):
            out.setdefault(name, tensor)
    return out


def merged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model with what it learnt beside its tensors put into them: a state dict as serving knows it."""
    out = {name: tensor for name, tensor in tensors.items() if not name.endswith((UP, DOWN, MARKERS))}
    for name, tensor in tensors.items():
        if name.endswith(UP):
            layer = name.removesuffix(UP)
            out[f"{layer}.weight"] = out[f"{layer}.weight"] + tensor @ tensors[f"{layer}{DOWN}"]
        elif name.endswith(MARKERS):
            layer = name.removesuffix(MARKERS)
            out[f"{layer}.weight"] = torch.cat([out[f"{layer}.weight"][: -len(tensor)], tensor])
    return out
