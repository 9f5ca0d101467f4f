"""Items on disk: one file for so many items, written whole or not at all.

    16 bytes   b"offhook-shard-1\\n"
    16 bytes   u64 length of the JSON, u64 number of samples (little-endian)
    JSON       [{...Item.meta(), "samples": n}, ...] padded with spaces to an even length
    audio      int16 little-endian, one item after another
    labels     int8, one a Chunk
    32 bytes   sha256 of everything before it

A shard is written beside its place and renamed into it, so that a run that is killed leaves a whole shard or none;
running it again makes the missing ones. Reading maps the file, so a split may be larger than memory.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from calls.audio import CHUNK_SAMPLES
from soundflow import whole
from soundflow.errors import SoundflowError
from soundflow.items import Item, Labels

_MAGIC = b"offhook-shard-1\n"
_SIZES = struct.Struct("<QQ")
_SUM = hashlib.sha256().digest_size
_BLOCK = 1 << 20


class ShardError(SoundflowError):
    """A shard is damaged, or there is none."""


def shard_path(folder: Path, split: str, number: int) -> Path:
    return folder / f"{split}-{number:05d}.shard"


def write(folder: Path, split: str, number: int, items: Sequence[Item]) -> Path:
    """Write one shard. The same items give the same bytes. Raises NotWritten, leaving nothing, if the disk is full."""
    path = shard_path(folder, split, number)
    parts = _parts(items)
    whole.write(path, parts)
    return path


def _parts(items: Sequence[Item]) -> list[bytes]:
    rows = [{**item.meta(), "samples": len(item.audio)} for item in items]
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (len(text) % 2)
    sizes = _SIZES.pack(len(text), sum(len(item.audio) for item in items))
    audio = [item.audio.astype("<i2", copy=False).tobytes() for item in items]
    labels = [item.labels().tobytes() for item in items]
    parts = [_MAGIC, sizes, text, *audio, *labels]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return [*parts, digest.digest()]


def begin(path: Path, told: Mapping[str, Any]) -> bool:
    """Note in `path` what its folder is filled with; True if that had been noted before.

    Raises SoundflowError, naming what differs, if it was begun otherwise, ShardError if `path` is damaged, NotWritten.
    """
    if not path.is_file():
        whole.write(path, [json.dumps(told, indent=1, sort_keys=True).encode()])
        return False
    try:
        was = dict(json.loads(path.read_bytes()))
    except (TypeError, ValueError) as error:
        raise ShardError(
            f"{path} is damaged, and with it what {path.parent} was begun with; name another directory ({error})"
        ) from error
    if different := sorted(key for key in {**told, **was} if was.get(key) != told.get(key)):
        raise SoundflowError(f"{path.parent} was begun with other {' and '.join(different)}; name another directory")
    return True


def verify(path: Path) -> str:
    """Check a shard's sha256 and return it in hex. Raises ShardError."""
    try:
        size = path.stat().st_size
        digest, left = hashlib.sha256(), size - _SUM
        with path.open("rb") as file:
            while left > 0 and (block := file.read(min(_BLOCK, left))):
                digest.update(block)
                left -= len(block)
            told = file.read(_SUM)
    except OSError as error:
        raise ShardError(f"{path} cannot be read: {error}") from error
    if left or told != digest.digest():
        raise ShardError(f"{path} is damaged; remove it and build again: only it will be made anew")
    return digest.hexdigest()


def finished(path: Path) -> bool:
    """Whether a shard is there and whole. One that is damaged is to be made anew."""
    if not path.is_file():
        return False
    try:
        verify(path)
    except ShardError:
        return False
    return True


class Shard(Sequence[Item]):
    """The items of one file, read as they are asked for. Raises ShardError if the file is not a whole shard.

    `check` compares the sha256 of the whole file, once.
    """

    def __init__(self, path: Path, *, check: bool = False) -> None:
        self.path = path
        if check:
            verify(path)
        try:
            with path.open("rb") as file:
                if file.read(len(_MAGIC)) != _MAGIC:
                    raise ShardError(f"{path} is not a shard of this version")
                text, samples = _SIZES.unpack(file.read(_SIZES.size))
                self._rows = json.loads(file.read(text))
        except (OSError, ValueError, struct.error) as error:
            raise ShardError(f"{path} is damaged: {error}") from error
        self._begin = len(_MAGIC) + _SIZES.size + text
        chunks = samples // CHUNK_SAMPLES
        if path.stat().st_size != self._begin + samples * 2 + chunks + _SUM:
            raise ShardError(f"{path} is damaged: it has {path.stat().st_size} bytes")
        self._samples = samples
        self._offsets = np.cumsum([0, *(row["samples"] for row in self._rows)])

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = dict(self._rows[index])
        count = row.pop("samples")
        offset = self._begin + 2 * int(self._offsets[range(len(self))[index]])
        audio = np.memmap(self.path, "<i2", "r", offset, (count,))
        return Item.from_meta(row, np.asarray(audio))

    def labels(self, index: int) -> Labels:
        """int8 [chunks] of one item, as they were when it was written."""
        first = int(self._offsets[index]) // CHUNK_SAMPLES
        count = self._rows[index]["samples"] // CHUNK_SAMPLES
        offset = self._begin + 2 * self._samples + first
        return np.asarray(np.memmap(self.path, np.int8, "r", offset, (count,)))


def shards(folder: Path, split: str, *, check: bool = False) -> list[Shard]:
    """The shards of a split, in order. Raises ShardError if there are none or one is damaged."""
    paths = sorted(folder.glob(f"{split}-*.shard"))
    if not paths:
        raise ShardError(f"{folder} holds no {split} shards; make them: offhook soundflow build {folder}")
    return [Shard(path, check=check) for path in paths]


def read(folder: Path, split: str, *, check: bool = False) -> Iterator[Item]:
    """Every item of a split, in the order in which they were built. Raises ShardError."""
    for shard in shards(folder, split, check=check):
        yield from shard
