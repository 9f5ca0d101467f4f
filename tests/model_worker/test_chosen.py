"""Which model OFFHOOK_MODEL names. The ones that are served are in test_worker.py and tests/system."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from calls.errors import OffhookError, SettingsError
from calls.settings import Settings
from model_worker.chosen import load, load_to_decide_again
from model_worker.interaction.config import TEST
from model_worker.interaction.make import make_native
from model_worker.interaction.model import Interaction
from model_worker.interaction.random_weights import RandomWeights


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(SettingsError, match="use cascade, interaction:DIR or echo"):
        load(Settings(model="parrot"), {})


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.startswith("model_worker.interaction.load")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SettingsError, match=r'needs torch: pip install "offhook\[interaction\]"'):
        load_to_decide_again(Settings(model=f"interaction:{tmp_path}"), {})


def test_a_directory_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OffhookError, match="is no checkpoint"):
        load_to_decide_again(Settings(model=f"interaction:{tmp_path}"), {})


def test_a_checkpoint_is_named_by_its_directory(tmp_path: Path) -> None:
    make_native(tmp_path / "tiny", RandomWeights(TEST, seed=1))
    model = load_to_decide_again(Settings(model=f"interaction:{tmp_path / 'tiny'}"), {})
    assert (model.name, model.transcribes, model.load()) == ("interaction:tiny", False, 0.0)


@pytest.mark.parametrize(("ears", "slots"), [(0, 8), (5, 5), (1, 2)])
def test_a_worker_has_two_slots_a_call_unless_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ears: int, slots: int
) -> None:
    """And never fewer than the next call may need."""
    make_native(tmp_path / "tiny", RandomWeights(TEST, seed=1))
    monkeypatch.setattr("model_worker.voices.load_voice", lambda *_: None)
    model, _ = load(Settings(model=f"interaction:{tmp_path / 'tiny'}", worker_calls=4, worker_ears=ears), {})
    assert isinstance(model, Interaction)
    assert model._serving.slots == slots
    assert model.load() == 0.0
