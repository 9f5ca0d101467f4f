"""Recordings that Debian's packages carry: `debian.tsv` says which file of which package, whose it is, and its sha256.

A package is read, never installed: a .deb is an `ar` archive (deb(5)) with a compressed tar file in it, of which the
recordings of the table are taken out and nothing else.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import lzma
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from soundflow.errors import SoundflowError

TABLE = Path(__file__).with_name("debian.tsv")
SOUNDS, MUSIC, SPEECH = "debian-sounds", "debian-music", "debian-speech"
CORPORA = (SOUNDS, MUSIC, SPEECH)
_CORPUS_OF_CLASS = {"music": MUSIC, "speech": SPEECH, "digits": SPEECH}  # any other class is a sound
# Nobody talks in these files of a telephone exchange. A few Czech words have `moh` in them, and go with them.
_NO_TALK = re.compile("silence|tone|beep|moh|monkey")
_RELEASE = "Debian 12 (bookworm)"
_MB = 1_000_000
_POLL_S = 0.5

Progress = Callable[[int, int, str], None]
"""(megabytes so far, megabytes in all, what)"""


@dataclass(frozen=True, slots=True)
class Recording:
    """A row of the table. `file` is CLASS/SOURCE~TAKE.ext, where it goes; `path` is where its package has it.

    With a `*` in it, which stands for folders too, `path` is many files, less those that _NO_TALK finds. `file` is then
    CLASS/SOURCE~, to which a number and the name of each is joined (names repeat from folder to folder), and `sha256`
    is of their contents one after the other, in the order of their paths.
    """

    file: str
    package: str
    version: str
    path: str
    sha256: str
    licence: str

    @property
    def corpus(self) -> str:
        return _CORPUS_OF_CLASS.get(self.file.split("/")[0], SOUNDS)

    def matches(self, path: str) -> bool:
        """Whether a file of the package is one of many."""
        return fnmatchcase(path, self.path) and not _NO_TALK.search(path)

    @property
    def asked(self) -> str:
        """Its package, as apt-get is asked for it."""
        return f"{self.package}={self.version}"


@dataclass(frozen=True, slots=True)
class _Package:
    """A package to pass through. `deb` is where it lies; None: apt-get fetches it when it is asked for `asked`."""

    asked: str
    size: int
    wanted: Sequence[Recording]
    deb: Path | None = None


def recordings(table: Path = TABLE) -> tuple[Recording, ...]:
    """Every row of a table."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        names = ("file", "package", "version", "path", "sha256", "licence")
        return tuple(Recording(**{name: row[name] for name in names}) for row in rows)


def bring(
    corpora: Sequence[str],
    home: Path,
    local: Path | None = None,
    progress: Progress | None = None,
    table: Path = TABLE,
) -> None:
    """Bring corpora under `home`, each whole or not at all, out of packages in the folder `local` or from apt-get.

    Packages pass through one at a time, each once for all corpora. What a run that failed has taken out stays in hidden
    folders, and the next goes on from there. Raises SoundflowError, which says what to do.
    """
    missing = [name for name in corpora if not (home / name).is_dir()]
    rows = [row for row in recordings(table) if row.corpus in missing]
    tell = progress or (lambda done, total, what: None)
    passing = home / ".debian-package.part"
    try:
        packages = _there(_left(rows, home), local) if local else _offered(_left(rows, home))
        steps = 1 if local else 2  # fetched and read, or only read
        total, done = steps * sum(package.size for package in packages), 0
        for package in packages:
            shutil.rmtree(passing, ignore_errors=True)
            passing.mkdir(parents=True)
            so_far = _so_far(tell, done, total, package.asked)
            deb = package.deb or _download(package.asked, passing, so_far)
            done += (steps - 1) * package.size
            _take(deb, package.wanted, home, _so_far(tell, done, total, package.asked))
            done += package.size
        for name in missing:
            _partial(home, name).mkdir(parents=True, exist_ok=True)
            _say_whose(_partial(home, name) / TABLE.name, [row for row in rows if row.corpus == name])
            _partial(home, name).rename(home / name)
    except OSError as error:
        raise SoundflowError(f"{', '.join(missing)} could not be brought to {home}: {error}") from error
    finally:
        shutil.rmtree(passing, ignore_errors=True)


