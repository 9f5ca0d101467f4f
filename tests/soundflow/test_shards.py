from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from soundflow import shards
from soundflow.errors import NotWritten
from soundflow.shards import Shard, ShardError
from tests.soundflow.making import full_disk, made_item, same


def test_what_was_written_is_read(tmp_path: Path) -> None:
    items = [made_item(seed, chunks=10 + seed) for seed in range(5)]
    shards.write(tmp_path, "train", 0, items[:3])
    shards.write(tmp_path, "train", 1, items[3:])
    read = list(shards.read(tmp_path, "train", check=True))
    assert len(read) == 5
    assert all(same(one, other) for one, other in zip(items, read, strict=True))
    shard = Shard(tmp_path / "train-00000.shard")
    assert all(np.array_equal(shard.labels(i), items[i].labels()) for i in range(3))
    assert same(shard[-1], items[2])
    assert [item.id for item in shard[0:2]] == ["item-0", "item-1"]
    with pytest.raises(IndexError):
        shard[3]


def test_same_items_same_bytes(tmp_path: Path) -> None:
    paths = [shards.write(tmp_path / name, "dev", 0, [made_item(1), made_item(2)]) for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("where", [3, 40, 5_000, -50, -1])
def test_damage_is_found(tmp_path: Path, where: int) -> None:
    path = shards.write(tmp_path, "train", 0, [made_item(1)])
    raw = bytearray(path.read_bytes())
    raw[where] ^= 0x40
    path.write_bytes(raw)
    with pytest.raises(ShardError, match="shard"):
        list(shards.read(tmp_path, "train", check=True))


@pytest.mark.parametrize("size", [0, 10, 25, 100, 20_000])
def test_a_cut_file_is_found_without_its_sum(tmp_path: Path, size: int) -> None:
    path = shards.write(tmp_path, "train", 0, [made_item(1)])
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ShardError, match="shard"):
        Shard(path)


@pytest.mark.parametrize("content", [b"", b'{"seed": ', b"5", b"[1, 2]", b"\xff\xfe{"])
def test_a_damaged_note_of_what_was_begun_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "build.json"
    assert not shards.begin(path, {"seed": 1})
    assert shards.begin(path, {"seed": 1})
    path.write_bytes(content)
    with pytest.raises(ShardError, match=r"build\.json is damaged, .* name another directory"):
        shards.begin(path, {"seed": 1})
    assert path.read_bytes() == content


def test_no_shards(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="holds no test shards"):
        list(shards.read(tmp_path, "test"))


def test_a_disk_that_fills_leaves_no_torn_shard(tmp_path: Path) -> None:
    before = shards.write(tmp_path, "train", 0, [made_item(0)]).read_bytes()
    with full_disk(200_000), pytest.raises(NotWritten, match=r"the disk is full: .*train-00001\.shard"):
        shards.write(tmp_path, "train", 1, [made_item(1), made_item(2)])
    assert [path.name for path in tmp_path.iterdir()] == ["train-00000.shard"]
    assert (tmp_path / "train-00000.shard").read_bytes() == before


def test_only_a_whole_shard_is_finished(tmp_path: Path) -> None:
    path = shards.write(tmp_path, "train", 0, [made_item(0)])
    assert shards.finished(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert not shards.finished(path)
    assert not shards.finished(tmp_path / "train-00001.shard")
