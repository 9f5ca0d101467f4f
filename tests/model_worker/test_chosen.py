"""Which model OFFHOOK_MODEL names. The ones that are served are in test_worker.py and tests/system."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from calls.errors import OffhookError, SettingsError
from calls.settings import Settings
from model_worker.chosen import load, load_to_decide_again, needed
from model_worker.interaction.config import TEST
from model_worker.interaction.make import make_native
from model_worker.interaction.model import Interaction
from model_worker.interaction.random_weights import RandomWeights
from model_worker.joined import Joined


def test_an_unknown_model_is_refused() -> None:
    for name in ("parrot", "parrot+interaction:compact", "cascade+parrot", "cascade+", "interaction", ""):
        with pytest.raises(SettingsError, match="use cascade, interaction:DIR, cascade\\+interaction:DIR or echo"):
            load(Settings(model=name), {})


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.startswith("model_worker.interaction.load")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in (f"interaction:{tmp_path}", f"cascade+interaction:{tmp_path}"):
        with pytest.raises(SettingsError, match=r'needs torch: pip install "offhook\[interaction\]"'):
            load_to_decide_again(Settings(model=name), {})
        with pytest.raises(SettingsError, match=r"OFFHOOK_MODEL=.*\+?interaction:.* needs torch"):
            load(Settings(model=name), {})


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


def test_two_are_joined_words_by_the_first_and_sounds_by_the_second(tmp_path: Path) -> None:
    make_native(tmp_path / "tiny", RandomWeights(TEST, seed=1))
    model = load_to_decide_again(Settings(model=f"echo+interaction:{tmp_path / 'tiny'}"), {})
    assert isinstance(model, Joined)
    assert (model.name, model.transcribes, model.load()) == ("echo+interaction:tiny", False, 0.0)
    model.shut_down()


def test_what_the_second_lacks_is_told_before_the_first_is_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no such directory"):
        load(Settings(model="cascade+interaction:none", models=tmp_path), {})


def test_a_directory_may_be_called_like_two_models(tmp_path: Path) -> None:
    make_native(tmp_path / "a+interaction:b", RandomWeights(TEST, seed=1))
    model = load_to_decide_again(Settings(model=f"interaction:{tmp_path / 'a+interaction:b'}"), {})
    assert model.name == "interaction:a+interaction:b"


def test_what_a_model_builds_on_is_needed_too(tmp_path: Path) -> None:
    make_native(tmp_path / "whole", RandomWeights(TEST, seed=1))
    rest = ["silero-vad", "whisper-base", "piper-joe"]

    def of(model: str) -> list[str]:
        return needed(Settings(model=model), ["qwen"])

    assert of("cascade") == ["qwen"]
    assert of("echo") == []
    assert of("echo+interaction:small") == ["silero-vad", "whisper-base"]
    assert of(f"interaction:{tmp_path / 'whole'}") == rest
    assert of(f"interaction:{tmp_path}") == rest  # no checkpoint: whoever loads it says so
    assert of("interaction:compact") == [*rest, "smollm2-135m"]
    assert of("cascade+interaction:compact") == ["qwen", "smollm2-135m", "whisper-base"]
    assert of("cascade+interaction:small") == ["qwen", "whisper-base"]
    assert needed(Settings(model="interaction:small", voice_url="http://127.0.0.1:1"), []) == rest[:2]
    with pytest.raises(SettingsError, match="no such directory"):
        of("interaction:no-such-model")