def _so_far(tell: Progress, before: int, total: int, what: str) -> Callable[[int], None]:
    """Tells of so many bytes more than `before`."""
    return lambda more: tell((before + more) // _MB, total // _MB, what)


def command(rows: Sequence[Recording]) -> str:
    """What fetches the packages of these recordings, by hand."""
    return f"apt-get download {' '.join(dict.fromkeys(row.asked for row in rows))}"


def _left(rows: Sequence[Recording], home: Path) -> list[list[Recording]]:
    """What is not taken out yet, by package."""
    packages: dict[str, list[Recording]] = {}
    for row in rows:
        place = _place(row, home)
        taken = sorted(place.parent.glob(f"{place.name}*")) if "*" in row.path else [place] * place.is_file()
        if _sha256(path.read_bytes() for path in taken) != row.sha256:
            packages.setdefault(row.asked, []).append(row)
    return [packages[asked] for asked in sorted(packages)]


def _partial(home: Path, corpus: str) -> Path:
    return home / f".{corpus}.part"


def _place(row: Recording, home: Path, take: str = "") -> Path:
    return _partial(home, row.corpus) / (row.file + take)


def _sha256(contents: Iterable[bytes]) -> str:
    made = hashlib.sha256()
    for content in contents:
        made.update(content)
    return made.hexdigest()


def _write(place: Path, data: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)


def _there(packages: Sequence[Sequence[Recording]], folder: Path) -> list[_Package]:
    """The packages in a folder: the table's version, or else any. Raises SoundflowError, which names all that lack."""
    found, lacking = [], []
    for rows in packages:
        name, version = rows[0].package, rows[0].version.replace(":", "%3a")
        debs = [*sorted(folder.glob(f"{name}_{version}_*.deb")), *sorted(folder.glob(f"{name}_*.deb"))]
        if debs:
            found.append(_Package(rows[0].asked, debs[0].stat().st_size, rows, debs[0]))
        else:
            lacking.append(rows[0])
    if lacking:
        raise SoundflowError(f"{folder} lacks packages of {_RELEASE}; fetch them there with: {command(lacking)}")
    return found


def _offered(packages: Sequence[Sequence[Recording]]) -> list[_Package]:
    """What apt-get would fetch: the table's version, or else the one that is there. Raises SoundflowError."""
    by_hand = "{}; then: --from the folder with the packages"
    all_rows = [row for rows in packages for row in rows]
    if packages and not shutil.which("apt-get"):
        raise SoundflowError(f"there is no apt-get here. On {_RELEASE}: {by_hand.format(command(all_rows))}")
    offers = []
    for rows in packages:
        for asked in (rows[0].asked, rows[0].package):
            uris = subprocess.run(["apt-get", "--print-uris", "-q", "download", asked], capture_output=True, text=True)
            line = next((line for line in uris.stdout.splitlines() if line.startswith("'")), "")
            if uris.returncode == 0 and line:
                offers.append(_Package(asked, int(line.split()[2]), rows))
                break
        else:
            said = uris.stderr.strip().splitlines() or ["nothing"]
            raise SoundflowError(
                f"apt-get offers no {rows[0].package} (it says: {said[-1]}); after `apt-get update`, or on {_RELEASE}: "
                + by_hand.format(command(rows))
            )
    return offers


def _download(asked: str, folder: Path, tell: Callable[[int], None]) -> Path:
    """Have apt-get fetch one package; `tell` how many bytes are there. Raises SoundflowError."""
    said = folder / "said"
    with said.open("wb") as errors:
        process = subprocess.Popen(
            ["apt-get", "-q", "download", asked], cwd=folder, stdout=subprocess.DEVNULL, stderr=errors
        )
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_S)
                with suppress(FileNotFoundError):  # renamed while we look
                    tell(sum(entry.stat().st_size for entry in os.scandir(folder)))
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    debs = list(folder.glob("*.deb"))
    if process.returncode or not debs:
        raise SoundflowError(
            f"apt-get download {asked} failed: {said.read_text(errors='replace').strip()}; run it again to go on, "
            "or with packages that you have: --from their folder"
        )
    return debs[0]


