"""One model out of several: their mean, and what is refused."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")
pytest.importorskip(
    "transformers", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test"
)

from pathlib import Path

import torch

from calls.settings import Settings
from model_worker.catalogue import Catalogue
from model_worker.interaction.config import TEST, TEST_TIERS, InteractionConfig
from soundflow.commands import mean as command
from soundflow.errors import SoundflowError
from soundflow.train.prepare import starting
from soundflow.train.run import save
from soundflow.train.start import trained


def made(folder: Path, seed: int, config: InteractionConfig = TEST_TIERS) -> str:
    name = folder / f"{'tiers' if config.ear else 'one'}-{seed}"
    save(starting(config, Catalogue(folder), seed), name, threshold=0.1 * seed)
    return str(name)


def test_every_tensor_is_the_mean_and_a_model_may_count_twice(tmp_path: Path) -> None:
    one, other = made(tmp_path, 1), made(tmp_path, 2)
    assert command.main([str(tmp_path / "mean"), one, one, other, "--answering", "0.9"], Settings()) == 0
    first, second, found = (trained(str(name), Catalogue(tmp_path).path) for name in (one, other, tmp_path / "mean"))
    for name, tensor in found.tensors.items():
        expected = (2 * first.tensors[name] + second.tensors[name]) / 3
        torch.testing.assert_close(tensor, expected, atol=2e-3, rtol=2e-3)  # it is kept in float16
    assert found.config.threshold == pytest.approx(0.1)
    assert found.config.answering == 0.9


def test_models_of_different_shapes_have_no_mean(tmp_path: Path) -> None:
    one, other = made(tmp_path, 1), made(tmp_path, 1, TEST)
    with pytest.raises(SoundflowError, match="is of another shape"):
        command.main([str(tmp_path / "mean"), one, other], Settings())
    assert not (tmp_path / "mean").exists()
    with pytest.raises(SoundflowError, match="is there already"):
        command.main([one, other, other], Settings())
    with pytest.raises(SystemExit):
        command.main([str(tmp_path / "mean"), one], Settings())
    with pytest.raises(SystemExit):
        command.main([str(tmp_path / "mean"), one, other, "--threshold", "1.5"], Settings())


def test_one_model_gets_other_thresholds(tmp_path: Path) -> None:
    one = made(tmp_path, 1)
    assert command.main([str(tmp_path / "ready"), one, "--threshold", "0.3", "--answering", "0.8"], Settings()) == 0
    before, found = (trained(str(name), Catalogue(tmp_path).path) for name in (one, tmp_path / "ready"))
    assert (found.config.threshold, found.config.answering) == (0.3, 0.8)
    for name, tensor in found.tensors.items():
        torch.testing.assert_close(tensor, before.tensors[name])
