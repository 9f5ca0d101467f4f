"""Sizes: of the tower that hears, of a decoder, of what a call may remember.

Four whole models by name: `test` (random, small enough for every test), `small` (Whisper-base's tower and a decoder of
our own), `compact` (Whisper-base and SmolLM2-135M shapes), `3b` (Qwen2.5-Omni-3B's).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from model_worker.interaction.tokens import CHUNK_TOKENS, PUBLISHED, Tokens

CHUNK_FRAMES = 40  # mel frames of 10 ms a Chunk
EAR_TOKENS = ("audio_begin", "assistant", "keep_silence", "text_begin", "transcribe", "assist", "answer")
"""The ear's vocabulary: the markers of a Chunk, its two choices, and the call's mode, which is its whole prefix."""


@dataclass(frozen=True, slots=True)
class TowerConfig:
    """A Whisper-shaped encoder over a window: the newest Chunk, with so many Chunks before it as context.

    Only the newest Chunk's 20 states leave it, two and two joined to 10 features. `context` 0 is the published model:
    a Chunk is encoded alone. `taps` are the layers (1 = after the first) whose states are concatenated; none: the last,
    normalised.
    """

    mels: int
    width: int
    heads: int
    layers: int
    feed_forward: int
    context: int = 0  # Chunks
    taps: tuple[int, ...] = ()
    join: str = "mean"  # of two neighbouring states: "mean" or "stack"
    adapter: int = 0  # hidden width of a two-layer adapter; 0: one linear layer
    ear: int = 0  # width of features of the ear's own, beside the decoder's; 0: the ear reads those of the decoder
    level: float | None = None  # fixed log10 reference of the mel scale; None: the loudest of the stream so far


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """A Qwen2- or Llama-shaped decoder."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    feed_forward: int
    rope_theta: float
    qkv_bias: bool
    tied: bool  # the output layer is the embedding
    norm_eps: float = 1e-6
    control_head: bool = False  # a two-way head of its own for silent / respond, instead of two of the vocabulary


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """What one call may keep, in tokens: docs/decisions/0009."""

    prefix: int  # of the Instruction
    text: int  # of the model's own words: kept longer than audio
    chunks: int  # of audio, the newest

    @property
    def places(self) -> int:
        """Tokens a slot. A Chunk has a place for its control token."""
        return self.prefix + self.text + self.chunks * (CHUNK_TOKENS + 1)


