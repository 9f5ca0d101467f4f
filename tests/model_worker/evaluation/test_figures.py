from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from calls.model import Utterance
from model_worker.evaluation.figures import figures
from model_worker.evaluation.intervals import mean_of_two, poisson, wilson
from model_worker.evaluation.listening import Heard, Response
from model_worker.evaluation.manifest import read
from model_worker.evaluation.report import show
from model_worker.evaluation.scoring import Score, score

LINES = [
    ({"expect": "respond", "label": "baby_cry"}, 5, "A baby."),
    ({"expect": "respond", "label": "chainsaw"}, 4, "A baby."),
    ({"expect": "respond", "label": "sneezing"}, None, ""),
    ({"expect": "respond", "label": "siren"}, None, ""),
    ({"expect": "silent", "label": "rain"}, None, ""),
    ({"expect": "silent", "label": "dog"}, 3, "A dog."),
    ({"expect": "silent", "kind": "silence"}, None, ""),
    ({"expect": "silent", "kind": "hold_music"}, 7, "Hello?"),
    ({"expect": "respond", "kind": "digits", "label": "4", "text": "four"}, 4, "for"),
    ({"expect": "respond", "kind": "recognition", "text": "press one now"}, 4, "Press 1 now."),
]


@pytest.fixture
def scores(tmp_path: Path) -> list[Score]:
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(json.dumps({"audio": "a.wav", **line}) for line, _, _ in LINES))
    found = []
    for item, (_, chunk, text) in zip(read(path), LINES, strict=True):
        heard = Heard(item, chunks=9000 if item.kind in ("silence", "hold_music") else 20)
        if chunk is not None:
            heard.responded.append(chunk)
            heard.responses["r"] = Response(chunk, text)
            heard.utterances["u"] = Utterance("u", "caller", 1.2, 1.9, text)
        found.append(score(heard, 5.0))
    return found


def test_every_figure(scores: list[Score]) -> None:
    found = figures(scores)
    assert found["respond_recall"] == round(4 / 6, 4)
    assert found["silent_recall"] == 0.5
    assert found["balanced_accuracy"] == round((4 / 6 + 2 / 4) / 2, 4)
    assert found["accuracy"] == 0.6
    assert found["safety_misses"] == round(1 / 3, 4)  # the siren; a sneeze is no matter of safety
    assert found["label_accuracy"] == 0.2  # the baby; "for" is not four
    assert found["wer"] == 0.25
    assert found["false_wakes_per_hour"] == {"silence": 0.0, "noise": 1.0}
    assert found["trigger_error_s"] == pytest.approx((5 - 1.4 + 5 - 1.0) / 2)
    assert found["trigger_late_s"] == pytest.approx(-3.8)
    counts = found["counts"]
    assert (counts["items"], counts["cases"], counts["respond"], counts["silent"]) == (10, 10, 6, 4)


def test_every_figure_has_its_interval(scores: list[Score]) -> None:
    found = figures(scores)
    ci = found["ci95"]
    assert ci["respond_recall"] == pytest.approx(wilson(4, 6), abs=1e-4)
    assert ci["balanced_accuracy"] == pytest.approx(mean_of_two(4, 6, 2, 4), abs=1e-4)
    assert ci["safety_misses"] == pytest.approx(wilson(1, 3), abs=1e-4)
    assert ci["false_wakes_per_hour"]["silence"] == pytest.approx(poisson(0), abs=1e-3)
    assert ci["false_wakes_per_hour"]["noise"] == pytest.approx(poisson(1), abs=1e-3)
    assert ci["wer"] == [0.0, 1.0]  # draws of one item twice
    assert ci["trigger_error_s"][0] == pytest.approx(3.6)


def test_beside_the_baselines(scores: list[Score]) -> None:
    bases = figures(scores)["baselines"]
    assert bases["always_silent"]["balanced_accuracy"] == bases["always_respond"]["balanced_accuracy"] == 0.5
    assert bases["always_silent"]["accuracy"] == 0.4
    assert bases["always_respond"]["accuracy"] == 0.6
    assert bases["always_silent"]["safety_misses"] == 1.0
    assert bases["always_respond"]["false_wakes_per_hour"]["noise"] == 9000


def test_what_cannot_be_told_is_none(scores: list[Score]) -> None:
    only = figures(scores[4:5])
    for name in ("balanced_accuracy", "respond_recall", "wer", "label_accuracy", "safety_misses", "trigger_error_s"):
        assert only[name] is None
        assert only["ci95"][name] is None
    assert only["silent_recall"] == 1.0


def test_no_word_wrong_is_not_certain(scores: list[Score]) -> None:
    low, high = figures(scores[9:])["ci95"]["wer"]
    assert (low, high) == pytest.approx(wilson(0, 3), abs=1e-4)


WRONG = [  # (what is said, what is written) of each item; the interval of the word error rate
    ([("press one now", "")], wilson(3, 3)),
    ([("press one now", "dress on how"), ("hello", "yellow")], wilson(4, 4)),
    ([("press one now", "press one how")], None),
    ([("hello", "yellow jello")], None),  # more wrong words than there are
]


