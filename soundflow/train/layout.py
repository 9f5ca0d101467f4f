"""A stream as one sequence of tokens, as docs/decisions/0009 orders and remembers it, and what is scored in it.

    prefix, then for each Chunk: AUDIO_BEGIN, 10 features, ASSISTANT, and KEEP_SILENCE or the response

Serving appends a Chunk a pass, and a pass overwrites the oldest Chunk. Here the whole stream is one pass, so a token is
told which pass it belongs to: it sees the Chunks that are remembered then. Its position is what `Memory.see` would say.
Responses stand whole before the next Chunk, as in the published layout; while serving still writes a long one, it has
fewer words there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_worker.interaction.config import MemoryConfig
from model_worker.interaction.tier import Markers
from model_worker.interaction.tokens import AUDIO_TOKENS, LOSS_MASK, Tokens
from soundflow.items import EITHER

Numbers = npt.NDArray[np.int64]
FEATURE = -1  # in place of an id: a feature of the tower stands here
PREFIX = -1  # in place of a Chunk's number


@dataclass(frozen=True, slots=True)
class Layout:
    """One sequence of T tokens in the order of their times. All are int64 [T].

    `ids`: FEATURE or a token. `chunk`: the Chunk that a token belongs to, or PREFIX. `passes`: the Chunk with whose
    pass it is appended. `kept`: 1 for what outlives the audio (prefix and words). `words`: the next word to be said, or
    LOSS_MASK. `control`: RESPOND or SILENT where a decision is scored, else EITHER.
    """

    ids: Numbers
    chunk: Numbers
    passes: Numbers
    kept: Numbers
    words: Numbers
    control: Numbers

    def __len__(self) -> int:
        return len(self.ids)


class _Writer:
    """Collects tokens."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, int, int, int]] = []

    def put(
        self, token: int, chunk: int, passes: int, *, kept: bool, word: int = LOSS_MASK, control: int = EITHER
    ) -> None:
        self.rows.append((token, chunk, passes, int(kept), word, control))

    def layout(self) -> Layout:
        return Layout(*np.array(self.rows, np.int64).T)


def streaming(
    markers: Markers,
    prefix: Sequence[int],
    labels: Sequence[int],
    said: Mapping[int, Sequence[int]],
    *,
    words: bool,
    scored_words: bool = True,
) -> Layout:
    """A stream of len(labels) Chunks.

    `labels`: RESPOND, SILENT or EITHER to score each decision by. `said`: Chunk -> the tokens of the response to it,
    from TEXT_BEGIN to TEXT_END; the ear (`words` False) only remembers that there was one.
    """
    out = _Writer()
    for token in prefix:
        out.put(token, PREFIX, 0, kept=True)
    for chunk, label in enumerate(labels):
        out.put(markers.audio_begin, chunk, chunk, kept=False)
        for _ in range(AUDIO_TOKENS):
            out.put(FEATURE, chunk, chunk, kept=False)
        out.put(markers.assistant, chunk, chunk, kept=False, control=int(label))
        response = said.get(chunk)
        if response is None or not words:
            # Appended with the next Chunk, when that one's pass has already forgotten the oldest.
            out.put(markers.control(response is not None), chunk, chunk + 1, kept=False)
            continue
        for token, following in zip(response, [*response[1:], LOSS_MASK], strict=True):
            out.put(token, chunk, chunk, kept=True, word=following if scored_words else LOSS_MASK)
    return out.layout()


def offline(tokens: Tokens, prefix: Sequence[int], chunks: int, response: Sequence[int]) -> Layout:
    """A finished clip and the answer to it, for the stage that teaches the format:
    prefix, AUDIO_BEGIN, all features, AUDIO_END, ASSISTANT, TEXT_BEGIN ... TEXT_END."""
    out = _Writer()
    for token in prefix:
        out.put(token, PREFIX, 0, kept=True)
    out.put(tokens.audio_begin, 0, 0, kept=False)
    for _ in range(chunks * AUDIO_TOKENS):
        out.put(FEATURE, 0, 0, kept=False)
    out.put(tokens.audio_end, 0, 0, kept=False)
    out.put(tokens.assistant, 0, 0, kept=False)
    for token, following in zip(response, [*response[1:], LOSS_MASK], strict=True):
        out.put(token, 0, 0, kept=True, word=following)
    return out.layout()


@dataclass(frozen=True, slots=True)
class Sights:
    """What the T tokens of a Layout see, and where from.

    Keys stand there twice: the `kept` ones as they are placed once their audio is forgotten (K of them, `where` in the
    sequence), and all of them at their place in the whole sequence. A token sees one of the two.
    """

    where: Numbers  # [K]
    mask: npt.NDArray[np.bool_]  # [T, K + T]: True where a key is seen
    own: Numbers  # [T] positions as serving counts them: to read the first kind of keys with
    kept: Numbers  # [K] positions of the first kind of keys


def sights(layout: Layout, memory: MemoryConfig) -> Sights:
    """Raises ValueError for more words than the ring for text holds: serving would have forgotten some."""
    is_text = (layout.kept == 1) & (layout.chunk != PREFIX)
    if is_text.sum() > memory.text and (layout.chunk.max() >= memory.chunks or is_text.sum() > memory.text):
        raise ValueError(f"{is_text.sum()} words in a stream, the memory holds {memory.text}: take a shorter crop")
    where = np.flatnonzero(layout.kept == 1)
    order = np.arange(len(layout))
    causal = order[None, :] <= order[:, None]
    forgotten = layout.chunk[None, :] <= layout.passes[:, None] - memory.chunks
    forgotten |= (layout.chunk == PREFIX)[None, :]  # always read as what was there first
    remembered = causal & ~forgotten
    old = (causal & forgotten)[:, where]
    mask = np.concatenate([old, remembered], axis=1)
    own = mask.sum(axis=1) - 1  # it sees itself
    return Sights(where, mask, own.astype(np.int64), np.arange(len(where), dtype=np.int64))
