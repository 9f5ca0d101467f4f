"""From a plan to a stream: events on a background, through a telephone line, with what is right at every Chunk.

Before each event, and at the end, there are 0.8 to 2.4 s of background, unless the plan says how long (a long silence,
a pause inside a sentence). Events begin at any sample: a live call does not wait for a Chunk to begin. The stream's
tail ends with a Chunk. After something that we answer by voice, the far end is quiet while we speak.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from calls.audio import CHUNK_SAMPLES, SAMPLE_RATE
from calls.model import Mode
from soundflow.channel import WIDEBAND, Channel, through
from soundflow.errors import SoundflowError
from soundflow.items import Item, Split, Turn

Pcm = npt.NDArray[np.float32]

GAP_S = (0.8, 2.4)
SETTLE_S = 0.2  # speech has ended when it has been quiet for so long: a listener cannot know it before
LEVEL_DB = (-32.0, -15.0)  # of an event's loud frames
_LONGEST_REPLY_S, _SECONDS_A_LETTER = 4.0, 0.06
_FRAME = 320
_FADE = 80
_CLIP = 0.98


@dataclass(frozen=True, slots=True)
class Event:
    """Something to be heard: float32 [samples] at 16 kHz, and what it deserves (see `Turn`).

    `gap_s` is the background before it, drawn if None. `settle_s` of quiet after it belong to it: the Turn ends there.
    `level_db` is the level of its loud frames, drawn if None. `within_s`: a response is due so soon, though the sound
    goes on; the Turn ends there.
    """

    pcm: Pcm
    heard: str
    label: str
    reply: str = ""
    emotion: str = "normal"
    early: bool = False
    sources: tuple[str, ...] = ()
    gap_s: float | None = None
    settle_s: float = 0.0
    level_db: float | None = None
    within_s: float | None = None

    @property
    def seconds(self) -> float:
        return len(self.pcm) / SAMPLE_RATE + self.settle_s

    @property
    def due_s(self) -> float:
        """From its beginning to its Turn's end."""
        return self.seconds if self.within_s is None or not self.reply else min(self.seconds, self.within_s)

    def answered(self, reply: str, emotion: str = "normal", *, early: bool | None = None) -> Event:
        """The same, to be responded to."""
        return replace(self, reply=reply, emotion=emotion, early=self.early if early is None else early)

    def after(self, gap_s: float) -> Event:
        return replace(self, gap_s=gap_s)


@dataclass(frozen=True, slots=True)
class Bed:
    """The background of a stream, looped if it is shorter; `level_db` is its RMS. With a label it is a Turn."""

    pcm: Pcm
    level_db: float
    heard: str = ""
    label: str = ""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A scene before it is sound. `channel` None: whatever line the build draws. `quiet`: its background must hold
    nothing that could be taken for an event."""

    task: str
    mode: Mode
    instruction: str
    events: tuple[Event, ...]
    tail_s: float | None = None
    channel: Channel | None = None
    quiet: bool = False


def compose(
    plan: Plan, bed: Bed, channel: Channel, split: Split, seed: int, rng: np.random.Generator, name: str = ""
) -> Item:
    """The stream of a plan. The same arguments, the generator's state among them, give the same item."""
    channel = plan.channel or channel
    starts, length = _times(plan, rng)
    loudness = float(rng.uniform(*LEVEL_DB))  # one line, one microphone: events of a stream are alike
    mixed = _laid(bed, length)
    turns = [_bed_turn(bed, plan.task, length)] if bed.label else []
    for event, start in zip(plan.events, starts, strict=True):
        level = event.level_db if event.level_db is not None else loudness + float(rng.uniform(-4.0, 4.0))
        pcm = _levelled(event.pcm, level)
        mixed[start : start + len(pcm)] += pcm
        turns.append(_turn(event, plan.task, start))
    heard = through(mixed, channel, rng) if channel is not WIDEBAND else mixed
    audio = np.rint(np.clip(heard, -_CLIP, _CLIP) * 32767).astype(np.int16)
    return Item(
        id=name or f"{plan.task.replace('/', '-')}-{seed}",
        task=plan.task,
        mode=plan.mode,
        instruction=plan.instruction,
        audio=audio,
        turns=tuple(turns),
        split=split,
        seed=seed,
        scene=bed.heard,
        channel=channel.name,
    )


