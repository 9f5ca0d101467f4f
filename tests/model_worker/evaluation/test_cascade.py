"""The cascade on real sounds, if its weights are here."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from calls.settings import Settings
from model_worker.archives import CatalogueError
from model_worker.catalogue import Catalogue
from model_worker.evaluation import manifest
from model_worker.evaluation.__main__ import evaluate, lengths
from model_worker.evaluation.figures import Figures
from model_worker.evaluation.models import Loaded, load

ROOT = Path(__file__).resolve().parents[3]
DIGITS, NOISES = ROOT / "tests" / "data" / "digits", ROOT / "tests" / "data" / "noises"
QUESTION = ROOT / "offhook" / "demo" / "caller" / "1-hours.wav"


@pytest.fixture(scope="module")
def cascade() -> Iterator[Loaded]:
    catalogue = Catalogue(overrides=os.environ)
    try:
        for name in ("silero-vad", "moonshine-tiny", "whisper-base", "smart-turn", "minilm"):
            catalogue.path(name)
    except CatalogueError as error:
        pytest.skip(f"the cascade's weights are not here: {error}")
    loaded = load(Settings(model="cascade"), os.environ)
    yield loaded
    loaded.model.shut_down()  # type: ignore[attr-defined]


def measured(loaded: Loaded, folder: Path, *lines: dict[str, str]) -> Figures:
    path = folder / "m.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    items = manifest.read(path)
    return evaluate(loaded, items, lengths(path, items), "g711", lambda chunks: None)


def test_what_it_writes_and_when_it_answers(cascade: Loaded, tmp_path: Path) -> None:
    lines = [
        {"audio": str(DIGITS / "6_theo_7.wav"), "expect": "respond", "kind": "digits", "label": "6", "text": "six"},
        {"audio": str(QUESTION), "expect": "respond", "kind": "question"},
        {"audio": str(QUESTION), "expect": "silent", "kind": "sound"},
        {"audio": str(NOISES / "1-62849-A.ogg"), "expect": "silent", "kind": "noise"},
    ]
    found = measured(cascade, tmp_path, *lines)
    six, answered, written, clock = found["items"]
    assert six["names_label"]
    assert found["wer"] == 0.0
    assert answered["decided"] == "respond"
    assert abs(answered["late_s"]) < 2.0  # at the end of the question, not in it
    assert (written["decided"], clock["decided"]) == ("silent", "silent")
    assert found["false_wakes_per_hour"]["noise"] == 0.0
    assert found["counts"]["undecided"] == 0
    assert measured(cascade, tmp_path, *lines) == found
