"""A Qwen2- or Llama-shaped decoder whose tokens see what their slot remembers.

The layers are transformers' own but for attention: ours writes the keys of new tokens to the slots unrotated, and turns
the keys of a whole slot when it reads them, because the position of a kept token shrinks as others are forgotten
(docs/decisions/0009). The names of the tensors are transformers' Qwen2 names without the leading "model.".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP, Qwen2RMSNorm

from model_worker.interaction.config import DecoderConfig
from model_worker.interaction.memory import Memory, Turn, turned

ALIGNED = 16  # elements: the fast kernels want the rows of a mask to begin at multiples of it


@dataclass(frozen=True, slots=True)
class Sight:
    """What the T new tokens of each of B rows see of P places: the same for all layers of a pass. Tokens that are
    appended after them, in the same pass, make another."""

    memory: Memory
    rows: Tensor  # [B] slots
    places: Tensor  # [B, T] where the new tokens are written
    mask: Tensor  # [B, 1, group * T, P] added to the scores: 0 or minus infinity
    query_turn: Turn  # [B, 1, 1, T, head_width / 2]
    key_turn: Turn  # [B, 1, P, head_width / 2]


class Attention(nn.Module):
    """Grouped-query attention over slots."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = config.heads, config.kv_heads, config.head_width
        queries, keys = config.heads * config.head_width, config.kv_heads * config.head_width
        self.q_proj = nn.Linear(config.width, queries, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.width, keys, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.width, keys, bias=config.qkv_bias)
        self.o_proj = nn.Linear(queries, config.width, bias=False)

    def forward(self, x: Tensor, layer: int, sights: Sequence[Sight]) -> Tensor:
        """x [B, n * T, width], normalised: T tokens for each of n sights -> the same shape. The new tokens are in the
        memory afterwards."""
        new = (x.shape[0], len(sights), -1, self.kv_heads, self.head_width)
        keys, values = self.k_proj(x).view(new), self.v_proj(x).view(new)
        queries = self.q_proj(x).view(*new[:2], keys.shape[2], self.kv_heads, -1, self.head_width)
        parts = zip(queries.unbind(1), keys.unbind(1), values.unbind(1), sights, strict=True)
        seen = [self._attend(q, k, v, layer, sight) for q, k, v, sight in parts]
        out: Tensor = self.o_proj(torch.cat(seen, dim=1))
        return out

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, layer: int, sight: Sight) -> Tensor:
        """Remember the tokens of one sight, `keys` and `values` [B, T, kv_heads, head_width], and let them look: their
        `queries` [B, T, kv_heads, group, head_width] -> [B, T, heads * head_width]."""
        rows, tokens = keys.shape[:2]
        sight.memory.store(layer, sight.rows, sight.places, keys, values)
        keys, values = sight.memory.load(layer, sight.rows, sight.key_turn)
        # The heads of a group stand side by side as if they were more queries of one head: so the keys need not be
        # repeated for each of them, and the fast kernels that know no groups can be used.
        queries = turned(queries.permute(0, 2, 3, 1, 4), sight.query_turn).flatten(2, 3)
        seen = F.scaled_dot_product_attention(queries, keys, values, attn_mask=sight.mask)
        seen = seen.view(rows, self.kv_heads, -1, tokens, self.head_width).permute(0, 3, 1, 2, 4)
        return seen.reshape(rows, tokens, -1)


