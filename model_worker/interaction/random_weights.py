"""Random weights for checkpoints that only have to run: the same for the same seed, whatever the format."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from model_worker.interaction.config import InteractionConfig
from model_worker.interaction.formats.shapes import Shapes, model_shapes

INTO_RESIDUAL = ("o_proj.weight", "down_proj.weight", "out_proj.weight", "fc2.weight")


@dataclass(frozen=True, slots=True)
class RandomWeights:
    """Every tensor of a model by its name, made when it is asked for.

    Spread so that states keep about the size 1 through all layers and logits have a deviation of about 1.
    """

    config: InteractionConfig
    seed: int
    dtype: torch.dtype = torch.bfloat16

    @property
    def shapes(self) -> Shapes:
        """The names and shapes of all of them."""
        return model_shapes(self.config)

    def all(self) -> Iterator[tuple[str, Tensor]]:
        """One after the other."""
        return ((name, self.make(name, shape)) for name, shape in self.shapes.items())

    def make(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """One tensor. Its numbers depend on the seed and on its name alone."""
        if name.endswith(("tap_mean", "tap_std")):
            return torch.full(shape, float(name.endswith("tap_std")), dtype=self.dtype)
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {name}".encode()))
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 1:  # a normalisation's weight, or a bias
            noise = 1.0 + 0.1 * noise if name.endswith(".weight") else 0.02 * noise
        else:
            noise *= self._deviation(name, shape)
        return noise.to(self.dtype)

    def _deviation(self, name: str, shape: tuple[int, ...]) -> float:
        deviation = 1.0 / math.sqrt(math.prod(shape[1:]))
        if name == "tower.proj.weight":
            # Features as large as the decoder's embeddings, which are 1 / sqrt(width).
            return deviation / math.sqrt(shape[0])
        if name.endswith(INTO_RESIDUAL):
            return deviation / math.sqrt(2 * self._layers(name))
        return deviation

    def _layers(self, name: str) -> int:
        if name.startswith("tower."):
            return self.config.tower.layers
        ear = self.config.ear
        return ear.layers if ear and name.startswith("ear.") else self.config.decoder.layers