def _take(deb: Path, wanted: Sequence[Recording], home: Path, tell: Callable[[int], None]) -> None:
    """Take the recordings out of a package. Raises SoundflowError if one is not there or not what the table says."""
    single = {row.path: row for row in wanted if "*" not in row.path}
    many = [row for row in wanted if "*" in row.path]
    found: dict[Recording, dict[str, bytes]] = {row: {} for row in many}
    missing = set(wanted)
    try:
        with deb.open("rb") as file, _files(file, deb) as tar:
            for member in tar:
                tell(file.tell())
                path = member.name.removeprefix("./")
                row = single.get(path) or next((row for row in many if row.matches(path)), None)
                content = tar.extractfile(member) if row and member.isfile() else None
                if row is None or content is None:
                    continue
                data = content.read()
                if row in found:
                    found[row][path] = data
                elif _sha256([data]) == row.sha256:
                    _write(_place(row, home), data)
                    missing.discard(row)
                if not missing:
                    break
        for row, files in found.items():
            if _sha256(files[path] for path in sorted(files)) == row.sha256:
                for number, path in enumerate(sorted(files), 1):  # so that the names are in the order of the paths
                    _write(_place(row, home, f"{number:04}-{path.rpartition('/')[2]}"), files[path])
                missing.discard(row)
        if not missing:
            tell(deb.stat().st_size)
            return
    except (tarfile.TarError, lzma.LZMAError, gzip.BadGzipFile, EOFError, ValueError) as error:
        raise SoundflowError(f"{deb.name} is not a package that can be read: {error}") from error
    first = next(row for row in wanted if row in missing)
    raise SoundflowError(
        f"{deb.name} is another version: {len(missing)} of {len(wanted)} recordings are not in it as they were "
        f"({first.path}). On {_RELEASE}: {command([first])}; then: --from the folder with the packages"
    )


@contextmanager
def _files(file: IO[bytes], deb: Path) -> Iterator[tarfile.TarFile]:
    """The tar file in an open package. Raises ValueError, tarfile.TarError, SoundflowError."""
    name, size = _data(file)
    part = io.BufferedReader(_Part(file, size), _MB)
    if name == "data.tar.zst":  # not in the standard library before Python 3.14
        with _by_dpkg(deb) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            yield tar
        return
    openers: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
        "data.tar.xz": lzma.open,
        "data.tar.gz": lambda stream: io.BufferedReader(gzip.GzipFile(fileobj=stream)),
        "data.tar": lambda stream: stream,
    }
    if name not in openers:
        raise ValueError(f"{name} is in it, which nobody here can open")
    with openers[name](part) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        yield tar


@contextmanager
def _by_dpkg(deb: Path) -> Iterator[IO[bytes]]:
    """A package's tar file as dpkg-deb writes it out."""
    if not shutil.which("dpkg-deb"):
        raise SoundflowError(f"{deb.name} is packed with zstd, for which dpkg-deb is needed, and it is not here")
    process = subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.stdout.close()
        process.terminate()  # we may have had enough before its end
        process.wait()


def _data(file: IO[bytes]) -> tuple[str, int]:
    """The name and length of the member of an `ar` archive that holds the files; `file` is then at its beginning."""
    if file.read(8) != b"!<arch>\n":
        raise ValueError("it does not begin as one does")
    while len(header := file.read(60)) == 60:
        name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), int(header[48:58])
        if name.startswith("data.tar"):
            return name, size
        file.seek(size + size % 2, os.SEEK_CUR)
    raise ValueError("no data.tar is in it")


class _Part(io.RawIOBase):
    """The next so many bytes of a file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        got = self._file.read(min(len(buffer), self._left))
        buffer[: len(got)] = got
        self._left -= len(got)
        return len(got)


def _say_whose(path: Path, rows: Sequence[Recording]) -> None:
    lines = ["file\tpackage\tversion\tlicence", *(f"{r.file}\t{r.package}\t{r.version}\t{r.licence}" for r in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
