"""Files that are there whole or not at all: written beside their place and renamed into it.

So a run that is killed, or meets a full disk, leaves what was there before; running it again makes what is missing.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from soundflow.errors import NotWritten

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_IN_TEXT = re.compile(r"\(os error (\d+)\)")


@contextmanager
def writing(path: Path, *others: type[Exception]) -> Iterator[Path]:
    """Yields where to write a file, and then puts it into its place.

    `others`: what a library raises where it cannot write, besides OSError. Raises NotWritten, leaving nothing.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    failures: tuple[type[Exception], ...] = (OSError, *others)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except failures as error:
        raise not_written(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file that will still be there after a power cut. Raises NotWritten."""
    with writing(path) as partial, partial.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def is_partial(path: Path) -> bool:
    """Is this what a killed run left half written?"""
    return path.match(".*.part")


def sweep(folder: Path) -> None:
    """Remove what a killed run left half written."""
    for path in filter(is_partial, folder.glob("*")):
        path.unlink(missing_ok=True)


def not_written(path: Path, error: Exception) -> NotWritten:
    """The error that says which file, and why, or that the disk is full."""
    if _number(error) in _FULL:
        return NotWritten(
            f"the disk is full: {path} could not be written. What is finished is kept: make room and run the same "
            "command again"
        )
    return NotWritten(f"{path} could not be written: {error}")


def _number(error: BaseException) -> int | None:
    """errno. safetensors has it in its text only, and torch raises another error after the OSError."""
    if isinstance(error, OSError):
        return error.errno
    if told := _IN_TEXT.search(str(error)):
        return int(told[1])
    return _number(error.__context__) if error.__context__ else None
