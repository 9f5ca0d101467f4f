"""What the frozen tower says of each Chunk, computed once and kept on disk beside the shards.

The tower costs 12 to 30 ms a Chunk and thread; all that is trained on a small machine comes after it. One file of
features for one shard: states [Chunks of all items, 20, channels] before they are normalised, in the shard's order.
A file is written beside its place and renamed, and says which tower and which shard it is of: so a run that was
killed goes on where it was, and another tower or a shard that was built again is computed again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from calls.audio import CHUNK_SAMPLES
from model_worker.interaction.config import InteractionConfig
from model_worker.interaction.perception import Perception
from soundflow.items import Item
from soundflow.shards import Shard, verify
from soundflow.whole import writing

log = logging.getLogger(__name__)

SUFFIX = ".features"
TRAINED = ("adapter.", "proj.", "ear.", "tap_mean", "tap_std")
"""The tower's tensors that the states do not depend on."""


def fast(device: torch.device | str = "cpu") -> torch.dtype:
    """The tower's type: bfloat16 halves its time where the machine computes in it."""
    known = torch.device(device).type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if known else torch.float32


class Encoder:
    """The frozen part of a tower over whole items."""

    def __init__(
        self,
        config: InteractionConfig,
        tower: Mapping[str, Tensor],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        together: int = 32,
    ) -> None:
        """`tower`: its state dict. `together`: items that are encoded side by side."""
        self._perception = Perception(config, together, device, dtype)
        self._perception.load(dict(tower))
        self._together = together
        self._device = device
        self.fingerprint = _fingerprint(config, tower, dtype)

    def states(self, items: Sequence[Item]) -> list[Tensor]:
        """Of each item [chunks, 20, channels] float16, on the CPU."""
        out: list[Tensor] = []
        for start in range(0, len(items), self._together):
            out += self._side_by_side(items[start : start + self._together])
        return out

    def _side_by_side(self, items: Sequence[Item]) -> list[Tensor]:
        made: list[list[Tensor]] = [[] for _ in items]
        pcm = [torch.from_numpy(item.audio.astype(np.float32) / np.float32(32768)) for item in items]
        for row in range(len(items)):
            self._perception.reset(row)
        for chunk in range(max(item.chunks for item in items)):
            here = [row for row, item in enumerate(items) if chunk < item.chunks]
            begin = chunk * CHUNK_SAMPLES
            part = torch.stack([pcm[row][begin : begin + CHUNK_SAMPLES] for row in here]).to(self._device)
            states = self._perception.states(torch.tensor(here, device=self._device), part).half().cpu()
            for row, own in zip(here, states, strict=True):
                made[row].append(own)
        return [torch.stack(chunks) for chunks in made]


@dataclass(frozen=True, slots=True)
class Encoded:
    """An item and its states [chunks, 20, channels] float16, which may lie on disk."""

    item: Item
    states: Tensor


def cache(encoder: Encoder, shard: Path, *, force: bool = False) -> tuple[Path, bool]:
    """Make a shard's features be on disk; returns their file, and whether it had to be made. Raises NotWritten."""
    path = shard.with_suffix(SUFFIX)
    told = {"tower": encoder.fingerprint, "shard": verify(shard)}
    if not force and _told(path) == told:
        return path, False
    states = torch.cat(encoder.states(list(Shard(shard))))
    with writing(path, SafetensorError) as partial:
        save_file({"states": states}, partial, metadata=told)
    return path, True


def encoded(shard: Path) -> Iterator[Encoded]:
    """The items of a shard with their states, mapped from its file of features."""
    with safe_open(shard.with_suffix(SUFFIX), framework="pt") as file:
        states = file.get_tensor("states")
    first = 0
    for item in Shard(shard):
        yield Encoded(item, states[first : first + item.chunks])
        first += item.chunks


def _told(path: Path) -> dict[str, str] | None:
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return None


def _fingerprint(config: InteractionConfig, tower: Mapping[str, Tensor], dtype: torch.dtype) -> str:
    digest = hashlib.sha256(f"{config.tower.context} {config.tower.level} {config.tower.taps} {dtype}".encode())
    for name in sorted(tower):
        if not name.startswith(TRAINED):
            digest.update(name.encode())
            digest.update(tower[name].detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
