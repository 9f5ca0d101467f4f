from __future__ import annotations

from pathlib import Path

import pytest

from model_worker.evaluation import picture
from model_worker.evaluation.figures import Figures, figures
from model_worker.evaluation.picture import NoPicture, check, draw
from model_worker.evaluation.scoring import Score
from tests.model_worker.evaluation.test_figures import scores

__all__ = ["scores"]  # the fixture

PNG = b"\x89PNG"


def told(scores: list[Score]) -> Figures:
    return {"model": "loud", "channel": "g711", **figures(scores)}


@pytest.fixture(autouse=True)
def matplotlib() -> None:
    pytest.importorskip("matplotlib", reason="pictures need the extra soundflow")


def test_everything_is_drawn(scores: list[Score], tmp_path: Path) -> None:
    draw(told(scores), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)


def test_what_cannot_be_told_is_left_out(scores: list[Score], tmp_path: Path) -> None:
    draw(told(scores[4:5]), tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(PNG)


def test_labels_the_worst_first_in_each_colour(scores: list[Score]) -> None:
    rows = picture._labels(told(scores)["items"])
    assert rows == [
        ("siren", True, 0, 1),
        ("sneezing", True, 0, 1),
        ("4", True, 1, 1),
        ("baby_cry", True, 1, 1),
        ("chainsaw", True, 1, 1),
        ("dog", False, 0, 1),
        ("rain", False, 1, 1),
    ]


def test_where_one_thing_is_expected_it_says_which(scores: list[Score]) -> None:
    kinds = told(scores)["kinds"]
    assert picture._value(kinds["silence"])[2] == "silent only"
    assert picture._value(kinds["digits"])[2] == "respond only"
    assert picture._value(kinds["sound"])[2] == ""


def test_wrong_files_are_told_before_anything_is_played(tmp_path: Path) -> None:
    check(tmp_path / "a.png")
    for path in (tmp_path / "a.jpg", tmp_path / "nowhere" / "a.png"):
        with pytest.raises(NoPicture, match="--picture"):
            check(path)


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(NoPicture, match=r"pip install 'offhook\[soundflow\]'"):
        check(tmp_path / "a.png")
