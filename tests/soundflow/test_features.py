"""States on disk are those that serving has, and are made once."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")
pytest.importorskip(
    "transformers", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test"
)

from pathlib import Path

import numpy as np
import torch

from calls.audio import CHUNK_SAMPLES
from model_worker.catalogue import Catalogue
from model_worker.interaction.config import TEST
from model_worker.interaction.perception import Perception
from soundflow import features
from soundflow.base import statistics
from soundflow.errors import NotWritten
from soundflow.shards import shard_path, write
from soundflow.train.prepare import starting
from tests.soundflow.making import full_disk, made_item

TOWER = {
    name.removeprefix("tower."): tensor
    for name, tensor in starting(TEST, Catalogue(), 1).tensors.items()
    if name.startswith("tower.")
}


def test_items_of_different_lengths_are_heard_as_serving_hears_them() -> None:
    items = [made_item(1, chunks=14), made_item(2, chunks=10), made_item(3, chunks=12)]
    states = features.Encoder(TEST, TOWER, together=2).states(items)
    assert [len(own) for own in states] == [14, 10, 12]
    perception = Perception(TEST, 1)
    perception.load(TOWER)
    for item, own in zip(items, states, strict=True):
        perception.reset(0)
        for chunk in range(item.chunks):
            pcm = item.audio[chunk * CHUNK_SAMPLES : (chunk + 1) * CHUNK_SAMPLES].astype(np.float32) / 32768
            served = perception.states(torch.tensor([0]), torch.from_numpy(pcm)[None])[0]
            torch.testing.assert_close(own[chunk].float(), served, atol=1e-2, rtol=2e-3)  # float16


def test_features_are_made_once_and_again_for_another_tower_or_shard(tmp_path: Path) -> None:
    items = [made_item(seed) for seed in range(3)]
    shard = write(tmp_path, "train", 0, items)
    encoder = features.Encoder(TEST, TOWER)
    path, made = features.cache(encoder, shard)
    assert made
    before = [one.states.clone() for one in features.encoded(shard)]
    assert features.cache(encoder, shard) == (path, False)
    path.write_bytes(b"")
    assert features.cache(encoder, shard) == (path, True)
    again = [one.states for one in features.encoded(shard)]
    assert all(torch.equal(one, other) for one, other in zip(again, before, strict=True))
    other = {**TOWER, "conv1.weight": TOWER["conv1.weight"] + 0.1}
    assert features.cache(features.Encoder(TEST, other), shard)[1]
    trained = {**TOWER, "proj.weight": TOWER["proj.weight"] + 0.1}  # the states do not depend on it
    assert features.Encoder(TEST, trained).fingerprint == encoder.fingerprint
    write(tmp_path, "train", 0, items[:2])
    assert features.cache(encoder, shard_path(tmp_path, "train", 0))[1]
    assert [one.states.shape[0] for one in features.encoded(shard)] == [item.chunks for item in items[:2]]
    assert not list(tmp_path.glob(".*.part"))


def test_a_full_disk_leaves_the_features_that_were_there(tmp_path: Path) -> None:
    shard = write(tmp_path, "train", 0, [made_item(seed) for seed in range(3)])
    encoder = features.Encoder(TEST, TOWER)
    path, _ = features.cache(encoder, shard)
    before = path.read_bytes()
    with full_disk(20_000), pytest.raises(NotWritten, match=r"the disk is full: .*train-00000\.features"):
        features.cache(encoder, shard, force=True)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["train-00000.features", "train-00000.shard"]
    assert path.read_bytes() == before


def test_statistics_are_those_of_all_states_together() -> None:
    torch.manual_seed(1)
    parts = [torch.randn(4, 20, 3) * torch.tensor([1.0, 10.0, 150.0]) + 5 for _ in range(3)]
    mean, deviation = statistics(parts)
    flat = torch.cat(parts).flatten(0, 1)
    torch.testing.assert_close(mean, flat.mean(dim=0))
    torch.testing.assert_close(deviation, flat.std(dim=0, correction=0))
    with pytest.raises(ValueError, match="audio"):
        statistics([])
