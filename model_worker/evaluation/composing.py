"""How the suites' streams are put together: clips with quiet room between them, and what is expected at each."""

from __future__ import annotations

import errno
import io
import json
import wave
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calls.audio import SAMPLE_RATE
from calls.errors import OffhookError
from model_worker.evaluation.audio import Pcm, decode, room
from model_worker.evaluation.shared import Told
from model_worker.evaluation.sources import Clip

Line = dict[str, Any]
Rng = np.random.Generator
Make = Callable[[int, Rng], Pcm]
"""Gives so many samples."""

GAP_S = (0.8, 2.4)  # of quiet room between two clips
PART_S = 600.0  # an hour of nothing comes in parts of ten minutes
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class NotWritten(OffhookError):
    """A file of a suite. The text names it."""


@dataclass
class Suite:
    """One manifest and its audio, on the way to the disk. `told` is told of each item."""

    folder: Path
    name: str
    told: Told
    lines: list[Line] = field(default_factory=list)

    def begin(self) -> None:
        """Make the folder, and remove an older manifest, whose audio will be replaced. Raises NotWritten."""
        with self._writing(self._manifest):
            (self.folder / self.name).mkdir(parents=True, exist_ok=True)
            self._manifest.unlink(missing_ok=True)

    def add(self, pcm: Pcm, **line: Any) -> None:
        """Write one item's audio. Raises NotWritten."""
        audio = Path(self.name) / f"{len(self.lines):04}.wav"
        whole = io.BytesIO()
        with wave.open(whole, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(pcm.astype("<i2").tobytes())
        with self._writing(self.folder / audio) as path:
            path.write_bytes(whole.getvalue())
        self.lines.append({"audio": str(audio), **line})
        self.told(1)

    def save(self) -> None:
        """The manifest comes last: where it is, its audio is whole. Raises NotWritten."""
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        with self._writing(self._manifest) as path:
            path.write_text(text, encoding="utf-8")

    @property
    def _manifest(self) -> Path:
        return self.folder / f"{self.name}.jsonl"

    @contextmanager
    def _writing(self, path: Path) -> Iterator[Path]:
        """Says which file it was that could not be written, and what to do."""
        try:
            yield path
        except OSError as error:
            other = f"give another folder than {self.folder}"
            if error.errno not in FULL:
                raise NotWritten(f"{path} cannot be written ({error.strerror}): {other}") from error
            path.unlink(missing_ok=True)  # what there is of it
            raise NotWritten(f"{path} has no room ({error.strerror}): make room, or {other}") from error


@dataclass
class Timeline:
    """Audio and events of one stream, one after the other."""

    parts: list[Pcm] = field(default_factory=list)
    events: list[Line] = field(default_factory=list)
    samples: int = 0

    def quiet(self, seconds: float, rng: Rng) -> None:
        self._append(room(seconds, rng))

    def play(self, pcm: Pcm, expect: str, **event: Any) -> None:
        begins = self.samples
        self._append(pcm)
        times = {"at_s": round(begins / SAMPLE_RATE, 3), "end_s": round(self.samples / SAMPLE_RATE, 3)}
        self.events.append({**times, "expect": expect, **event})

    def _append(self, pcm: Pcm) -> None:
        self.parts.append(pcm)
        self.samples += len(pcm)

    def pcm(self) -> Pcm:
        return np.concatenate(self.parts)


def expect(respond: bool) -> str:
    return "respond" if respond else "silent"


# --- sounds ---------------------------------------------------------------------------------------------------------


def single(suite: Suite, clips: Sequence[Clip]) -> None:
    for clip in clips:
        suite.add(clip.pcm(), expect=expect(clip.respond), kind="sound", label=clip.label)


def several(suite: Suite, clips: Sequence[Clip], count: int, gaps: bool, rng: Rng) -> None:
    """All clips in streams of `count`; those that are left over are left out."""
    for first in range(0, len(clips) // count * count, count):
        timeline = Timeline()
        for clip in clips[first : first + count]:
            if gaps and timeline.parts:
                timeline.quiet(rng.uniform(*GAP_S), rng)
            timeline.play(clip.pcm(), expect(clip.respond), label=clip.label)
        suite.add(timeline.pcm(), kind="sounds", events=timeline.events)


def late(suite: Suite, clips: Sequence[Clip], at_s: float, rng: Rng) -> None:
    for clip in clips:
        timeline = Timeline()
        timeline.quiet(at_s, rng)
        timeline.play(clip.pcm(), expect(clip.respond), label=clip.label)
        suite.add(timeline.pcm(), kind="sounds", events=timeline.events)


def one_a_class(clips: Sequence[Clip]) -> list[Clip]:
    return list({clip.label: clip for clip in reversed(clips)}.values())[::-1]


# --- words ----------------------------------------------------------------------------------------------------------


def spoken(suite: Suite, clips: Sequence[Clip], kind: str) -> None:
    for clip in clips:
        label = {"label": clip.label} if clip.label else {}
        suite.add(clip.pcm(), expect="respond", kind=kind, text=clip.text, **label)


# --- instructions ---------------------------------------------------------------------------------------------------


def one_wanted(suite: Suite, clips: Sequence[Clip], told: str, rng: Rng) -> None:
    """Three sounds or words. For each label one stream in which it is asked for and there, and one in which it is asked
    for and not there. `told` has a place for it."""
    for wanted in sorted({clip.label for clip in clips}):
        targets = [clip for clip in clips if clip.label == wanted]
        others = [clip for clip in clips if clip.label != wanted]
        for is_there in (True, False):
            chosen = _draw(others, 3, rng)
            if is_there:
                chosen[rng.integers(3)] = targets[rng.integers(len(targets))]
            labels = [wanted if clip.label == wanted else None for clip in chosen]
            _asked(suite, chosen, labels, told.format(_words(wanted)), rng)


def counted(suite: Suite, clips: Sequence[Clip], told: str, rng: Rng) -> None:
    """Four sounds, one to three of them the one that is asked for: each time it comes its number is wanted."""
    for wanted in sorted({clip.label for clip in clips}):
        targets = [clip for clip in clips if clip.label == wanted]
        others = [clip for clip in clips if clip.label != wanted]
        times = int(rng.integers(1, min(3, len(targets)) + 1))
        chosen = _draw([*_draw(targets, times, rng), *_draw(others, 4 - times, rng)], 4, rng)
        numbers = iter(("one", "two", "three"))
        labels = [next(numbers) if clip.label == wanted else None for clip in chosen]
        _asked(suite, chosen, labels, told.format(_words(wanted)), rng)


def enough(clips: Sequence[Clip]) -> bool:
    """Are there three others beside those of any label? So many are drawn here."""
    labels = [clip.label for clip in clips]
    return all(len(labels) - labels.count(label) >= 3 for label in labels)


def _draw(clips: Sequence[Clip], count: int, rng: Rng) -> list[Clip]:
    return [clips[i] for i in rng.choice(len(clips), count, replace=False)]


def _words(label: str) -> str:
    return label.replace("_", " ")


def _asked(suite: Suite, clips: Sequence[Clip], labels: Sequence[str | None], told: str, rng: Rng) -> None:
    """A response is expected at the clips that have a label here."""
    timeline = Timeline()
    for clip, label in zip(clips, labels, strict=True):
        if timeline.parts:
            timeline.quiet(rng.uniform(*GAP_S), rng)
        named = {"label": label} if label else {}
        timeline.play(clip.pcm(), expect(label is not None), **named)
    suite.add(timeline.pcm(), kind="instruction", instruction=told, events=timeline.events)


# --- nothing --------------------------------------------------------------------------------------------------------


def parts(hours: float) -> int:
    """Into how many items `nothing` divides so many hours."""
    return -(-round(hours * 3600 * SAMPLE_RATE) // round(PART_S * SAMPLE_RATE))


def nothing(suite: Suite, kind: str, hours: float, make: Make, rng: Rng) -> None:
    left = round(hours * 3600 * SAMPLE_RATE)
    while left > 0:
        length = min(left, round(PART_S * SAMPLE_RATE))
        suite.add(make(length, rng), expect="silent", kind=kind)
        left -= length


def looped(paths: Iterable[Path]) -> Make:
    """The music from where it was left, again and again."""
    whole = np.concatenate([block for path in paths for block in decode(path)])
    at = 0

    def more(length: int, rng: Rng) -> Pcm:
        nonlocal at
        taken = whole.take(np.arange(at, at + length), mode="wrap")
        at += length
        return taken

    return more
