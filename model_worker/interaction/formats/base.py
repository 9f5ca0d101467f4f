"""What a small checkpoint leaves out: the parts that others have trained, read from where the catalogue has them.

A manifest may say `"base": {"tower": "whisper-base", "decoder": "smollm2-135m"}`: names in the catalogue. What the
checkpoint has itself is taken from it, the rest of that part from the base; some of it may be what differs
(difference.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from model_worker.interaction.config import InteractionConfig
from model_worker.interaction.formats.ctranslate2 import whisper_tower
from model_worker.interaction.formats.difference import restored
from model_worker.interaction.formats.gguf import llama_decoder
from model_worker.interaction.formats.shapes import Shapes
from model_worker.interaction.formats.weights import CheckpointError, Store

Find = Callable[[str], Path]
"""Name in the catalogue -> directory. Raises CatalogueError."""


class Held:
    """A weights.Store of tensors in memory."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    @property
    def shapes(self) -> Shapes:
        return {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        return self._tensors[name]


def base_store(base: Mapping[str, Any], config: InteractionConfig, own: Store, find: Find | None, where: Path) -> Held:
    """The tensors of the named bases that are not in `own`, with the differences that are.

    Raises CheckpointError for a part that has no base, for a difference that does not fit, or when nobody knows where
    bases are.
    """
    tensors: dict[str, Tensor] = {}
    for part, name in base.items():
        if part not in ("tower", "decoder"):
            raise CheckpointError(f"{where}: only a tower and a decoder have a base, not {part!r}.")
        if find is None:
            raise CheckpointError(f"{where} builds on {name!r} of the catalogue, which is not at hand here.")
        directory = find(str(name))
        read = whisper_tower(directory, config.tower) if part == "tower" else llama_decoder(directory, config.decoder)
        tensors |= {f"{part}.{key}": tensor for key, tensor in read.items()}
    return Held({name: tensor for name, tensor in restored(tensors, own).items() if name not in own.shapes})
