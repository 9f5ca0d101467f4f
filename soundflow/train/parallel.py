"""A decoder over whole sequences at once, with gradients: the modules that serve, and what they would see in serving.

tests/soundflow/test_parallel.py holds it against `Tier.hear`, Chunk by Chunk, beyond the age at which a call forgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model_worker.interaction.config import MemoryConfig
from model_worker.interaction.decoder import Attention, Decoder, Layer
from model_worker.interaction.memory import Turn, turned
from model_worker.interaction.tokens import LOSS_MASK
from soundflow.items import EITHER
from soundflow.train.layout import FEATURE, Layout, sights


@dataclass(frozen=True, slots=True)
class Batch:
    """B Layouts padded to T tokens and K kept keys. Whole numbers are int64."""

    ids: Tensor  # [B, T]; 0 in place of features and padding
    features: Tensor  # [B, T]: which feature stands there, counted through its stream, or -1
    where: Tensor  # [B, K]
    mask: Tensor  # [B, T, K + T] bool
    own: Tensor  # [B, T]
    kept: Tensor  # [B, K]
    words: Tensor  # [B, T]: LOSS_MASK where nothing is scored
    control: Tensor  # [B, T]: EITHER where nothing is scored

    def to(self, device: torch.device | str) -> Batch:
        return Batch(*(getattr(self, name).to(device) for name in self.__slots__))


def collate(layouts: Sequence[Layout], memory: MemoryConfig) -> Batch:
    """Padding comes last and sees only itself; nothing sees it."""
    seen = [sights(layout, memory) for layout in layouts]
    length = max(map(len, layouts))
    most = max(len(sight.where) for sight in seen)
    shape = (len(layouts), length)
    ids, own = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    features = np.full(shape, -1, np.int64)
    words, control = np.full(shape, LOSS_MASK, np.int64), np.full(shape, EITHER, np.int64)
    where, kept = np.zeros((len(layouts), most), np.int64), np.zeros((len(layouts), most), np.int64)
    mask = np.zeros((*shape, most + length), np.bool_)
    mask[:, :, most:] = np.eye(length, dtype=np.bool_)
    for row, (layout, sight) in enumerate(zip(layouts, seen, strict=True)):
        size, keys = len(layout), len(sight.where)
        audio = layout.ids == FEATURE
        ids[row, :size] = np.where(audio, 0, layout.ids)
        features[row, :size][audio] = np.arange(audio.sum())
        own[row, :size], words[row, :size], control[row, :size] = sight.own, layout.words, layout.control
        where[row, :keys], kept[row, :keys] = sight.where, sight.kept
        mask[row, :size, :keys] = sight.mask[:, :keys]
        mask[row, :size, most : most + size] = sight.mask[:, keys:]
    arrays = (ids, features, where, mask, own, kept, words, control)
    return Batch(*(torch.from_numpy(array) for array in arrays))


def states(decoder: Decoder, batch: Batch, features: Tensor) -> Tensor:
    """All tokens' states, [B, T, width]. `features` [B, any, any]: what the tower says, Chunk after Chunk."""
    heard = decoder.heard(features)
    picked = heard.gather(1, batch.features.clamp_min(0)[:, :, None].expand(-1, -1, heard.shape[2]))
    words = decoder.embed_tokens(batch.ids)
    x = torch.where(batch.features[:, :, None] >= 0, picked.to(words.dtype), words)
    length = x.shape[1]
    order = torch.arange(length, device=x.device)[None]
    turns = [decoder.turn(positions, torch.float32) for positions in (batch.own, batch.kept, order)]
    bias = torch.zeros(batch.mask.shape, dtype=x.dtype, device=x.device).masked_fill_(~batch.mask, float("-inf"))
    for layer in decoder.layers:
        assert isinstance(layer, Layer)
        x = x + _attend(layer.self_attn, layer.input_layernorm(x), batch.where, bias, turns)
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    out: Tensor = decoder.norm(x)
    return out


def _attend(attention: Attention, x: Tensor, where: Tensor, bias: Tensor, turns: Sequence[Turn]) -> Tensor:
    """As decoder.Attention, for keys that stand there twice (layout.Sights)."""
    own, kept, order = ((cos[:, None].to(x.dtype), sin[:, None].to(x.dtype)) for cos, sin in turns)
    rows, length, _ = x.shape
    heads, kv, width = attention.heads, attention.kv_heads, attention.head_width
    queries = attention.q_proj(x).view(rows, length, heads, width).transpose(1, 2)
    keys = attention.k_proj(x).view(rows, length, kv, width).transpose(1, 2)
    values = attention.v_proj(x).view(rows, length, kv, width).transpose(1, 2)
    at = where[:, None, :, None].expand(-1, kv, -1, width)
    old_keys, old_values = keys.gather(2, at), values.gather(2, at)
    group = heads // kv
    old = turned(queries, own) @ turned(old_keys, kept).repeat_interleave(group, 1).transpose(2, 3)
    new = turned(queries, order) @ turned(keys, order).repeat_interleave(group, 1).transpose(2, 3)
    scores = torch.cat([old, new], dim=3) * width**-0.5 + bias[:, None]
    weights = scores.softmax(dim=3)
    seen = weights.to(values.dtype) @ torch.cat([old_values, values], dim=2).repeat_interleave(group, 1)
    out: Tensor = attention.o_proj(seen.transpose(1, 2).reshape(rows, length, heads * width))
    return out