def _times(plan: Plan, rng: np.random.Generator) -> tuple[list[int], int]:
    """Where each event begins, in samples, and how long the stream is: whole Chunks.

    Two responses never belong to one Chunk: the later event moves on by as much as that takes.
    """
    starts, now, answered = [], 0, -1
    for event in plan.events:
        gap = event.gap_s if event.gap_s is not None else float(rng.uniform(*GAP_S))
        start = now + int(gap * SAMPLE_RATE)
        due = start + int(event.due_s * SAMPLE_RATE)
        if event.reply:
            while -(-due // CHUNK_SAMPLES) - 1 <= answered:
                start, due = start + CHUNK_SAMPLES, due + CHUNK_SAMPLES
            answered = -(-due // CHUNK_SAMPLES) - 1
        starts.append(start)
        now = start + int(event.seconds * SAMPLE_RATE)
        if event.reply and plan.mode is Mode.ANSWER:
            now += int(min(_LONGEST_REPLY_S, _SECONDS_A_LETTER * len(event.reply)) * SAMPLE_RATE)
    if not plan.events:
        raise SoundflowError(f"a plan of {plan.task} has no events")
    tail = plan.tail_s if plan.tail_s is not None else float(rng.uniform(*GAP_S))
    end = now + int(tail * SAMPLE_RATE)
    return starts, -(-end // CHUNK_SAMPLES) * CHUNK_SAMPLES


def _turn(event: Event, task: str, start: int) -> Turn:
    begin = start / SAMPLE_RATE
    return Turn(
        kind=task,
        begin_s=begin,
        end_s=(start + int(event.due_s * SAMPLE_RATE)) / SAMPLE_RATE,
        respond=bool(event.reply),
        heard=event.heard,
        label=event.label,
        reply=event.reply,
        emotion=event.emotion if event.reply else "normal",
        early=event.early,
        sources=event.sources,
    )


def _bed_turn(bed: Bed, task: str, length: int) -> Turn:
    return Turn(task, 0.0, length / SAMPLE_RATE, False, bed.heard, bed.label, sources=bed.sources, bed=True)


def _laid(bed: Bed, length: int) -> Pcm:
    """The bed at its level, repeated with a cross-fade until it is long enough: float32 [length]."""
    if not len(bed.pcm):
        return np.zeros(length, np.float32)
    pcm = bed.pcm
    fade = min(SAMPLE_RATE // 4, len(pcm) // 4)
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    made = np.zeros(length + len(pcm), np.float32)
    place = 0
    while place < length:
        piece = pcm.copy()
        if place and fade:
            piece[:fade] *= ramp
        if fade:
            piece[-fade:] *= ramp[::-1]
        made[place : place + len(piece)] += piece
        place += max(1, len(piece) - fade)
    made = made[:length]
    level = float(np.sqrt(np.mean(np.square(made, dtype=np.float64))))
    return made * np.float32(10 ** (bed.level_db / 20) / level) if level > 0 else made


def _levelled(pcm: Pcm, level_db: float) -> Pcm:
    """With its loud frames at a level, never clipped, its ends faded over 5 ms."""
    frames = max(1, len(pcm) // _FRAME)
    padded = np.pad(pcm, (0, max(0, _FRAME - len(pcm))))
    loud = float(np.sqrt(np.quantile((padded[: frames * _FRAME].reshape(frames, _FRAME) ** 2).mean(axis=1), 0.9)))
    peak = float(np.abs(pcm).max()) if len(pcm) else 0.0
    if not peak:
        return pcm
    gain = min(10 ** (level_db / 20) / max(loud, peak / 30), 0.9 / peak)
    made = pcm * np.float32(gain)
    fade = min(_FADE, len(made) // 2)
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    made[:fade] *= ramp
    made[len(made) - fade :] *= ramp[::-1]
    return made
