"""Small models with random weights, served: what each of some ears decided and said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from model_worker.interaction.build import build
from model_worker.interaction.checkpoint import Checkpoint
from model_worker.interaction.config import TEST, DecoderConfig, InteractionConfig, MemoryConfig
from model_worker.interaction.make import make_tokenizer
from model_worker.interaction.random_weights import RandomWeights
from model_worker.interaction.serving import Ear, Judged, Said, Serving

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")),
]
PREFIX = [TEST.tokens.online, TEST.tokens.english, TEST.tokens.system, 5, 6, 7, 8, TEST.tokens.text_end]

# Forgets soon, speaks slowly, and answers that the model does not end are ended.
SMALL = replace(TEST, memory=MemoryConfig(prefix=10, text=12, chunks=4), words_a_chunk=3, longest=14, threshold=0.58)
TWO_TIERS = replace(
    SMALL,
    ear=DecoderConfig(
        vocabulary=7,
        width=32,
        layers=2,
        heads=2,
        kv_heads=2,
        head_width=16,
        feed_forward=64,
        rope_theta=10_000.0,
        qkv_bias=False,
        tied=True,
        control_head=True,
    ),
    ear_memory=MemoryConfig(prefix=1, text=1, chunks=6),
    threshold=0.05,
)

# Random networks hardly listen. These hear differences, look at single tokens, and change their minds.
LOUDER = {
    "tower.proj.weight": 6.0,
    "features.weight": 6.0,
    "q_proj.weight": 3.0,
    "k_proj.weight": 2.0,
    "o_proj.weight": 3.0,
}


def checkpoint(config: InteractionConfig, seed: int = 3, device: str = "cpu") -> Checkpoint:
    """Random weights in float32, louder than usual; TEXT_END is likely enough to be chosen now and then."""
    made = dict(RandomWeights(config, seed, torch.float32).all())
    for name, tensor in made.items():
        tensor *= next((louder for end, louder in LOUDER.items() if name.endswith(end)), 1.0)
    words = made["decoder.embed_tokens.weight" if config.decoder.tied else "decoder.lm_head.weight"]
    words[config.tokens.text_end] *= 3.0

    def part(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(name): tensor.to(device) for key, tensor in made.items() if key.startswith(name)}

    return Checkpoint("native", config, part("tower."), part("decoder."), part("ear."), make_tokenizer())


def serve(config: InteractionConfig, slots: int = 4, device: str = "cpu", **options: object) -> Serving:
    torch.backends.cudnn.allow_tf32 = False  # what a GPU calls float32 has 10 bits in a convolution
    return build(checkpoint(config, device=device), slots, **options)  # type: ignore[arg-type]


@dataclass
class Heard:
    """One ear's whole life."""

    scores: list[float] = field(default_factory=list)
    responded: list[int] = field(default_factory=list)  # indices of Chunks
    words: dict[int, list[int]] = field(default_factory=dict)  # of the response to each
    ended: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    behind: list[float] = field(default_factory=list)  # see slow.py

    def judge(self, judged: Judged) -> None:
        self.scores.append(judged.score)
        if judged.respond:
            self.responded.append(judged.index)
            self.words[judged.index] = []

    def take(self, said: Said) -> None:
        assert said.index not in self.ended
        self.words[said.index] += said.tokens
        if said.ended:
            self.ended.append(said.index)
        if said.cut:
            self.cut.append(said.index)

    def choices(self) -> tuple[object, ...]:
        """All that was decided and said, as it must be again."""
        return self.responded, self.words, self.ended, self.cut


def listen(
    serving: Serving,
    calls: Sequence[tuple[Ear, int, Sequence[Tensor]]],
    idle: Callable[[int], int] = lambda step: 100,
) -> list[Heard]:
    """Bring the Chunks of some ears, each from its own step on: (ear, first step, Chunks).

    `idle` says how often `write` is called after a step at most.
    """
    lives = {ear: Heard() for ear, _, _ in calls}
    for step in range(max(first + len(chunks) for _, first, chunks in calls)):
        batch = [(ear, step - at, chunks[step - at]) for ear, at, chunks in calls if at <= step < at + len(chunks)]
        for start in range(0, len(batch), serving.largest):
            judged, said = serving.hear(batch[start : start + serving.largest])
            take(lives, said)
            for one in judged:
                assert one is not None
                lives[one.ear].judge(one)
        for _ in range(idle(step)):
            if not serving.busy:
                break
            take(lives, serving.write())
    while serving.busy:
        take(lives, serving.write())
    return list(lives.values())


def take(lives: dict[Ear, Heard], said: Iterable[Said]) -> None:
    for one in said:
        lives[one.ear].take(one)
