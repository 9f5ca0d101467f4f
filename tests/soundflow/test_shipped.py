"""The models that come with the package are whole, build on the catalogue, and wake for an alarm and not for quiet."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")
pytest.importorskip(
    "transformers", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test"
)

from collections.abc import Iterator

import numpy as np
import torch

from calls.audio import CHUNK_SAMPLES
from calls.errors import SettingsError
from model_worker.catalogue import Catalogue, CatalogueError
from model_worker.interaction.build import build
from model_worker.interaction.checkpoint import load
from model_worker.interaction.formats.weights import CheckpointError
from model_worker.interaction.shipped import SHIPPED, located
from soundflow import synth

SMALL = SHIPPED / "small"
COMPACT = SHIPPED / "compact"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on busy cores make small matrices ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_it_is_found_by_its_name_and_no_other() -> None:
    assert located("small") == SMALL
    assert sum(path.stat().st_size for path in SMALL.iterdir()) < 20_000_000
    with pytest.raises(SettingsError, match="compact, small"):
        located("no-such-model")


def test_the_one_with_a_language_model_has_the_same_ear_and_stays_small() -> None:
    together = sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file())
    assert together < 60_000_000
    catalogue = Catalogue()
    try:
        catalogue.path("whisper-base")
        catalogue.path("smollm2-135m")
    except CatalogueError as error:
        pytest.skip(str(error))
    ear, other = load(SMALL, find=catalogue.path), load(COMPACT, find=catalogue.path)
    assert (ear.config.threshold, ear.config.answering) == (other.config.threshold, other.config.answering)
    assert ear.ear.keys() == other.ear.keys()
    for name, tensor in ear.ear.items():
        assert torch.equal(tensor, other.ear[name])
    assert other.tokenizer.get_vocab_size() == other.config.tokens.lowest  # SmolLM2's words, then the markers


def test_without_the_catalogue_it_says_what_it_builds_on() -> None:
    with pytest.raises(CheckpointError, match="whisper-base"):
        load(SMALL)


def test_it_wakes_for_an_alarm_and_not_for_quiet() -> None:
    catalogue = Catalogue()
    try:
        catalogue.path("whisper-base")
    except CatalogueError as error:
        pytest.skip(str(error))
    serving = build(load(SMALL, find=catalogue.path), slots=2)
    rng = np.random.default_rng(1)
    quiet = np.asarray(synth.room(rng, 20 * CHUNK_SAMPLES) * 0.02, np.float32)
    alarm = quiet.copy()
    alarm[6 * CHUNK_SAMPLES : 16 * CHUNK_SAMPLES] += 0.3 * synth.smoke_alarm(rng, 4.0)[: 10 * CHUNK_SAMPLES]
    tokens = serving.config.tokens
    decided = []
    for pcm in (quiet, alarm):
        ear = serving.open([tokens.online, tokens.text_end], "assist")
        chunks = torch.from_numpy(pcm).split(CHUNK_SAMPLES)
        judged = [serving.hear([(ear, index, chunk)])[0][0] for index, chunk in enumerate(chunks)]
        decided.append([index for index, one in enumerate(judged) if one is not None and one.respond])
        serving.release(ear)
    assert decided[0] == []
    assert decided[1]
    assert 6 <= decided[1][0] < 17
