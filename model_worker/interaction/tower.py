"""The audio tower: a Whisper-shaped encoder over a window of Chunks, of which the newest one's features leave.

Names of tensors are those of transformers' Qwen2_5OmniAudioEncoder, so that its weights load as they are. Told a window
of one Chunk (`context` 0) it computes what that class computes for a Chunk of 40 frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_worker.interaction.config import CHUNK_FRAMES, TowerConfig
from model_worker.interaction.tokens import AUDIO_TOKENS

CHUNK_STATES = CHUNK_FRAMES // 2  # the second convolution has a stride of 2
LONGEST_PERIOD = 10_000.0  # of the sinusoidal positions


class Attention(nn.Module):
    """Every state of the window sees every other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, newest: int) -> Tensor:
        """[B, T, width] -> the last `newest` states' outputs, [B, newest, width]."""
        q, k, v = (self._split(y) for y in (self.q_proj(x[:, -newest:]), self.k_proj(x), self.v_proj(x)))
        y = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out_proj(y.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        return x.view(batch, length, self.heads, width // self.heads).transpose(1, 2)


class TowerLayer(nn.Module):
    """Attention and a feed-forward, each normalised before and added after."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config.width, config.heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.width)
        self.fc1 = nn.Linear(config.width, config.feed_forward)
        self.fc2 = nn.Linear(config.feed_forward, config.width)
        self.final_layer_norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, newest: int) -> Tensor:
        """[B, T, width] -> [B, newest, width]."""
        y = x[:, -newest:] + self.self_attn(self.self_attn_layer_norm(x), newest)
        out: Tensor = y + self.fc2(F.gelu(self.fc1(self.final_layer_norm(y))))
        return out


class Tower(nn.Module):
    """Features of the newest Chunk of a window, as wide as the decoder's embeddings."""

    positions: Tensor
    tap_mean: Tensor
    tap_std: Tensor

    def __init__(self, config: TowerConfig, out: int) -> None:
        """Raises ValueError for a config that names a layer or a join that is not there."""
        super().__init__()
        if config.join not in ("mean", "stack"):
            raise ValueError(f'join is "mean" or "stack", not {config.join!r}')
        if any(not 1 <= tap <= config.layers for tap in config.taps):
            raise ValueError(f"taps {config.taps} are not all among the layers 1 to {config.layers}")
        self.config = config
        width = config.width
        self.conv1 = nn.Conv1d(config.mels, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.register_buffer("positions", sinusoids(self.window // 2, width), persistent=False)
        self.layers = nn.ModuleList(TowerLayer(config) for _ in range(config.layers))
        joined = width * max(1, len(config.taps))
        if config.taps:
            self.register_buffer("tap_mean", torch.zeros(joined))
            self.register_buffer("tap_std", torch.ones(joined))
        else:
            self.ln_post = nn.LayerNorm(width)
        if config.join == "stack":
            joined *= 2
        if config.adapter:
            self.adapter = nn.Linear(joined, config.adapter)
        self.proj = nn.Linear(config.adapter or joined, out)
        if config.ear:
            self.ear = nn.Linear(joined, config.ear)

    @property
    def window(self) -> int:
        """Mel frames that `forward` wants: of the newest Chunk and its context."""
        return (self.config.context + 1) * CHUNK_FRAMES

    def forward(self, frames: Tensor) -> Tensor:
        """Scaled mel frames [B, mels, window] -> features of the newest Chunk, [B, 10, out]; with an `ear` of its own
        [B, 10, out + ear]: the decoder's, then the ear's."""
        return self.features(self.states(frames))

    def states(self, frames: Tensor) -> Tensor:
        """The newest Chunk's 20 states, [B, 20, channels]: after the last layer, or of all taps side by side."""
        x = F.gelu(self.conv1(frames))
        x = F.gelu(self.conv2(x)).transpose(1, 2) + self.positions
        taps = []
        for number, layer in enumerate(self.layers, 1):
            # Nothing reads the older states of the last layer, so they are not computed.
            x = layer(x, CHUNK_STATES if number == len(self.layers) else x.shape[1])
            if number in self.config.taps:
                taps.append(x[:, -CHUNK_STATES:])
        return torch.cat(taps, dim=2) if taps else x

    def features(self, states: Tensor) -> Tensor:
        """What `forward` returns, of such states: the part that is trained here."""
        joined = self.joined(states)
        hidden = F.gelu(self.adapter(joined)) if self.config.adapter else joined
        features: Tensor = self.proj(hidden)
        return torch.cat([features, self.ear_features(joined)], dim=2) if self.config.ear else features

    def joined(self, states: Tensor) -> Tensor:
        """Two and two neighbouring states [B, 20, channels], normalised -> [B, 10, any]."""
        pairs = states.reshape(states.shape[0], AUDIO_TOKENS, 2, states.shape[2])
        # A mean is taken before the normalisation, as transformers' encoder does.
        mean = self.config.join == "mean"
        return self._normed(pairs.mean(dim=2)) if mean else self._normed(pairs).flatten(2)

    def ear_features(self, joined: Tensor) -> Tensor:
        """The ear's own features, [B, 10, ear]."""
        return F.gelu(self.ear(joined))

    def _normed(self, x: Tensor) -> Tensor:
        if self.config.taps:
            return (x - self.tap_mean) / self.tap_std
        normed: Tensor = self.ln_post(x)
        return normed


def sinusoids(length: int, width: int) -> Tensor:
    """Whisper's positions, [length, width] float32: sines in the first half of the channels, cosines in the second."""
    half = width // 2
    rates = LONGEST_PERIOD ** (-torch.arange(half, dtype=torch.float32) / (half - 1))
    angles = torch.arange(length, dtype=torch.float32)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
