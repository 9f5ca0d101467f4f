"""Where the suites' sounds come from: public sets that are not part of this repository, read from a folder.

sounds    ESC-50 (Piczak 2015, github.com/karolpiczak/ESC-50): the whole repository, or a folder a class of its ten
          classes "ESC-10"; only one fold of those that no training may see
digits    free-spoken-digit-dataset (github.com/Jakobovski/free-spoken-digit-dataset): its `recordings`; only one
          speaker of those whom no training may hear
prompts   recorded telephone prompts, a WAV each, and a table "name<TAB>what is said"; soundflow trains on none of the
          English ones
music     hold music, any files: whoever gives them must know whether they were trained on

`soundflow` (soundflow/clips.py) keeps the folds 4 and 5 and the speakers theo and yweweler out of what it trains on.
Fold 4 and theo are its test split, at which one looks to choose a model; fold 5 and yweweler nothing in it ever hears.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calls.errors import OffhookError
from model_worker.evaluation.audio import Pcm, decode
from model_worker.sounds import deserving
from model_worker.spoken import cardinal

FOLDS = (4, 5)
SPEAKERS = ("theo", "yweweler")
"""Kept out of training. The first one of each is what is measured on by default."""
ESC_10 = frozenset({
    "baby_cry", "crying_baby", "fire_crackling", "crackling_fire", "chainsaw", "person_sneeze", "sneezing",
    "rain", "sea_waves", "clock_tick", "rooster", "helicopter", "dog_bark", "dog",
})  # fmt: skip
"""Its ten classes, as either set names them."""
FAINT = 16  # of 32,768: below it, at either end of a clip, nothing is to be heard


class SourceError(OffhookError):
    """A folder does not hold what it should."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One sound. `text` is what is said in it."""

    path: Path
    label: str
    respond: bool
    text: str = ""

    def pcm(self) -> Pcm:
        """16 kHz mono, without the silence at either end. Raises AudioError."""
        whole = np.concatenate(list(decode(self.path)))
        loud = np.flatnonzero(np.abs(whole.astype(np.int32)) > FAINT)
        return whole[loud[0] : loud[-1] + 1] if len(loud) else whole


def sounds(folder: Path, fold: int = FOLDS[0]) -> list[Clip]:
    """The environmental sounds of a fold, in order of class and name. Raises SourceError."""
    _is_there(folder)
    table = folder / "meta" / "esc50.csv"
    named = _of_table(folder, table, fold) if table.is_file() else _of_folders(folder, fold)
    clips = [Clip(path, label, deserving(label) is not None) for label, path in sorted(named) if label in ESC_10]
    if not clips:
        raise SourceError(f"{folder}: no sounds of fold {fold}; wants ESC-50, or a folder a class with its files")
    return clips


def _of_table(folder: Path, table: Path, fold: int) -> Iterator[tuple[str, Path]]:
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["fold"] == str(fold) and row["esc10"] == "True":
                yield row["category"], folder / "audio" / row["filename"]


def _of_folders(folder: Path, fold: int) -> Iterator[tuple[str, Path]]:
    for path in folder.glob(f"*/{fold}-*"):
        yield path.parent.name, path


def digits(folder: Path, speaker: str = SPEAKERS[0]) -> list[Clip]:
    """A speaker's digits 0 to 9, in order of take, then digit. Raises SourceError."""
    _is_there(folder)
    found = []
    for path in folder.glob(f"?_{speaker}_*.wav"):
        digit, _, take = path.stem.split("_")
        if digit.isdigit() and take.isdigit():
            word = cardinal(int(digit))
            found.append((int(take), digit, Clip(path, word, True, word)))
    if not found:
        raise SourceError(f"{folder}: no digits of {speaker}; wants the recordings of free-spoken-digit-dataset")
    return [clip for *_, clip in sorted(found, key=lambda one: one[:2])]


def prompts(folder: Path, texts: Path) -> list[Clip]:
    """Those prompts of the table that are there. Raises SourceError."""
    _is_there(folder)
    try:
        lines = [line.split("\t", 1) for line in texts.read_text(encoding="utf-8").splitlines() if "\t" in line]
    except OSError as error:
        raise SourceError(f"the prompts' texts cannot be read: {error}") from error
    clips = [Clip(path, "", True, text) for name, text in lines if (path := folder / f"{name}.wav").is_file()]
    if not clips:
        raise SourceError(f"{folder}: none of the prompts of {texts}")
    return clips


def music(folder: Path) -> Sequence[Path]:
    """The files of a folder that are music, in order of name. Raises SourceError."""
    _is_there(folder)
    found = sorted(path for path in folder.iterdir() if path.suffix in {".wav", ".ogg", ".flac", ".mp3"})
    if not found:
        raise SourceError(f"{folder}: no music")
    return found


def _is_there(folder: Path) -> None:
    if not folder.is_dir():
        raise SourceError(f"{folder}: there is no such folder")
