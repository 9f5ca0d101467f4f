"""Log-mel frames of many Streams, a Chunk at a time.

Whisper's scale (Radford et al. 2022): windows of 25 ms every 10 ms, slaney filters, log10 of the power, cut 8 below the
loudest, (x + 4) / 4. Frame k covers the samples [160 k - 240, 160 k + 160), so that a Chunk needs the last 240 samples
before it and nothing after it (docs/decisions/0009).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from calls.audio import CHUNK_SAMPLES, SAMPLE_RATE

WINDOW = 400  # samples a frame
HOP = 160  # samples between frames
CARRIED = WINDOW - HOP  # samples of the Chunk before that the first frames of the next one need
QUIETEST = -10.0  # log10 power that digital silence is raised to
RANGE = 8.0  # below the loudest, log10


@dataclass(slots=True)
class MelState:
    """What the Mel of each Stream carries from Chunk to Chunk: one row per Stream."""

    tail: Tensor  # [slots, CARRIED] float32: the last samples heard
    loudest: Tensor  # [slots] float32: log10 power of the loudest value of any frame so far
    broken: Tensor  # [slots] int64: samples that were not numbers and were taken for zeros

    @classmethod
    def fresh(cls, slots: int, device: torch.device | str = "cpu") -> MelState:
        """Streams that have heard nothing: silence before the first sample."""
        return cls(
            tail=torch.zeros(slots, CARRIED, device=device),
            loudest=torch.full((slots,), QUIETEST, device=device),
            broken=torch.zeros(slots, dtype=torch.int64, device=device),
        )

    def reset(self, row: int) -> None:
        """Make one row fresh for another Stream; the others are not touched."""
        self.tail[row].zero_()
        self.loudest[row].fill_(QUIETEST)
        self.broken[row].zero_()


class Mel:
    """The frames of a Chunk, for a batch of Streams.

    `level` is the fixed log10 reference that the scale is cut below; None: the loudest of each Stream so far.
    """

    def __init__(self, mels: int, level: float | None = None, device: torch.device | str = "cpu") -> None:
        bins = WINDOW // 2 + 1
        bank = mel_filter_bank(bins, mels, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney")
        self._filters = torch.from_numpy(bank).to(device, torch.float32)  # [201, mels]
        self._window = torch.hann_window(WINDOW, device=device)
        self._level = None if level is None else torch.full((1, 1, 1), level, device=device)

    def hear(self, state: MelState, rows: Tensor, pcm: Tensor) -> Tensor:
        """The next Chunk's frames, unscaled: log10 power, [B, mels, 40] float32.

        `rows` [B] int64 are the Streams' rows in `state`, each once; `pcm` [B, 6400] float32 in -1..1. What is
        not a number is taken for zero and counted, what is louder than full scale is cut to it.
        """
        if pcm.shape != (rows.shape[0], CHUNK_SAMPLES):
            raise ValueError(f"{rows.shape[0]} Chunks are [{rows.shape[0]}, {CHUNK_SAMPLES}], not {list(pcm.shape)}")
        broken = ~torch.isfinite(pcm)
        state.broken.index_add_(0, rows, broken.sum(dim=1))
        pcm = pcm.masked_fill(broken, 0.0).clamp(-1.0, 1.0)
        samples = torch.cat([state.tail[rows], pcm], dim=1)
        state.tail.index_copy_(0, rows, samples[:, -CARRIED:])
        frames = samples.unfold(1, WINDOW, HOP) * self._window  # [B, 40, 400]
        power = torch.fft.rfft(frames).abs().square()
        raw: Tensor = (power @ self._filters).clamp_min(10.0**QUIETEST).log10().transpose(1, 2)
        state.loudest.index_copy_(0, rows, torch.maximum(state.loudest[rows], raw.amax(dim=(1, 2))))
        return raw

    def scale(self, state: MelState, rows: Tensor, raw: Tensor) -> Tensor:
        """Whisper's scale of frames [B, mels, n] under each Stream's level as it is now."""
        level = state.loudest[rows][:, None, None] if self._level is None else self._level
        scaled: Tensor = (torch.maximum(raw, level - RANGE) + 4.0) / 4.0
        return scaled
