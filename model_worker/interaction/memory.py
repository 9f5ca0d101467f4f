"""What each call remembers: slots of places for keys and values, and the time of each token that stands in one.

docs/decisions/0009 is the definition; this file is where a token goes and what a token sees. Everything here works on
tensors on the device: no call is ever looked at by the host.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType

import torch
from torch import Tensor

from model_worker.interaction.config import DecoderConfig, MemoryConfig
from model_worker.interaction.tokens import CHUNK_TOKENS

STRIDE = 4096  # times from one Chunk to the next: its tokens and the longest response to it
BLOCK = CHUNK_TOKENS + 1  # places a Chunk: its tokens, and the control token after them
EMPTY = -1  # the time of a place where nothing stands

Turn = tuple[Tensor, Tensor]  # cosines and sines of angles, [..., head_width / 2] each
Recall = Callable[[Tensor, Tensor, Tensor, Turn], tuple[Tensor, Tensor]]


class Memory:
    """Keys (not rotated) and values of `slots` calls, and one scratch slot behind them for the padding of batches.

    To the scratch slot go the rows of a batch that are nobody's, and those of a call that has written all it may: so
    what a call chose or what an earlier batch heard can stand there until it is overwritten. It is seen by rows of the
    scratch slot only, and what those give is thrown away.

    `compiled`: whether reading them is compiled, once for each size of batch, when it is first read (Decoder.warm).
    """

    def __init__(
        self,
        config: MemoryConfig,
        decoder: DecoderConfig,
        slots: int,
        device: torch.device,
        dtype: torch.dtype,
        *,
        compiled: bool = False,
    ) -> None:
        if config.chunks < 2 or not (config.prefix and config.text):
            raise ValueError("a memory has room for a prefix, for text and for at least two Chunks")
        self.config = config
        self.scratch = slots
        self.dtype = dtype
        self.compiled = compiled
        self._recalls: dict[int, Recall] = {}  # by rows
        shape = (decoder.layers, slots + 1, decoder.kv_heads, config.places, decoder.head_width)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.times = torch.full((slots + 1, config.places), EMPTY, dtype=torch.int64, device=device)
        self.times[self.scratch, 0] = 0  # so that whoever is sent to the scratch slot sees something

    # --- where a token goes -----------------------------------------------------------------------------------

    def chunk_times(self, chunk: Tensor) -> Tensor:
        """Times of a pass: of the control token of the Chunk before, then of Chunk number `chunk`, [B, 13]."""
        own = self.config.prefix + chunk[:, None] * STRIDE + torch.arange(CHUNK_TOKENS, device=chunk.device)
        return torch.cat([own[:, :1] - STRIDE + CHUNK_TOKENS, own], dim=1).clamp_min(0)

    def chunk_places(self, chunk: Tensor) -> Tensor:
        """Places of the same 13 tokens, [B, 13]."""
        own = self._block(chunk)[:, None] + torch.arange(CHUNK_TOKENS, device=chunk.device)
        return torch.cat([self._block(chunk - 1)[:, None] + CHUNK_TOKENS, own], dim=1)

    def text_times(self, chunk: Tensor, said: Tensor) -> Tensor:
        """Time of the token number `said` of the response to `chunk`; TEXT_BEGIN is number 0."""
        return self.config.prefix + chunk * STRIDE + CHUNK_TOKENS + said

    def text_places(self, count: Tensor) -> Tensor:
        """Place of a call's text token number `count`."""
        return self.config.prefix + count % self.config.text

    def forget_chunk(self, rows: Tensor, chunk: Tensor) -> None:
        """Where `chunk` comes the oldest goes as a whole, also its control token, which nothing overwrites yet."""
        self.times[rows, self._block(chunk) + CHUNK_TOKENS] = EMPTY

    def _block(self, chunk: Tensor) -> Tensor:
        return self.config.prefix + self.config.text + chunk % self.config.chunks * BLOCK

    # --- what a token sees --------------------------------------------------------------------------------------

    def see(self, rows: Tensor, asked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What tokens of the times `asked` [B, T] see of their slots.

        Returns which places they see [B, T, places], their own positions [B, T] and those of the places [B, places]:
        the number of tokens in the slot before them in time.
        """
        times = self.times[rows]
        here = times[:, None] != EMPTY
        sees = here & (times[:, None] <= asked[:, :, None])
        own = (here & (times[:, None] < asked[:, :, None])).sum(dim=2)
        order = times.argsort(dim=1)
        rank = torch.empty_like(order).scatter_(
            1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
        )
        empty = (times == EMPTY).sum(dim=1, keepdim=True)  # they are sorted to the front
        return sees, own, (rank - empty).clamp_min(0)

    # --- keys and values ----------------------------------------------------------------------------------------

    def store(self, layer: int, rows: Tensor, places: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write the `keys` and `values` [B, T, kv_heads, head_width] of new tokens to their `places` [B, T]."""
        self.keys[layer][rows[:, None], :, places] = keys
        self.values[layer][rows[:, None], :, places] = values

    def load(self, layer: int, rows: Tensor, turn: Turn) -> tuple[Tensor, Tensor]:
        """Keys, turned by `turn` [B, 1, places, head_width / 2], and values of whole slots: each
        [B, kv_heads, places, head_width]."""
        # Most of a pass's memory traffic is here.
        return self._recall(len(rows))(self.keys[layer], self.values[layer], rows, turn)

    def _recall(self, rows: int) -> Recall:
        if not self.compiled:
            return recall
        if rows not in self._recalls:
            self._recalls[rows] = compiled_recall()
        return self._recalls[rows]

    # --- slots --------------------------------------------------------------------------------------------------

    def wipe(self, slot: int) -> None:
        """Nothing of a call stays: neither its times, nor its keys and values."""
        self.times[slot] = EMPTY
        self.keys[:, slot] = 0
        self.values[:, slot] = 0

    def copy_prefix(self, slot: int, length: int) -> tuple[Tensor, Tensor] | None:
        """Keys and values of a slot's prefix, to be pasted into others; None where there is no memory for a copy: the
        slot itself is as it was, and the next one computes its own."""
        try:
            return self.keys[:, slot, :, :length].clone(), self.values[:, slot, :, :length].clone()
        except torch.OutOfMemoryError:
            return None

    def paste_prefix(self, slot: int, prefix: tuple[Tensor, Tensor]) -> None:
        """The prefix that `copy_prefix` took from another slot."""
        keys, values = prefix
        length = keys.shape[2]
        self.keys[:, slot, :, :length] = keys
        self.values[:, slot, :, :length] = values
        self.times[slot, :length] = torch.arange(length, device=self.times.device)


def recall(keys: Tensor, values: Tensor, rows: Tensor, turn: Turn) -> tuple[Tensor, Tensor]:
    """Turned keys and values of the slots `rows`."""
    return turned(keys.index_select(0, rows), turn), values.index_select(0, rows)


def compiled_recall() -> Recall:
    """`recall`, to be compiled for the shapes of its first call.

    What torch compiles it keeps with a function's code, and of one code it compiles a few shapes and then none: the
    shapes of a second tier or of another size would be computed slowly without a word. So each has a code of its own.
    `fullgraph`: where the limit is reached all the same, an error and no silence.
    """
    own = FunctionType(recall.__code__.replace(), recall.__globals__, "recall")
    compiled: Recall = torch.compile(own, fullgraph=True, dynamic=False)
    return compiled


def turned(x: Tensor, turn: Turn) -> Tensor:
    """Rotary embedding (Su et al. 2021) in Llama's order: element i and element i + half are one pair."""
    cos, sin = turn
    a, b = x.chunk(2, dim=-1)
    return torch.cat([torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(b * cos, a, sin)], dim=-1)
