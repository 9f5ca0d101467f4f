"""The clip database: folders of recordings -> clips with a class, a source, a split and a licence.

Two layouts are known by their file names: ESC-10 / ESC-50 (`1-187207-A.ogg`: fold, source, take) in a folder a class,
and the Free Spoken Digit Dataset (`7_theo_12.wav`: digit, speaker, take). Anything else is a folder a class; a file
`SOURCE~TAKE.ogg` is of that source, and any other is its own. A source is in one split only.

**Kept apart.** Fold 5 of ESC and the FSDD speaker `yweweler` belong to no split: nothing here ever hears them, so that
anyone can measure on them.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from calls.audio import SAMPLE_RATE
from soundflow.errors import SoundflowError
from soundflow.items import Split
from soundflow.policy import sound

Pcm = npt.NDArray[np.float32]

LONGEST_S = 600.0  # of one file; of an hour-long one the beginning is used
SHORTEST_S = 0.1
_LOUD_ENOUGH = 1e-4  # peak
_SAID_OF_EACH = 20  # recordings; what is unusual about more of a folder is said in one line
_UNKNOWN = 0x7FFF0000  # bytes: what wrote a WAV file into a pipe puts this or more for its length
_KEPT_S = 3600.0  # decoded audio kept in memory by one process: 230 MB
_SUFFIXES = {".wav", ".ogg", ".flac", ".mp3", ".opus", ".m4a"}
_ESC = re.compile(r"(?P<fold>\d)-(?P<source>\d+)-(?P<take>[A-Z])(?:-\d+)?$")
_FSDD = re.compile(r"(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<take>\d+)$")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class ClipError(SoundflowError):
    """A recording cannot be used."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording of one thing. `group` is what it was found as: "sound", "digit", "music", "speech"; `source` is what
    no two splits share; `text` are the words in it."""

    id: str
    path: Path
    group: str
    label: str
    source: str
    split: Split
    licence: str
    seconds: float = 0.0
    text: str = ""

    @property
    def respond(self) -> bool | None:
        """By the sound policy; None: the policy does not know it."""
        known = sound(self.label)
        return known.respond if known else None


@dataclass(frozen=True, slots=True)
class Rules:
    """Who is in which split. `dev_share` of the sources that are not for testing is put aside for development; with
    `dev_folds`, of ESC-10 those folds instead."""

    test_folds: tuple[int, ...] = (4,)
    dev_folds: tuple[int, ...] = ()
    test_speakers: tuple[str, ...] = ("theo",)
    dev_speakers: tuple[str, ...] = ("nicolas",)
    dev_share: float = 0.15
    test_share: float = 0.25  # of sources in folders that say nothing of folds
    apart_folds: tuple[int, ...] = (5,)
    apart_speakers: tuple[str, ...] = ("yweweler",)


class Clips:
    """Clips that can be used, and a line on each that cannot or is not what was expected."""

    def __init__(self, clips: Sequence[Clip], notes: Sequence[str]) -> None:
        self.clips = tuple(clips)
        self.notes = tuple(notes)
        self._kept: OrderedDict[str, Pcm] = OrderedDict()
        self._held_s = 0.0

    def of(self, group: str, split: Split, labels: Iterable[str] | None = None) -> list[Clip]:
        wanted = None if labels is None else set(labels)
        return [
            clip
            for clip in self.clips
            if clip.group == group and clip.split == split and (wanted is None or clip.label in wanted)
        ]

    def audio(self, clip: Clip) -> Pcm:
        """float32 [samples], 16 kHz mono. The recently used ones are kept. Raises ClipError."""
        if clip.id in self._kept:
            self._kept.move_to_end(clip.id)
            return self._kept[clip.id]
        pcm, _ = decode(clip.path)
        self._kept[clip.id] = pcm
        self._held_s += len(pcm) / SAMPLE_RATE
        while self._held_s > _KEPT_S and len(self._kept) > 1:
            self._held_s -= len(self._kept.popitem(last=False)[1]) / SAMPLE_RATE
        return pcm

    def fingerprint(self) -> str:
        """Changes when a clip is added, removed, replaced or put into another split. Raises OSError."""
        rows = sorted(f"{clip.id} {clip.split} {_sum(clip.path)}" for clip in self.clips)
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    def __add__(self, other: Clips) -> Clips:
        return Clips((*self.clips, *other.clips), (*self.notes, *other.notes))


def _sum(path: Path) -> str:
    """Of what is in a file: many corpora have recordings of one length, so its size tells nothing."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def decode(path: Path) -> tuple[Pcm, list[str]]:
    """A recording as float32 [samples] at 16 kHz mono, and what was unusual about it, each in a few words.

    Raises ClipError when there is no sound to be had from it.
    """
    notes: list[str] = []
    pieces: list[Pcm] = []
    limit, count = int(LONGEST_S * SAMPLE_RATE), 0
    try:
        if _ends_early(path):
            notes.append("shorter than its header says, used until there")
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.audio:
                raise ClipError(f"{path}: no audio in it; left out")
            stream = container.streams.audio[0]
            if stream.channels > 1:
                notes.append(f"{stream.channels} channels, mixed to one")
            if stream.rate < SAMPLE_RATE:
                notes.append(f"{stream.rate} Hz, so nothing above {stream.rate // 2} Hz in it")
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            for frame in container.decode(stream):
                for made in resampler.resample(frame):
                    pieces.append(made.to_ndarray().reshape(-1).astype(np.float32))
                    count += len(pieces[-1])
                if count > limit:
                    break
            pieces += [made.to_ndarray().reshape(-1).astype(np.float32) for made in resampler.resample(None)]
    except (av.FFmpegError, OSError, ValueError) as error:
        if not pieces:
            raise ClipError(
                f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); left out"
            ) from error
        notes.append(f"damaged after {count / SAMPLE_RATE:.1f} s, used until there")
    pcm: Pcm = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    if len(pcm) > limit:
        notes.append(f"longer than {LONGEST_S / 60:.0f} minutes, only they are used")
        pcm = pcm[:limit]
    if len(pcm) < SHORTEST_S * SAMPLE_RATE:
        raise ClipError(f"{path}: empty ({len(pcm) / SAMPLE_RATE:.2f} s); left out")
    if not np.isfinite(pcm).all() or float(np.abs(pcm).max()) < _LOUD_ENOUGH:
        raise ClipError(f"{path}: nothing but silence in it; left out")
    return pcm, notes


