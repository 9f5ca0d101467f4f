"""The one token table: which id stands for which marker. Serving and training read it from here and nowhere else.

A Stream as tokens, online (arXiv 2606.05121 and the published code):

    prefix   ONLINE, language, SYSTEM, TEXT_BEGIN, the Instruction..., TEXT_END
    a Chunk  AUDIO_BEGIN, PAD x 10 (the tower's features take their places), ASSISTANT, then what the model chose:
             KEEP_SILENCE   or   TEXT_BEGIN, an emotion, text..., TEXT_END
"""

from __future__ import annotations

from dataclasses import dataclass, fields

AUDIO_TOKENS = 10  # features a Chunk of 0.4 s
CHUNK_TOKENS = 1 + AUDIO_TOKENS + 1  # AUDIO_BEGIN, features, ASSISTANT
LOSS_MASK = -100  # a label that training does not score
EMOTIONS = ("happy", "sad", "angry", "surprise", "normal", "urgent")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Ids of the markers in one model's vocabulary."""

    user: int
    assistant: int
    keep_silence: int
    pad: int
    online: int
    offline: int
    english: int
    happy: int
    sad: int
    angry: int
    surprise: int
    normal: int
    urgent: int
    text_begin: int
    text_end: int
    audio_pad: int
    audio_begin: int
    audio_end: int

    @property
    def system(self) -> int:
        """The published table has one id for both."""
        return self.text_begin

    @property
    def lowest(self) -> int:
        return min(int(getattr(self, field.name)) for field in fields(self))

    @property
    def highest(self) -> int:
        return max(int(getattr(self, field.name)) for field in fields(self))

    def emotion(self, token: int) -> str:
        """The name of an emotion tag, "" if `token` is none."""
        return next((name for name in EMOTIONS if getattr(self, name) == token), "")

    @classmethod
    def after(cls, vocabulary: int) -> Tokens:
        """A table whose markers follow an ordinary vocabulary of so many tokens: for models of other families."""
        return cls(*range(vocabulary, vocabulary + len(fields(cls))))


PUBLISHED = Tokens(
    user=151_601,
    assistant=151_602,
    keep_silence=151_605,
    pad=151_608,
    online=151_609,
    offline=151_610,
    english=151_611,
    happy=151_614,
    sad=151_615,
    angry=151_616,
    surprise=151_617,
    normal=151_618,
    urgent=151_619,
    text_end=151_643,
    text_begin=151_644,
    audio_pad=151_646,
    audio_begin=151_647,
    audio_end=151_648,
)
"""The ids of the published checkpoint, in Qwen2.5's vocabulary."""
