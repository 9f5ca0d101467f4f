"""Calls on a small random model: what it emits for audio that is made of tones and noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from calls.audio import Chunk
from calls.events import Event
from calls.model import Instruction, Mode, Participant, Role
from model_worker.interaction.build import build
from model_worker.interaction.config import TEST, InteractionConfig, MemoryConfig
from model_worker.interaction.model import CallStream, Interaction
from model_worker.stream import Past
from tests.model_worker.interaction.audio import CHUNK, sound
from tests.model_worker.interaction.served import TWO_TIERS, checkpoint

PEOPLE = (Participant("caller", Role.CALLER), Participant("human_agent", Role.HUMAN_AGENT))
# Forgets soon, writes slowly, and speaks now and then: thresholds and seeds are chosen for that.
SLOW = replace(TEST, memory=MemoryConfig(prefix=96, text=40, chunks=8), words_a_chunk=3, longest=14, threshold=0.5)
SLOW_TIERS = replace(TWO_TIERS, memory=SLOW.memory, threshold=0.1)
SEEDS = {SLOW: 3, SLOW_TIERS: 8}


def model(config: InteractionConfig = SLOW, slots: int = 6) -> Interaction:
    weights = checkpoint(config, SEEDS.get(config, 3))
    return Interaction(build(weights, slots), weights.tokenizer, "interaction:test")


def told(mode: Mode = Mode.ANSWER) -> Instruction:
    return Instruction(mode, "Be kind.", PEOPLE)


def chunks(seed: int, count: int, call: str = "c1", participant: str = "caller") -> list[Chunk]:
    pcm = (sound(seed, count).numpy() * 32767).clip(-32768, 32767).astype("<i2")
    return [Chunk(call, participant, i, part.tobytes()) for i, part in enumerate(np.split(pcm, len(pcm) // CHUNK))]


def listen(
    served: Interaction,
    heard: Sequence[Chunk],
    mode: Mode = Mode.ANSWER,
    past: Past | None = None,
    idle: Callable[[int], int] = lambda index: 1000,
    before: Callable[[CallStream, int], None] = lambda stream, index: None,
) -> list[Event]:
    """One call from its first Chunk to its end. `idle`: how often the model may write after a Chunk, at most; `before`
    is called with each Chunk's index."""
    events: list[Event] = []
    stream = served.open("c1", told(mode), events.append, past or Past())
    for chunk in heard:
        before(stream, chunk.index)
        served.step([(stream, chunk)])
        for _ in range(idle(chunk.index)):
            if not served.respond():
                break
    served.close(stream)
    return events
