"""A decoder with its memory, and the two passes that it makes for a batch of calls: hear a Chunk, write a token.

    hear    13 tokens: the control token of the Chunk before, AUDIO_BEGIN, 10 features, ASSISTANT -> P(respond)
    write   one token of the response under way -> the next, the likeliest (greedy: the same audio, the same words)

A decoder that slept hears TOGETHER Chunks in a pass: the same as one by one, but its weights are read once for all.

Both take a few whole numbers a call and leave the rest to the device, so that either can be one CUDA graph. What a call
has heard and written is counted by the host (serving.py); nothing but keys, values and times is kept here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain

import torch
from torch import Tensor

from model_worker.interaction.config import EAR_TOKENS, InteractionConfig
from model_worker.interaction.decoder import Decoder, Sight
from model_worker.interaction.memory import BLOCK, EMPTY, STRIDE, Memory
from model_worker.interaction.padded import Padded
from model_worker.interaction.tokens import AUDIO_TOKENS, CHUNK_TOKENS, EMOTIONS, Tokens

PREFIXES = 16  # Instructions whose keys and values are kept
SLICE = 64  # tokens of an Instruction that are read in one pass: others wait for no more
TOGETHER = 4  # Chunks of one call that a decoder which slept hears in one pass
NOTHING = -1  # in place of a control token: there is none to append


@dataclass(frozen=True, slots=True)
class Markers:
    """The ids of a tier's own vocabulary."""

    audio_begin: int
    assistant: int
    keep_silence: int
    text_begin: int
    after_response: int  # control token of a Chunk that was responded to; NOTHING: TEXT_BEGIN is written as text

    @property
    def around(self) -> tuple[int, int]:
        """What stands before and behind a Chunk's features."""
        return self.audio_begin, self.assistant

    def control(self, respond: bool) -> int:
        """The control token of a Chunk, to be appended with the next one."""
        return self.after_response if respond else self.keep_silence

    @classmethod
    def of_decoder(cls, tokens: Tokens) -> Markers:
        return cls(tokens.audio_begin, tokens.assistant, tokens.keep_silence, tokens.text_begin, NOTHING)

    @classmethod
    def of_ear(cls) -> Markers:
        """The ear reads no words: of a response it knows that there was one."""
        begin, assistant, silence, text = map(EAR_TOKENS.index, EAR_TOKENS[:4])
        return cls(begin, assistant, silence, text, after_response=text)