@dataclass(frozen=True, slots=True)
class InteractionConfig:
    """A whole model. With an `ear` it has two tiers: the ear decides on every Chunk, the decoder is woken to speak.

    The ear's vocabulary is EAR_TOKENS: it reads no words.
    """

    name: str
    tokens: Tokens
    tower: TowerConfig
    decoder: DecoderConfig
    memory: MemoryConfig
    ear: DecoderConfig | None = None
    ear_memory: MemoryConfig | None = None
    threshold: float = 0.5  # a Chunk whose P(respond) among the two control tokens is above this is responded to
    answering: float | None = None  # more than that in mode "answer": a false wake there is a voice in the caller's ear
    words_a_chunk: int = 8  # text tokens written before the next Chunk is heard
    longest: int = 160  # text tokens a response

    def threshold_in(self, mode: str) -> float:
        """What P(respond) must be above on a call of this mode."""
        return max(self.threshold, self.answering or 0.0) if mode == "answer" else self.threshold

    def sureness(self, probability: float, mode: str) -> float:
        """P(respond) on a scale on which it responds from 0.5 on: its odds over those of the threshold.

        That is what a Decision's score says, so that what compares scores (a tenant's least score for hints, the sounds
        beside the cascade) need not know how sure of itself a model was trained to be.
        """
        threshold = min(max(self.threshold_in(mode), 0.0), 1.0)
        respond, silent = probability * (1.0 - threshold), (1.0 - probability) * threshold
        return respond / (respond + silent) if respond + silent else 0.5

    @property
    def features(self) -> int:
        """Width of what leaves the tower."""
        return self.decoder.width + self.tower.ear

    @property
    def ear_features(self) -> int:
        """How much of it, at the end, the ear reads."""
        return self.tower.ear or self.decoder.width

    def as_dict(self) -> dict[str, Any]:
        """For the manifest of a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> InteractionConfig:
        """Raises TypeError or KeyError when something is missing or unknown."""
        raw = dict(raw)
        tower = dict(raw.pop("tower"))
        tower["taps"] = tuple(tower.get("taps", ()))
        ear, ear_memory = raw.pop("ear", None), raw.pop("ear_memory", None)
        return cls(
            tokens=Tokens(**raw.pop("tokens")),
            tower=TowerConfig(**tower),
            decoder=DecoderConfig(**raw.pop("decoder")),
            memory=MemoryConfig(**raw.pop("memory")),
            ear=DecoderConfig(**ear) if ear else None,
            ear_memory=MemoryConfig(**ear_memory) if ear_memory else None,
            **raw,
        )


_EAR = DecoderConfig(
    vocabulary=len(EAR_TOKENS),
    width=256,
    layers=3,
    heads=4,
    kv_heads=4,
    head_width=64,
    feed_forward=768,
    rope_theta=10_000.0,
    qkv_bias=False,
    tied=True,
    norm_eps=1e-5,
    control_head=True,
)

TEST = InteractionConfig(
    name="test",
    tokens=Tokens.after(512),
    tower=TowerConfig(mels=80, width=64, heads=4, layers=2, feed_forward=128, context=1),
    decoder=DecoderConfig(
        vocabulary=544,
        width=96,
        layers=3,
        heads=6,
        kv_heads=2,
        head_width=16,
        feed_forward=192,
        rope_theta=10_000.0,
        qkv_bias=True,
        tied=False,
    ),
    memory=MemoryConfig(prefix=64, text=48, chunks=16),
)

TEST_TIERS = replace(
    TEST,
    tower=replace(
        TEST.tower, width=256, layers=1, feed_forward=256, context=1, taps=(1,), join="stack", ear=96, level=0.0
    ),
    ear=replace(_EAR, width=96, layers=2, head_width=16, feed_forward=192, norm_eps=1e-6),
    ear_memory=MemoryConfig(prefix=1, text=1, chunks=16),
)
"""TEST in two tiers over a wider random tower, of which an ear learns in minutes when to respond."""

COMPACT = InteractionConfig(
    name="compact",
    tokens=Tokens.after(49_152),
    tower=TowerConfig(
        mels=80,
        width=512,
        heads=8,
        layers=6,
        feed_forward=2048,
        context=2,
        taps=(2, 4, 6),
        join="stack",
        adapter=1024,
        ear=512,
        level=0.0,
    ),
    decoder=DecoderConfig(
        vocabulary=49_184,
        width=576,
        layers=30,
        heads=9,
        kv_heads=3,
        head_width=64,
        feed_forward=1536,
        rope_theta=100_000.0,
        qkv_bias=False,
        tied=True,
        norm_eps=1e-5,
    ),
    memory=MemoryConfig(prefix=512, text=256, chunks=40),
    ear=_EAR,
    ear_memory=MemoryConfig(prefix=1, text=1, chunks=24),
)

SMALL = replace(
    COMPACT,
    name="small",
    tokens=Tokens.after(448),
    tower=replace(COMPACT.tower, adapter=512),
    decoder=replace(
        COMPACT.decoder,
        vocabulary=480,
        width=256,
        layers=3,
        heads=4,
        kv_heads=4,
        feed_forward=768,
        rope_theta=10_000.0,
    ),
    memory=MemoryConfig(prefix=64, text=64, chunks=16),
    longest=16,
)
"""COMPACT with a decoder of our own, which a CPU can train and which names what it hears in a few words: no language
model."""

OMNI_3B = InteractionConfig(
    name="3b",
    tokens=PUBLISHED,
    tower=TowerConfig(mels=128, width=1280, heads=20, layers=32, feed_forward=5120),
    decoder=DecoderConfig(
        vocabulary=151_936,
        width=2048,
        layers=36,
        heads=16,
        kv_heads=2,
        head_width=128,
        feed_forward=11_008,
        rope_theta=1_000_000.0,
        qkv_bias=True,
        tied=False,
    ),
    memory=MemoryConfig(prefix=512, text=512, chunks=154),  # 2,002 tokens of audio: 61.6 s
)

PRESETS = {config.name: config for config in (TEST, SMALL, COMPACT, OMNI_3B)}
