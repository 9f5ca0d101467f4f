"""Recordings that are too big for the repository: where they are from, whose they are, and how they come here."""

from __future__ import annotations

import csv
import io
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from soundflow import debian
from soundflow.clips import Clips, Rules, files, scan
from soundflow.errors import SoundflowError

HOME = Path("~/.cache/offhook/soundflow")
_BLOCK = 1 << 20
_SUFFIXES = (".wav", ".ogg", ".flac")
_PACKAGES = "packages of Debian 12, by way of apt-get download (or --from a folder of them); see soundflow/debian.tsv"
_BY_RECORDING = "by recording, in soundflow/debian.tsv"

Progress = Callable[[int, int, str], None]
"""(bytes so far, bytes in all or 0 if not said, what)"""


@dataclass(frozen=True, slots=True)
class Source:
    """A corpus. `archive` is a zip file; "" if there is none: then `installed` is where a package puts it. Those of
    `debian.CORPORA` are taken out of packages instead."""

    name: str
    group: str  # what its clips are: see Clip.group
    url: str
    archive: str
    licence: str
    about: str
    installed: str = ""


SOURCES = {
    source.name: source
    for source in (
        Source(
            "esc10",
            "sound",
            "https://github.com/karolpiczak/ESC-50",
            "https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip",
            "CC BY 3.0 or CC0, each clip's author in its LICENSE",
            "ESC-10 (K. J. Piczak, 2015): 10 classes of environmental sounds; fold 5 is never used",
        ),
        Source(
            "fsdd",
            "digit",
            "https://github.com/Jakobovski/free-spoken-digit-dataset",
            "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.zip",
            "CC BY-SA 4.0",
            "Free Spoken Digit Dataset (Z. Jackson and others): digits, 8 kHz; the speaker yweweler is never used",
        ),
        Source(
            "music",
            "music",
            "https://packages.debian.org/asterisk-moh-opsound-wav",
            "",
            "CC BY-SA 3.0 (Macroform, Manolo Camp, Reno Project)",
            "hold music of the Asterisk project, 8 kHz; from where its package puts it",
            installed="/usr/share/asterisk/moh",
        ),
        Source(
            debian.SOUNDS,
            "sound",
            _PACKAGES,
            "",
            f"{_BY_RECORDING} (GPL-2+, GPL-3+, CC BY, CC BY-SA, CC0, Artistic-1.0)",
            "38 classes of sounds out of Debian's games and desktop programs",
        ),
        Source(
            debian.MUSIC,
            "music",
            _PACKAGES,
            "",
            f"{_BY_RECORDING} (GPL-2+, GPL-3+, CC BY, CC BY-SA, CC0, public domain)",
            "music out of Debian's games, 17 hours",
        ),
        Source(
            debian.SPEECH,
            "speech",
            _PACKAGES,
            "",
            f"{_BY_RECORDING} (GPL-2, CC BY-SA 3.0, CC BY 3.0)",
            "people who talk, not in English; numbers in many languages; English digits of two speakers",
        ),
    )
}


def find(name: str) -> Source:
    """Raises SoundflowError."""
    if name not in SOURCES:
        raise SoundflowError(f"no recordings named {name!r}; there are {', '.join(SOURCES)}")
    return SOURCES[name]


def fetch(source: Source, home: Path, local: Path | None = None, progress: Progress | None = None) -> Path:
    """Bring a corpus under `home`, from its address or from a local copy (a folder or the zip file); return where.

    What is already there stays. Raises SoundflowError.
    """
    target = home / source.name
    if target.is_dir():
        return target
    partial = home / f".{source.name}.part"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        if local is not None and local.is_dir():
            _copy(local, partial)
        elif local is not None:
            _unpack(source, local, partial)
        elif source.archive:
            archive = home / f"{source.name}.zip"
            _download(source.archive, archive, progress or (lambda done, total, what: None))
            _unpack(source, archive, partial)
            archive.unlink()
        elif source.installed and Path(source.installed).is_dir():
            _copy(Path(source.installed), partial)
        else:
            package = source.url.rpartition("/")[2]
            raise SoundflowError(
                f"{source.name}: there is no {source.installed}; install Debian's {package}, or name a folder "
                "of recordings: --from FOLDER"
            )
        if not any(path.suffix in _SUFFIXES for path in partial.rglob("*")):
            raise SoundflowError(f"{local or source.archive} holds no recordings of {source.name}")
        partial.rename(target)
    except OSError as error:
        raise SoundflowError(f"{source.name} could not be brought to {home}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def database(names: tuple[str, ...], home: Path, rules: Rules | None = None, progress: Progress | None = None) -> Clips:
    """The clips of several corpora; `progress` counts recordings. Raises SoundflowError, which says what to run."""
    sources = [find(name) for name in names]
    if missing := " ".join(name for name in names if not (home / name).is_dir()):
        raise SoundflowError(f"the recordings {missing} are not here; run: offhook soundflow fetch {missing}")
    counts = [len(files(home / name)) for name in names]
    total, tell = sum(counts), progress or (lambda done, total, what: None)
    made, before = Clips((), ()), 0
    for source, count in zip(sources, counts, strict=True):
        made = made + scan(
            home / source.name,
            source.group,
            licence=source.licence,
            rules=rules,
            progress=_onward(tell, before, total),
        )
        before += count
    return made


def _onward(tell: Progress, before: int, total: int) -> Progress:
    return lambda done, _, what: tell(before + done, total, what)


def _copy(folder: Path, target: Path) -> None:
    """Recordings and licences, with their folders."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _SUFFIXES or path.name.lower().startswith("licen"):
            place = target / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def _download(url: str, path: Path, progress: Progress) -> None:
    partial = path.with_suffix(".part")
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=30.0) as response, partial.open("wb") as file:
            response.raise_for_status()
            total, done = int(response.headers.get("content-length", 0)), 0
            for block in response.iter_bytes(_BLOCK):
                file.write(block)
                done += len(block)
                progress(done, total, url)
    except httpx.HTTPError as error:
        partial.unlink(missing_ok=True)
        raise SoundflowError(f"{url} could not be fetched ({error}); with a local copy: --from PATH") from error
    partial.rename(path)


def _unpack(source: Source, archive: Path, target: Path) -> None:
    """The recordings of a zip file. Of ESC-50, those that its table says are ESC-10, in a folder a class."""
    try:
        with zipfile.ZipFile(archive) as packed:
            names = packed.namelist()
            table = next((name for name in names if name.endswith("meta/esc50.csv")), None)
            wanted: dict[str, str] = {}
            if table:
                for row in csv.DictReader(io.StringIO(packed.read(table).decode())):
                    if row["esc10"] == "True":
                        wanted[row["filename"]] = row["category"]
            for name in names:
                leaf = name.rsplit("/", 1)[-1]
                if leaf.lower().startswith("licen"):
                    (target / leaf).write_bytes(packed.read(name))
                elif leaf.endswith(_SUFFIXES) and (not table or leaf in wanted):
                    place = target / wanted.get(leaf, "") / leaf
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(packed.read(name))
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        raise SoundflowError(f"{archive} is not a zip file of {source.name}: {error}") from error
