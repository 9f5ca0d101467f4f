"""Sound for these tests: speech-like, silent, clipped, in Chunks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CHUNK = 6_400


def sound(seed: int, chunks: int) -> Tensor:
    """Tones that come and go over noise, [chunks * 6400] float32: quiet at first, louder later, once silent."""
    random = np.random.default_rng(seed)
    time = np.arange(chunks * CHUNK) / 16_000
    pitch = random.uniform(100, 2_000) * (1 + 0.3 * np.sin(2 * np.pi * random.uniform(0.3, 2) * time))
    tone = np.sin(2 * np.pi * np.cumsum(pitch) / 16_000)
    loudness = 0.01 + 0.5 * time / time[-1] * (np.sin(2 * np.pi * random.uniform(0.2, 1) * time) > 0)
    pcm = loudness * tone + 0.002 * random.standard_normal(len(time))
    pcm[2 * CHUNK + 1_000 : 3 * CHUNK + 500] = 0.0
    return torch.from_numpy(pcm.astype(np.float32))


def in_chunks(pcm: Tensor) -> list[Tensor]:
    return list(pcm.split(CHUNK))
