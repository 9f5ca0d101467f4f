"""Material that every machine has: espeak-ng's voices, tones, synthesised sounds, no recordings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from soundflow import config
from soundflow.build import Recipe
from soundflow.clips import Clips
from soundflow.material import Material
from soundflow.speech import Speech


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The `test` configuration, with fewer and shorter streams."""
    speech = Speech(tmp_path_factory.mktemp("speech"), Path("/nowhere"))
    small = replace(
        config.load("test"), items={"train": 12, "dev": 3, "test": 3}, per_shard=4, pool=2, seconds=(6.0, 9.0)
    )
    return Recipe(small, Material(Clips((), ()), speech, small.cast))