class Layer(nn.Module):
    """Attention and feed-forward, each behind a normalisation and beside a residual."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = Qwen2MLP(  # type: ignore[no-untyped-call]
            Qwen2Config(hidden_size=config.width, intermediate_size=config.feed_forward, hidden_act="silu")
        )
        self.input_layernorm = Qwen2RMSNorm(config.width, eps=config.norm_eps)
        self.post_attention_layernorm = Qwen2RMSNorm(config.width, eps=config.norm_eps)

    def forward(self, x: Tensor, layer: int, sights: Sequence[Sight]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), layer, sights)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Decoder(nn.Module):
    """Embeddings, layers, and heads for words and for control.

    `features`: the width of the tower's features, where they are not the decoder's own and go through a linear layer.
    """

    def __init__(self, config: DecoderConfig, features: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = Qwen2RMSNorm(config.width, eps=config.norm_eps)
        self._translates = features is not None
        if features is not None:
            self.features = nn.Linear(features, config.width)
        if not config.tied:
            self.lm_head = nn.Linear(config.width, config.vocabulary, bias=False)
        if config.control_head:
            self.control_head = nn.Linear(config.width, 2, bias=False)

    @classmethod
    def of(cls, config: DecoderConfig, weights: dict[str, Tensor], features: int | None = None) -> Decoder:
        """A decoder that holds `weights`, without a copy. Raises RuntimeError if they are not such a decoder's."""
        with torch.device("meta"):
            decoder = cls(config, features)
        decoder.load_state_dict(weights, assign=True)
        return decoder.eval().requires_grad_(False)

    def forward(self, x: Tensor, sights: Sequence[Sight]) -> Tensor:
        """Append T tokens for each of n sights to each of B slots, in one pass.

        `x` [B, n * T, width] are their embeddings. What is computed is what n passes one after the other would give,
        but weights are read once: in each layer the tokens of one sight are remembered before those of the next look.
        Returns the last token's state, [B, width].
        """
        for number, layer in enumerate(self.layers):
            x = layer(x, number, sights)
        state: Tensor = self.norm(x[:, -1])
        return state

    def look(self, memory: Memory, rows: Tensor, places: Tensor, asked: Tensor, kept: Tensor) -> Sight:
        """T new tokens take their places in each of B slots, and see from there what is in the slot now.

        `places` [B, T] are where they go, `asked` [B, T] their times, `kept` [B, T] the times they are remembered
        under: EMPTY for padding.
        """
        memory.times[rows[:, None], places] = kept
        return self._sight(memory, rows, places, asked)

    def _sight(self, memory: Memory, rows: Tensor, places: Tensor, asked: Tensor) -> Sight:
        sees, query, key = memory.see(rows, asked)
        tokens, wide = sees.shape[1:]
        group = self.config.heads // self.config.kv_heads
        shape = (len(rows), group, tokens, -(-wide // ALIGNED) * ALIGNED)
        mask = torch.zeros(shape, dtype=memory.dtype, device=sees.device)[..., :wide]
        mask.masked_fill_(~sees[:, None], float("-inf"))
        return Sight(
            memory=memory,
            # Side by side whichever tensor they are a column of, also a single one: else it is compiled once more.
            rows=rows.clone(memory_format=torch.contiguous_format),
            places=places,
            mask=mask.flatten(1, 2)[:, None],
            query_turn=self.turn(query[:, None, None], memory.dtype),
            key_turn=self.turn(key[:, None], memory.dtype),
        )

    @torch.inference_mode()
    def warm(self, memory: Memory, sizes: Iterable[int]) -> None:
        """Compile what is compiled in passes over so many rows, and in one over a single row, as a prefix is read."""
        for size in sorted({1, *sizes}):
            rows = torch.full((size,), memory.scratch, device=memory.times.device)
            first = torch.zeros(size, 1, dtype=torch.int64, device=rows.device)
            sight = self._sight(memory, rows, first, first)
            memory.load(0, sight.rows, sight.key_turn)

    def turn(self, positions: Tensor, dtype: torch.dtype) -> Turn:
        """The angles of these positions."""
        half = torch.arange(0, self.config.head_width, 2, dtype=torch.float32, device=positions.device)
        angles = positions[..., None] / self.config.rope_theta ** (half / self.config.head_width)
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def heard(self, features: Tensor) -> Tensor:
        """The tower's features [B, n, any] as embeddings [B, n, width]."""
        out: Tensor = self.features(features) if self._translates else features
        return out

    def words(self, state: Tensor) -> Tensor:
        """Logits of all tokens, [B, vocabulary] float32, of states [B, width]."""
        return F.linear(state, self.embed_tokens.weight if self.config.tied else self.lm_head.weight).float()

    def control(self, state: Tensor, silent: int, respond: int) -> Tensor:
        """P(respond), [B] float32, of states [B, width]: between the control head's two, or between two tokens."""
        logits = self.control_logits(state, silent, respond)
        return torch.sigmoid(logits[:, 1] - logits[:, 0])

    def control_logits(self, state: Tensor, silent: int, respond: int) -> Tensor:
        """Of silence and of a response, [B, 2] float32."""
        if self.config.control_head:
            weight = self.control_head.weight
        else:
            words = self.embed_tokens.weight if self.config.tied else self.lm_head.weight
            weight = torch.stack([words[silent], words[respond]])
        return F.linear(state, weight).float()