def _ends_early(path: Path) -> bool:
    """Whether a WAV file was cut off. libav goes by what is there. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(8)
    told = int.from_bytes(head[4:], "little")
    return head[:4] == b"RIFF" and told < _UNKNOWN and path.stat().st_size < len(head) + told


def files(folder: Path) -> list[Path]:
    """What may be a recording under a folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)


def scan(
    folder: Path,
    group: str = "sound",
    *,
    licence: str = "unknown",
    rules: Rules | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Clips:
    """Every usable recording under a folder, checked by decoding it. Raises ClipError if there is none.

    `progress`: (recordings so far, in all, which).
    """
    rules = rules or Rules()
    if not folder.is_dir():
        raise ClipError(f"{folder} is not a folder of recordings")
    paths = files(folder)
    clips: list[Clip] = []
    notes: list[str] = []
    unusual: dict[str, list[Path]] = {}
    apart = 0
    for number, path in enumerate(paths, 1):
        if progress:
            progress(number, len(paths), path.stem)
        clip = describe(path, folder, group, licence, rules)
        if clip is None:
            apart += 1
            continue
        try:
            pcm, said = decode(path)
        except ClipError as error:
            notes.append(str(error))
            continue
        for what in said:
            unusual.setdefault(what, []).append(path)
        clips.append(replace(clip, seconds=len(pcm) / SAMPLE_RATE))
    for what, which in unusual.items():
        many = len(which) > _SAID_OF_EACH
        notes += [f"{folder}: {len(which)} recordings: {what}"] if many else [f"{path}: {what}" for path in which]
    if apart:
        notes.append(f"{folder}: {apart} recordings kept apart, for others to measure on")
    if not clips:
        raise ClipError("\n".join([f"{folder} holds no recording that can be used", *notes]))
    return Clips(clips, notes)


def describe(path: Path, folder: Path, group: str, licence: str, rules: Rules) -> Clip | None:
    """What a file's name and folder say of it; None: it is kept apart."""
    name = f"{folder.name}/{path.relative_to(folder).with_suffix('')}"
    label = path.parent.name if path.parent != folder else folder.name
    split: Split
    if spoken := _FSDD.match(path.stem):
        speaker = spoken["speaker"]
        if speaker in rules.apart_speakers:
            return None
        split = "test" if speaker in rules.test_speakers else "dev" if speaker in rules.dev_speakers else "train"
        return Clip(name, path, "digit", spoken["digit"], speaker, split, licence, text=DIGITS[int(spoken["digit"])])
    if recorded := _ESC.match(path.stem):
        fold, source = int(recorded["fold"]), recorded["source"]
        if fold in rules.apart_folds:
            return None
        dev = fold in rules.dev_folds if rules.dev_folds else _share(source) < rules.dev_share
        split = "test" if fold in rules.test_folds else "dev" if dev else "train"
        known = sound(label)
        return Clip(name, path, group, known.label if known else label, source, split, licence)
    source = path.stem.partition("~")[0] or path.stem
    share = _share(source)
    split = "test" if share < rules.test_share else "dev" if share < rules.test_share + rules.dev_share else "train"
    known = sound(label)
    return Clip(name, path, group, known.label if known else label, source, split, licence)


def _share(source: str) -> float:
    """Where a source stands between 0 and 1: the same on every machine."""
    return int.from_bytes(hashlib.sha256(source.encode()).digest()[:4], "big") / 2**32
