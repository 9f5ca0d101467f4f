"""`offhook eval` as a person runs it, with the model that does nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from offhook.cli import app
from tests.model_worker.evaluation.sounds import save, tone

ROOT = Path(__file__).resolve().parents[3]


def evaluate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "model_worker.evaluation", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OFFHOOK_MODEL": "echo", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    save(tmp_path / "a.wav", tone(0.5))
    save(tmp_path / "b.wav", tone(0.5, 8_000), 8_000)
    path = tmp_path / "m.jsonl"
    path.write_text(
        '{"audio": "a.wav", "expect": "respond", "kind": "sound", "label": "siren"}\n'
        '{"audio": "b.wav", "expect": "silent", "kind": "noise"}\n'
        '{"audio": "b.wav", "expect": "respond", "kind": "speech", "text": "hello"}\n'
    )
    return path


def test_json_is_all_that_is_printed(manifest: Path) -> None:
    done = evaluate("--manifest", manifest, "--json", "--channel", "g711")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["model"], found["channel"]) == ("echo", "g711")
    assert (found["balanced_accuracy"], found["respond_recall"], found["silent_recall"]) == (0.5, 0.0, 1.0)
    assert (found["wer"], found["label_accuracy"]) == (1.0, 0.0)
    assert [(item["audio"], item["decided"], item["at_s"], item["text"]) for item in found["items"]] == [
        ("a.wav", "silent", None, ""),
        ("b.wav", "silent", None, ""),
        ("b.wav", "silent", None, ""),
    ]
    assert "listening" in done.stderr
    assert evaluate("--manifest", manifest, "--json", "--channel", "g711").stdout == done.stdout


def test_a_table_otherwise(manifest: Path) -> None:
    done = evaluate("--manifest", manifest)
    assert done.returncode == 0, done.stderr
    assert "balanced accuracy" in done.stdout
    assert "always respond" in done.stdout


def test_by_way_of_offhook(manifest: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = CliRunner().invoke(app, ["eval", "--manifest", str(manifest), "--model", "echo", "--json"])
    assert done.exit_code == 0
    assert json.loads(capfd.readouterr().out)["counts"]["items"] == 3


def test_wrong_lines_and_audio_are_named_before_anything_is_played(manifest: Path) -> None:
    (manifest.parent / "empty.wav").touch()
    (manifest.parent / "text.wav").write_text("no audio at all")
    good = manifest.read_text()
    more = '{"audio": "%s", "expect": "silent"}\n'
    manifest.write_text(good + "".join(more % name for name in ("empty.wav", "text.wav", "none.wav")))
    done = evaluate("--manifest", manifest, "--json")
    assert (done.returncode, done.stdout) == (2, "")
    for part in ("line 4: ", "empty.wav: the file is empty", "line 5: ", "not audio", "line 6: ", "no such file"):
        assert part in done.stderr
    manifest.write_text(good + "{}\n")
    done = evaluate("--manifest", manifest, "--json")
    assert done.returncode == 2
    assert "line 4: " in done.stderr


def test_what_is_expected_after_the_end_is_wrong(manifest: Path) -> None:
    manifest.write_text('{"audio": "a.wav", "expect": "respond", "respond_after_s": 3}\n')
    done = evaluate("--manifest", manifest)
    assert done.returncode == 2
    assert "line 1: a.wav is 0.50 s long" in done.stderr


def test_no_such_model(manifest: Path) -> None:
    done = evaluate("--manifest", manifest, "--model", "parrot")
    assert done.returncode == 1
    assert "parrot" in done.stderr