class Tier:
    """The passes of one decoder over one memory, over batches of `sizes`.

    `ear`: of the small tier of a model that has two. `sleeps`: of the other one, the sizes of batches in which several
    Chunks are heard.
    """

    def __init__(
        self,
        config: InteractionConfig,
        decoder: Decoder,
        memory: Memory,
        sizes: Sequence[int],
        *,
        ear: bool = False,
        sleeps: Sequence[int] = (),
    ) -> None:
        if CHUNK_TOKENS + config.longest + 2 > STRIDE:
            raise ValueError(f"a response may have {STRIDE - CHUNK_TOKENS - 2} tokens, not {config.longest}")
        self.markers = Markers.of_ear() if ear else Markers.of_decoder(config.tokens)
        self.memory = memory
        self._config = config
        self._decoder = decoder
        self._prefixes: OrderedDict[tuple[int, ...], tuple[Tensor, Tensor]] = OrderedDict()
        weight = decoder.embed_tokens.weight
        self._reads = slice(-config.ear_features, None) if ear else slice(config.decoder.width)
        self._hear = self._hears(1, sizes)
        if sleeps:
            self._hear_several = self._hears(TOGETHER, sleeps)
        if not ear:
            tokens = config.tokens
            markers = {getattr(tokens, field.name) for field in fields(tokens)} - {tokens.text_end}
            emotions = {getattr(tokens, name) for name in EMOTIONS}
            self._forbidden = torch.stack([self._never(markers - emotions), self._never(markers)])
            idle = (memory.scratch, tokens.text_end, 0, 0, 0, 0, *[0] * config.words_a_chunk)
            self._write = Padded(self._write_pass, idle, torch.zeros(0), weight.device, sizes)

    # --- the two passes -----------------------------------------------------------------------------------------

    def hear(self, calls: Sequence[tuple[int, int, int]], features: Tensor) -> Tensor:
        """Append a Chunk to each of B calls. Each is (slot, number of the Chunk, control token of the Chunk before).

        `features` [B, 10, any]: all that the tower has for both tiers. Returns P(respond), [B] float32, on the device.
        """
        return self._hear(calls, features[:, None])

    def wake(self, calls: Sequence[Sequence[int]], features: Tensor) -> None:
        """Append n Chunks, 1 or TOGETHER, to each of B calls, for a decoder that slept.

        A call is (slot, number of its first Chunk, control token of the Chunk before each), `features` [B, n, 10, any].
        """
        hear = self._hear if features.shape[1] == 1 else self._hear_several
        hear(calls, features)

    @property
    def wakes(self) -> int:
        """Chunks that are heard in one `wake` at most."""
        return self._hear_several.largest * TOGETHER

    def _hears(self, chunks: int, sizes: Sequence[int]) -> Padded:
        weight = self._decoder.embed_tokens.weight
        features = torch.zeros(chunks, AUDIO_TOKENS, self._config.features, dtype=weight.dtype)
        idle = (self.memory.scratch, 0, *[NOTHING] * chunks)
        return Padded(self._hear_pass, idle, features, weight.device, sizes)

    def _hear_pass(self, numbers: Tensor, features: Tensor) -> Tensor:
        rows, chunk = numbers[:, 0], numbers[:, 1]
        xs, sights = [], []
        for n, own in enumerate(features.unbind(1)):
            xs.append(self._embedded(numbers[:, 2 + n], own))
            sights.append(self._appended(rows, chunk + n, numbers[:, 2 + n]))
        state = self._decoder(torch.cat(xs, dim=1), sights)
        return self._decoder.control(state, self.markers.keep_silence, self.markers.text_begin)

    def _embedded(self, before: Tensor, features: Tensor) -> Tensor:
        """A Chunk behind the control token of the one before, [B, 13, width]."""
        embed = self._decoder.embed_tokens
        begin, assistant = (embed.weight[marker].expand(len(before), 1, -1) for marker in self.markers.around)
        heard = self._decoder.heard(features[:, :, self._reads])
        return torch.cat([embed(before.clamp_min(0))[:, None], begin, heard, assistant], dim=1)

    def _appended(self, rows: Tensor, chunk: Tensor, before: Tensor) -> Sight:
        """The same tokens in their places."""
        memory = self.memory
        times = memory.chunk_times(chunk)
        nothing = (before == NOTHING)[:, None] & (torch.arange(BLOCK, device=rows.device) == 0)
        memory.forget_chunk(rows, chunk)
        return self._decoder.look(memory, rows, memory.chunk_places(chunk), times, times.masked_fill(nothing, EMPTY))

    def write(self, calls: Sequence[tuple[int, int, int, int, int, int]], passes: int) -> Tensor:
        """Write up to `passes` tokens for each of B calls, and choose as many.

        A call is (slot, token to write, text tokens written by the call so far, number of the Chunk that is responded
        to, tokens written of this response, tokens it may write now). Returns the chosen tokens [B, passes], on the
        device; those after a call's last written one mean nothing. A written TEXT_END is the last.
        """
        return self._write([(*call, *[0] * self._config.words_a_chunk) for call in calls], repeat=passes)[:, -passes:]

    def _write_pass(self, numbers: Tensor, _: Tensor) -> Tensor:
        slot, token, count, chunk, said, quota = numbers[:, :6].unbind(1)
        memory, end = self.memory, self._config.tokens.text_end
        rows = torch.where(quota > 0, slot, memory.scratch)
        times = memory.text_times(chunk, said)[:, None]
        x = self._decoder.embed_tokens(token)[:, None]
        state = self._decoder(x, [self._decoder.look(memory, rows, memory.text_places(count)[:, None], times, times)])
        # An emotion may only stand first, other markers nowhere.
        logits = self._decoder.words(state) + self._forbidden[said.clamp_max(1)]
        chosen = torch.where(said >= self._config.longest, end, logits.argmax(dim=1))
        left = torch.where(token == end, 0, quota - 1).clamp_min(0)
        history = torch.cat([numbers[:, 7:], chosen[:, None]], dim=1)
        numbers[:, :6] = torch.stack([slot, chosen, count + 1, chunk, said + 1, left], dim=1)
        numbers[:, 6:] = history
        return history

    def _never(self, ids: set[int]) -> Tensor:
        """Added to the logits of all tokens, so that those of `ids` are not chosen."""
        weight = self._decoder.embed_tokens.weight
        never = torch.zeros(weight.shape[0], device=weight.device)
        never[sorted(ids)] = float("-inf")
        return never

    # --- calls come and go --------------------------------------------------------------------------------------

    @torch.inference_mode()
    def open(self, slot: int, prefix: Sequence[int], said: Sequence[Sequence[int]] = ()) -> None:
        """Fill an empty slot: the Instruction's tokens, computed once and kept, and responses of an earlier worker.

        Each response of `said` is taken for one to a Chunk of its own, from number 0 on, whose audio is forgotten.
        Raises ValueError for what the slot cannot hold.
        """
        for _ in self.opening(slot, prefix, said):
            pass

    @torch.inference_mode()
    def opening(self, slot: int, prefix: Sequence[int], said: Sequence[Sequence[int]] = ()) -> Iterator[None]:
        """The same in slices: it yields between two, and other slots may be worked on meanwhile."""
        room = self.memory.config
        if not 0 < len(prefix) <= room.prefix or sum(map(len, said)) > room.text:
            raise ValueError(
                f"an Instruction has 1 to {room.prefix} tokens and what was said up to {room.text}, "
                f"not {len(prefix)} and {sum(map(len, said))}"
            )
        key = tuple(prefix)
        if key in self._prefixes:
            self._prefixes.move_to_end(key)
            self.memory.paste_prefix(slot, self._prefixes[key])
        else:
            yield from self._slices(slot, prefix, range(len(prefix)), range(len(prefix)))
            self._keep(slot, key)
        if said:
            yield
            tokens = list(chain.from_iterable(said))
            times = [
                room.prefix + c * STRIDE + CHUNK_TOKENS + n for c, words in enumerate(said) for n in range(len(words))
            ]
            yield from self._slices(slot, tokens, range(room.prefix, room.prefix + len(tokens)), times)

    @torch.inference_mode()
    def prepare(self, prefix: Sequence[int]) -> Generator[None]:
        """Compute an Instruction ahead, without a slot; yields between two slices. One at a time.

        It is read in the scratch slot: what padding writes there is later in time than any prefix, so that the prefix
        does not see it, and padding never writes to the places of a prefix.
        """
        key = tuple(prefix)
        if not 0 < len(key) <= self.memory.config.prefix or key in self._prefixes:
            return
        scratch = self.memory.scratch
        try:
            self._clear_scratch()  # of one that was given up half-way
            yield from self._slices(scratch, prefix, range(len(key)), range(len(key)))
            self._keep(scratch, key)
        finally:
            self._clear_scratch()

    def _clear_scratch(self) -> None:
        """One token stands there, so that whoever is sent there sees something."""
        self.memory.wipe(self.memory.scratch)
        self.memory.times[self.memory.scratch, 0] = 0

    def _keep(self, slot: int, key: tuple[int, ...]) -> None:
        """A slot's prefix is copied from now on. Two that were read at the same time are the same."""
        if copy := self.memory.copy_prefix(slot, len(key)):
            self._prefixes[key] = copy
        if len(self._prefixes) > PREFIXES:
            self._prefixes.popitem(last=False)

    def close(self, slot: int) -> None:
        """Empty a slot."""
        self.memory.wipe(slot)

    def _slices(self, slot: int, tokens: Sequence[int], places: Sequence[int], times: Sequence[int]) -> Iterator[None]:
        """Append many tokens to one slot. No token sees a later one: slices give what one pass would."""
        for start in range(0, len(tokens), SLICE):
            if start:
                yield
            part = slice(start, start + SLICE)
            self._read(slot, tokens[part], places[part], times[part])

    def _read(self, slot: int, tokens: Sequence[int], places: Sequence[int], times: Sequence[int]) -> None:
        """Append tokens to one slot in one pass."""
        device = self._decoder.embed_tokens.weight.device
        ids, where, when = (torch.tensor([list(row)], device=device) for row in (tokens, places, times))
        rows = torch.tensor([slot], device=device)
        self._decoder(self._decoder.embed_tokens(ids), [self._decoder.look(self.memory, rows, where, when, when)])
