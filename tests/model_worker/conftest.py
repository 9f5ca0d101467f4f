"""Real weights, pulled once into the user's own cache, and real speech."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.speech import SOUNDS, Pcm, read_prompt
from model_worker.cascade.finals import FinalRecogniser
from model_worker.cascade.language import LocalLanguageModel
from model_worker.cascade.partials import PartialRecogniser
from model_worker.catalogue import Catalogue
from model_worker.voice import PiperVoice

Models = Callable[[str], Path]


@pytest.fixture(scope="session")
def models() -> Models:
    """The directory of a model's weights, pulled if it is not here yet."""
    catalogue = Catalogue(overrides=dict(os.environ))
    return catalogue.pull


@pytest.fixture(scope="session")
def speech() -> Callable[[str], Pcm]:
    """A telephone prompt by name, as a caller's bridge hears it: 16 kHz float32."""
    if not SOUNDS.is_dir():
        pytest.skip("no recorded prompts here: apt install asterisk-core-sounds-en-wav")
    return read_prompt


@pytest.fixture(scope="session")
def partial_recogniser(models: Models) -> PartialRecogniser:
    return PartialRecogniser(models("moonshine-tiny"))


@pytest.fixture(scope="session")
def final_recogniser(models: Models) -> FinalRecogniser:
    return FinalRecogniser(models("whisper-base"))


@pytest.fixture(scope="session")
def language_model(models: Models) -> LocalLanguageModel:
    return LocalLanguageModel(models("qwen-0.5b") / "model.gguf")


@pytest.fixture(scope="session")
def piper(models: Models) -> PiperVoice:
    return PiperVoice(models("piper-joe"))
