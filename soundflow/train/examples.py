"""From encoded items to what one step learns from: a crop, a mode, the moment of each response, targets.

Crops begin anywhere, so no position is a clock; only where words depend on what was heard long before do they begin as
early as they can. An event that is under way where a crop begins is not scored: half of it says nothing. Of an event
that may be told of before it ends, the moment of the response is drawn anew each time; up to it nothing is scored,
after it silence is right. So the model learns "not yet told, and it goes on", and tells once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer
from torch import Tensor

from calls.model import Instruction, Mode
from model_worker.interaction.config import EAR_TOKENS, InteractionConfig
from model_worker.interaction.instruction import prefix_of, words_of
from model_worker.interaction.tier import Markers
from soundflow.features import Encoded
from soundflow.items import EITHER, RESPOND, Item, Turn
from soundflow.tasks import TASKS
from soundflow.train.layout import Layout, offline, streaming
from soundflow.wake import in_mode

EARLIEST, LATEST = 2, 9  # Chunks after an event's first at which an early response is practised
WAKE = "wake"  # items that say what is right in every mode


@dataclass(frozen=True, slots=True)
class Example:
    """A sequence and the tower's states of its Chunks, [chunks, 20, channels]."""

    layout: Layout
    states: Tensor


@dataclass(frozen=True, slots=True)
class Crop:
    """How examples are cut."""

    chunks: int  # of a crop at most
    modes: tuple[Mode, ...] = (Mode.ANSWER, Mode.ASSIST, Mode.TRANSCRIBE)
    shares: tuple[float, ...] = (0.4, 0.4, 0.2)
    told: bool = False  # each has a response in it, and ends with one: for a decoder that is only woken to speak


def ear_example(one: Encoded, crop: Crop, rng: np.random.Generator) -> Example:
    """For the tier that decides."""
    item = in_mode(one.item, _mode(crop, rng)) if one.item.task == WAKE else one.item
    start, end = _cut(item, crop, rng)
    labels, when = targets(item, start, end, rng)
    prefix = [EAR_TOKENS.index(item.mode.value)]
    layout = streaming(Markers.of_ear(), prefix, labels, {chunk: [0] for chunk in when}, words=False)
    return Example(layout, one.states[start:end])


def decoder_example(
    config: InteractionConfig,
    tokenizer: Tokenizer,
    one: Encoded,
    crop: Crop,
    rng: np.random.Generator,
    *,
    finished: bool = False,
) -> Example:
    """For the tier that speaks: words, and in a model without an ear the decisions too. `finished`: offline layout."""
    item = in_mode(one.item, _mode(crop, rng)) if one.item.task == WAKE else one.item
    instruction = Instruction(mode=item.mode, text=item.instruction, participants=())
    prefix = prefix_of(instruction, tokenizer, config.tokens, config.memory.prefix)
    start, end = _cut(item, crop, rng, _looks_back(item))
    labels, when = targets(item, start, end, rng)
    if crop.told and when:
        end = start + max(when) + 1
        labels = labels[: end - start]
    said = {chunk: response(config, tokenizer, *item.replies()[last]) for chunk, last in when.items()}
    while sum(map(len, said.values())) > config.memory.text:  # serving would have forgotten some: begin after the first
        cut = min(said) + 1
        start, labels = start + cut, labels[cut:]
        said = {chunk - cut: words for chunk, words in said.items() if chunk >= cut}
    if finished:
        prefix = [config.tokens.offline, *prefix[1:]]
        first = min(said, default=None)
        stop = end - start if first is None else first + 1
        empty = [config.tokens.text_begin] if crop.told else [config.tokens.text_begin, config.tokens.text_end]
        answer = said[first] if first is not None else empty
        return Example(offline(config.tokens, prefix, stop, answer), one.states[start : start + stop])
    layout = streaming(Markers.of_decoder(config.tokens), prefix, labels, said, words=True)
    return Example(layout, one.states[start:end])


def response(config: InteractionConfig, tokenizer: Tokenizer, emotion: str, text: str) -> list[int]:
    """TEXT_BEGIN, emotion, words, TEXT_END. Of a text longer than the memory for words only its beginning."""
    tokens = config.tokens
    whole = [tokens.text_begin, getattr(tokens, emotion), *words_of(text, tokenizer), tokens.text_end]
    return whole[: config.memory.text]


def targets(item: Item, start: int, end: int, rng: np.random.Generator) -> tuple[list[int], dict[int, int]]:
    """What is right at each Chunk of [start, end), and where responses stand: Chunk of the crop -> the Chunk of
    the item that the reply belongs to."""
    labels = item.background().astype(np.int64)
    when: dict[int, int] = {}
    for turn in item.turns:
        if not turn.respond:
            continue
        first, last = turn.first_chunk, turn.last_chunk
        if first < start:  # under way where the crop begins
            labels[first : last + 1] = EITHER
            continue
        at = int(rng.integers(min(first + EARLIEST, last), min(first + LATEST, last) + 1)) if turn.early else last
        if turn.early:
            labels[first:at] = EITHER
        labels[at] = RESPOND
        if start <= at < end:
            when[at - start] = last
    return labels[start:end].tolist(), when


def _cut(item: Item, crop: Crop, rng: np.random.Generator, back: bool = False) -> tuple[int, int]:
    """Where a crop begins and ends; one in five begins with the stream. Where little of a stream is scored, a crop has
    a whole Turn in it, if one fits; where it is to be `told`, one that is responded to. `back`: with all that came
    before it, or as much as fits and a model remembers. A number without what was counted would teach to guess."""
    length, wanted = item.chunks, crop.chunks
    room = max(0, length - wanted)
    start = 0 if rng.random() < 0.2 else int(rng.integers(room + 1))
    turns: Sequence[Turn] = item.turns if item.unscored else ()
    if crop.told or back:
        turns = [turn for turn in item.turns if turn.respond] or ([] if crop.told else item.turns)
    if turns:
        turn = turns[int(rng.integers(len(turns)))]
        earliest = max(0, min(turn.last_chunk + 1 - wanted, room))
        latest = earliest if back else max(earliest, min(turn.first_chunk, room))
        start = int(rng.integers(earliest, latest + 1))
    return start, min(length, start + wanted)


def _looks_back(item: Item) -> bool:
    return item.task in TASKS and TASKS[item.task].looks_back


def _mode(crop: Crop, rng: np.random.Generator) -> Mode:
    return crop.modes[int(rng.choice(len(crop.modes), p=np.array(crop.shares) / sum(crop.shares)))]
