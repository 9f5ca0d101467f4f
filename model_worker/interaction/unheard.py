"""Features of the Chunks that a decoder which sleeps has not heard yet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model_worker.interaction.config import InteractionConfig
from model_worker.interaction.tokens import AUDIO_TOKENS


class Unheard:
    """A ring of `room` Chunks for each slot. All of it is there from the start: no call needs more after it was opened.

    Chunk k of an ear, as its Chunks were kept, stands at place k mod `room`.
    """

    def __init__(
        self, config: InteractionConfig, slots: int, room: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._room = room
        self._ring = torch.zeros(slots, room, AUDIO_TOKENS, config.features, device=device, dtype=dtype)

    def keep(self, slot: int, number: int, features: Tensor) -> None:
        """A copy of the `features` [10, any] of Chunk `number`; that of Chunk `number` - `room` is overwritten."""
        self._ring[slot, number % self._room].copy_(features)

    def of(self, chunks: Sequence[Sequence[tuple[int, int]]]) -> Tensor:
        """Of B lists of n Chunks each, as (slot, number): [B, n, 10, any]."""
        return torch.stack([torch.stack([self._ring[slot, n % self._room] for slot, n in own]) for own in chunks])

    def wipe(self, slot: int) -> None:
        """Nothing of a call stays."""
        self._ring[slot] = 0
