from __future__ import annotations

from pathlib import Path

import pytest

from soundflow import whole
from soundflow.errors import NotWritten
from tests.soundflow.making import full_disk


def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    whole.write(path, [b"be", b"fore"])
    with full_disk(1_000), pytest.raises(NotWritten, match=r"^the disk is full: .*file could not .* make room"):
        whole.write(path, [bytes(900), bytes(900)])
    with pytest.raises(NotWritten, match=r"below could not be written: .*File exists"):
        whole.write(path / "below", [b""])
    with pytest.raises(KeyError):
        fail(path, KeyError())
    assert [one.name for one in path.parent.iterdir()] == ["file"]
    assert path.read_bytes() == b"before"


def fail(path: Path, error: Exception, *others: type[Exception]) -> None:
    with whole.writing(path, *others) as partial:
        partial.write_bytes(b"half")
        raise error


def test_what_a_library_raises_in_place_of_oserror(tmp_path: Path) -> None:
    """safetensors has the number in its text, torch raises after the error that has it."""
    of_torch = RuntimeError("unexpected pos 64 vs 0")
    of_torch.__context__ = OSError(28, "No space left on device")
    for error in (RuntimeError("I/O error: No space left on device (os error 28)"), of_torch):
        with pytest.raises(NotWritten, match="the disk is full"):
            fail(tmp_path / "file", error, RuntimeError)
    with pytest.raises(NotWritten, match="could not be written: odd"):
        fail(tmp_path / "file", RuntimeError("odd"), RuntimeError)
    with pytest.raises(RuntimeError, match="odd"):
        fail(tmp_path / "file", RuntimeError("odd"))
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".train-00001.shard.77.part").write_bytes(b"half")
    whole.sweep(tmp_path)
    assert not list(tmp_path.iterdir())
