"""Ears for many Streams at once: samples in, features for the decoder out. One Chunk costs one Chunk at any age."""

from __future__ import annotations

import torch
from torch import Tensor

from model_worker.interaction.config import CHUNK_FRAMES, InteractionConfig
from model_worker.interaction.mel import QUIETEST, Mel, MelState
from model_worker.interaction.tower import Tower, sinusoids


class Perception:
    """The tower with what each Stream carries from Chunk to Chunk: one row a Stream. It has no weights before `load`.

    A Stream begins after silence: context that it has not heard yet is frames of digital silence. The whole window is
    scaled by the level of the newest Chunk. The scale is computed in float32, the tower in `dtype`.
    """

    def __init__(
        self,
        config: InteractionConfig,
        slots: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        tower = config.tower
        self.dtype = dtype
        self.device = torch.device(device)
        with torch.device("meta"):  # random numbers that `load` would replace are neither made nor kept
            self.tower = Tower(tower, config.decoder.width).eval().requires_grad_(False)
        self._mel = Mel(tower.mels, tower.level, device)
        self.state = MelState.fresh(slots, device)
        self._context = torch.full((slots, tower.mels, tower.context * CHUNK_FRAMES), QUIETEST, device=device)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Take a tower's weights, without a copy of those that are on the device in its type already.

        Raises RuntimeError if they are not this tower's.
        """
        here = {name: weight.to(self.device, self.dtype) for name, weight in weights.items()}
        self.tower.load_state_dict(here, assign=True)
        self.tower.positions = sinusoids(*self.tower.positions.shape).to(self.device, self.dtype)

    @torch.inference_mode()
    def hear(self, rows: Tensor, pcm: Tensor) -> Tensor:
        """The next Chunk of some Streams: `rows` [B] int64, `pcm` [B, 6400] float32 -> features [B, 10, width].

        A Stream may stand in `rows` at most once; a row that is no Stream's, for padding, may be repeated. The host is
        not waited for.
        """
        return self.tower.features(self.states(rows, pcm))

    @torch.inference_mode()
    def states(self, rows: Tensor, pcm: Tensor) -> Tensor:
        """The same before what is trained: the tower's states [B, 20, channels]. Training keeps them on disk."""
        raw = self._mel.hear(self.state, rows, pcm)
        window = torch.cat([self._context[rows], raw], dim=2)
        self._context.index_copy_(0, rows, window[:, :, CHUNK_FRAMES:])
        return self.tower.states(self._mel.scale(self.state, rows, window).to(self.dtype))

    def reset(self, row: int) -> None:
        """A row for another Stream: no trace of the one before stays."""
        self.state.reset(row)
        self._context[row].fill_(QUIETEST)