@pytest.mark.parametrize(("said", "interval"), WRONG)
def test_how_sure_wrong_words_are(
    said: list[tuple[str, str]], interval: tuple[float, float] | None, tmp_path: Path
) -> None:
    lines = [({"expect": "respond", "kind": "recognition", "text": text}, 4, written) for text, written in said]
    found = figures(scored(tmp_path, lines))
    for part in (found, found["kinds"]["recognition"]):
        assert part["wer"] > 0
        assert part["ci95"]["wer"] == (None if interval is None else pytest.approx(interval, abs=1e-4))


def test_one_time_does_not_say_how_sure_it_is(scores: list[Score]) -> None:
    found = figures(scores[:1])
    assert found["trigger_error_s"] == pytest.approx(3.6)
    assert found["ci95"]["trigger_error_s"] is None


def test_no_interval_is_an_empty_cell_and_null(tmp_path: Path) -> None:
    line: dict[str, str | int] = {"expect": "respond", "kind": "speech", "text": "press one now", "respond_after_s": 1}
    found = {"model": "loud", "channel": "g711", **figures(scored(tmp_path, [(line, 7, "press one how")]))}
    out = Console(width=120, record=True, file=io.StringIO())
    show(found, out)
    rows = [" ".join(row.split()) for row in out.export_text().splitlines()]
    assert "word error rate 33.3%" in rows
    assert "trigger-time error, mean 1.20 s" in rows
    assert json.loads(json.dumps(found, allow_nan=False))["ci95"]["wer"] is None


def test_items_as_scripts_want_them(scores: list[Score]) -> None:
    items = figures(scores)["items"]
    assert len(items) == 10
    assert {"audio", "decided", "at_s", "text"} <= set(items[0])
    assert (items[0]["decided"], items[0]["at_s"], items[0]["text"]) == ("respond", 1.4, "A baby.")
    assert (items[2]["decided"], items[2]["at_s"], items[2]["text"]) == ("silent", None, "")
    assert json.loads(json.dumps(items, allow_nan=False)) == items


TASKS = [
    ({"expect": "respond", "task": "instructions/count", "reply": "Two."}, 5, "2"),
    ({"expect": "respond", "task": "instructions/count", "reply": "Three."}, 5, "Two."),
    ({"expect": "respond", "task": "instructions/count", "reply": "Three."}, None, ""),
    ({"expect": "silent", "task": "instructions/count"}, None, ""),
    ({"expect": "respond", "task": "translation/mixed", "reply": "Good day."}, 5, "Good day."),
    ({"expect": "silent"}, 5, "A dog."),
]


def scored(folder: Path, lines: Sequence[tuple[Mapping[str, str | int], int | None, str]]) -> list[Score]:
    path = folder / "tasks.jsonl"
    path.write_text("\n".join(json.dumps({"audio": "a.wav", **line}) for line, _, _ in lines))
    heard = [Heard(item, chunks=20) for item in read(path)]
    for one, (_, chunk, text) in zip(heard, lines, strict=True):
        if chunk is not None:
            one.responded.append(chunk)
            one.responses["r"] = Response(chunk, text)
            one.utterances["u"] = Utterance("u", "caller", 1.2, 1.9, text)
    return [score(one, 5.0) for one in heard]


def test_each_task_has_figures_of_its_own(tmp_path: Path, scores: list[Score]) -> None:
    found = figures(scored(tmp_path, TASKS))
    assert list(found["tasks"]) == ["instructions/count", "translation/mixed"]
    count = found["tasks"]["instructions/count"]
    assert (count["items"], count["respond"], count["silent"]) == (4, 3, 1)
    assert (count["respond_recall"], count["silent_recall"]) == (round(2 / 3, 4), 1.0)
    assert count["ci95"]["respond_recall"] == pytest.approx(wilson(2, 3), abs=1e-4)
    assert count["reply_accuracy"] == round(1 / 3, 4)  # "2" is "Two."; no response says nothing
    assert (found["reply_accuracy"], found["wer"]) == (0.5, None)
    assert [item["task"] for item in found["items"]][3:] == ["instructions/count", "translation/mixed", ""]
    assert figures(scores)["tasks"] == {}


def test_a_row_a_task(tmp_path: Path, scores: list[Score]) -> None:
    out = Console(width=120, record=True, file=io.StringIO())
    show({"model": "loud", "channel": "g711", **figures(scored(tmp_path, TASKS))}, out)
    (row,) = [" ".join(line.split()) for line in out.export_text().splitlines() if "instructions/count" in line]
    assert row == "instructions/count 66.7% 3 20.8% to 93.8% 100.0% 1 20.6% to 100.0% 33.3%"
    show({"model": "loud", "channel": "g711", **figures(scores)}, out)
    assert "task " not in out.export_text()


def test_a_table_for_people(scores: list[Score]) -> None:
    out = Console(width=120, record=True, file=io.StringIO())
    show({"model": "loud", "channel": "g711", **figures(scores)}, out)
    text = out.export_text()
    assert "balanced accuracy" in text
    assert "58.3%" in text
    assert "wrong: line 4, a.wav: silent" in text
    assert "hold_music" in text
