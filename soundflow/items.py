"""The contract between building data and training on it: a stream of audio, what happens in it, what is right.

An Item is one stream of whole Chunks and the Turns in it. At each Chunk one thing is right: respond (the Chunk in which
a Turn that deserves a response ends), stay silent (everywhere else), or either (`early`: an alarm may be told of before
it ends; `unscored`: nobody knows what was right there). The audio is what the far end says, never our own replies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from calls.audio import CHUNK_S, CHUNK_SAMPLES, SAMPLE_RATE
from calls.model import Mode
from model_worker.interaction.tokens import EMOTIONS
from soundflow.errors import SoundflowError

Audio = npt.NDArray[np.int16]
Labels = npt.NDArray[np.int8]
Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")

RESPOND, SILENT, EITHER = 1, 0, -1
"""What is right at a Chunk. EITHER is not scored."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Something that is heard, and what it deserves.

    `begin_s` and `end_s` are seconds from the stream's beginning. The response belongs to the Chunk in which `end_s`
    lies, where a boundary between two Chunks belongs to the earlier one. `heard` are the words or, of a sound, what it
    is; `label` is a class to count by ("speech", "baby_cry", "ringback"). `early`: to respond before the end is right
    too. `sources` are ids of the clips that it is made of. A `bed` is what is heard below everything else, as long as
    the stream: it deserves nothing, and is no event of its own that could be rightly or wrongly responded to.
    """

    kind: str  # the sub-task: "proactive/safety-sound"
    begin_s: float
    end_s: float
    respond: bool
    heard: str
    label: str
    reply: str = ""
    emotion: str = "normal"
    early: bool = False
    sources: tuple[str, ...] = ()
    bed: bool = False

    @property
    def first_chunk(self) -> int:
        return round(self.begin_s * SAMPLE_RATE) // CHUNK_SAMPLES

    @property
    def last_chunk(self) -> int:
        """Where the response belongs."""
        return max(0, -(-round(self.end_s * SAMPLE_RATE) // CHUNK_SAMPLES) - 1)

    def to_dict(self) -> dict[str, Any]:
        """As JSON; `bed` only of one: shards without any keep their bytes."""
        told = asdict(self)
        return told if self.bed else {key: value for key, value in told.items() if key != "bed"}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Turn:
        return cls(**{**raw, "sources": tuple(raw.get("sources", ()))})


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One stream. `audio` is int16 [chunks * 6,400], 16 kHz mono. Raises SoundflowError if it contradicts itself.

    `mode` and `instruction` are what the model is told before the stream begins: model_worker.interaction.instruction
    puts the mode's own sentence in front. `channel` says what the audio went through ("wideband", "g711"). `unscored`
    are stretches of Chunks, [first, end), of which it is not known what is right; what a Turn says goes before.
    """

    id: str
    task: str  # the sub-task that made it: "recognition/clean"
    mode: Mode
    instruction: str
    audio: Audio
    turns: tuple[Turn, ...]
    split: Split
    seed: int
    scene: str = ""
    channel: str = "wideband"
    unscored: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.audio.dtype != np.int16 or self.audio.ndim != 1 or not len(self.audio):
            raise SoundflowError(f"{self.id}: audio must be int16 [samples], not {self.audio.dtype} {self.audio.shape}")
        if len(self.audio) % CHUNK_SAMPLES:
            raise SoundflowError(f"{self.id}: {len(self.audio)} samples are not whole Chunks of {CHUNK_SAMPLES}")
        if self.split not in SPLITS:
            raise SoundflowError(f"{self.id}: no split {self.split!r}; there are {', '.join(SPLITS)}")
        if any(not 0 <= first < end <= self.chunks for first, end in self.unscored):
            raise SoundflowError(f"{self.id}: {self.unscored} are not stretches of its {self.chunks} Chunks")
        taken: set[int] = set()
        for turn in self.turns:
            self._check(turn, taken)

    def _check(self, turn: Turn, taken: set[int]) -> None:
        where = f"{self.id}: the turn {turn.heard[:40]!r} at {turn.begin_s:.2f}-{turn.end_s:.2f} s"
        if not 0 <= turn.begin_s < turn.end_s or turn.last_chunk >= self.chunks:
            raise SoundflowError(f"{where} is not inside the stream of {self.seconds:.2f} s")
        if turn.emotion not in EMOTIONS:
            raise SoundflowError(f"{where} has no known emotion: {turn.emotion!r}")
        if turn.respond != bool(turn.reply):
            raise SoundflowError(f"{where} must have a reply if it is responded to, and none if not")
        if turn.respond and turn.bed:
            raise SoundflowError(f"{where} is a bed: nothing may be said to it")
        if turn.respond and turn.last_chunk in taken:
            raise SoundflowError(f"{where} ends in the same Chunk as another that is responded to")
        if turn.respond:
            taken.add(turn.last_chunk)

    @property
    def chunks(self) -> int:
        return len(self.audio) // CHUNK_SAMPLES

    @property
    def seconds(self) -> float:
        return self.chunks * CHUNK_S

    def labels(self) -> Labels:
        """int8 [chunks]: RESPOND, SILENT or EITHER at each Chunk."""
        labels = self.background()
        responded = [turn for turn in self.turns if turn.respond]
        for turn in responded:
            if turn.early:
                labels[turn.first_chunk : turn.last_chunk] = EITHER
        for turn in responded:
            labels[turn.last_chunk] = RESPOND
        return labels

    def background(self) -> Labels:
        """int8 [chunks]: what is right before any Turn is looked at, SILENT or EITHER."""
        labels = np.full(self.chunks, SILENT, np.int8)
        for first, end in self.unscored:
            labels[first:end] = EITHER
        return labels

    def replies(self) -> dict[int, tuple[str, str]]:
        """Chunk -> (emotion, text), in the order of the stream: exactly the Chunks that are labelled RESPOND."""
        said = {turn.last_chunk: (turn.emotion, turn.reply) for turn in self.turns if turn.respond}
        return dict(sorted(said.items()))

    def meta(self) -> dict[str, Any]:
        """All but the audio, as JSON."""
        unscored = {"unscored": [list(stretch) for stretch in self.unscored]} if self.unscored else {}
        return {
            "id": self.id,
            "task": self.task,
            "mode": str(self.mode),
            "instruction": self.instruction,
            "split": self.split,
            "seed": self.seed,
            "scene": self.scene,
            "channel": self.channel,
            "turns": [turn.to_dict() for turn in self.turns],
            **unscored,
        }

    @classmethod
    def from_meta(cls, raw: Mapping[str, Any], audio: Audio) -> Item:
        """The reverse of `meta`. Raises SoundflowError."""
        try:
            given = dict(raw)
            given["mode"] = Mode(given["mode"])
            given["turns"] = tuple(Turn.from_dict(turn) for turn in given["turns"])
            given["unscored"] = tuple((int(first), int(end)) for first, end in given.get("unscored", ()))
            return cls(audio=audio, **given)
        except (KeyError, TypeError, ValueError) as error:
            raise SoundflowError(f"item {raw.get('id', '?')}: {error}") from error
