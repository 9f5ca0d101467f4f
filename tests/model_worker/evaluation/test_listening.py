"""What is played to a model and what is kept of it, with a model that follows a simple rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calls.audio import CHUNK_S, SAMPLE_RATE
from model_worker.echo import EchoModel
from model_worker.evaluation.audio import samples, stream
from model_worker.evaluation.listening import Heard, listen
from model_worker.evaluation.manifest import Item, read
from model_worker.evaluation.scoring import Score, score
from tests.model_worker.evaluation.sounds import LoudModel, Pcm, quiet, save, tone


def items(folder: Path, *lines: str) -> list[Item]:
    (folder / "m.jsonl").write_text("\n".join(lines))
    return read(folder / "m.jsonl")


def hear(found: list[Item], together: int = 1, model: LoudModel | None = None) -> list[Heard]:
    return list(listen(model or LoudModel(), found, "wideband", together))


def scored(folder: Path, pcm: Pcm, line: str) -> Score:
    save(folder / "a.wav", pcm)
    (heard,) = hear(items(folder, line))
    return score(heard, samples(folder / "a.wav") / SAMPLE_RATE)


def test_the_model_hears_the_stream_chunk_by_chunk(tmp_path: Path) -> None:
    path = save(tmp_path / "a.wav", tone(1.0))
    model = LoudModel()
    (heard,) = hear(items(tmp_path, '{"audio": "a.wav", "expect": "silent"}'), model=model)
    assert model.streams["item-0"].chunks == list(stream(path, "wideband", "a.wav"))
    assert (heard.chunks, heard.undecided) == (10, 0)
    assert model.closed == ["item-0"]


def test_several_at_a_time_are_decided_as_each_alone(tmp_path: Path) -> None:
    lines = []
    for number in range(7):
        save(tmp_path / f"{number}.wav", np.concatenate([quiet(0.3 * number), tone(0.5)]))
        lines.append(f'{{"audio": "{number}.wav", "expect": "respond"}}')
    found = items(tmp_path, *lines)
    alone = {heard.item.line: heard.responded for heard in hear(found)}
    model = LoudModel()
    together = {heard.item.line: heard.responded for heard in hear(found, 3, model)}
    assert alone == together
    assert len(alone) == 7
    assert max(model.together) == 3
    assert sorted(model.closed) == [f"item-{number}" for number in range(7)]


def test_a_model_that_does_nothing(tmp_path: Path) -> None:
    save(tmp_path / "a.wav", tone(1.0))
    found = items(tmp_path, '{"audio": "a.wav", "expect": "respond"}')
    (heard,) = listen(EchoModel(), found, "g711")
    assert (heard.responded, heard.undecided) == ([], 0)
    case = score(heard, 1.0).cases[0]
    assert (case.responded, case.right, case.at_s, case.late_s) == (False, False, None, None)


def test_the_moment_of_a_response(tmp_path: Path) -> None:
    """Loud from 1.2 s on: on the stream 2.2 s, in the Chunk from 2.0 to 2.4 s, which ends at 1.4 s of the audio."""
    pcm = np.concatenate([quiet(1.2), tone(1.0)])
    line = '{"audio": "a.wav", "expect": "respond", "label": "siren", "instruction": "A siren."%s}'
    (case,) = scored(tmp_path, pcm, line % "").cases
    assert (case.responded, case.at_s, case.text, case.names_label) == (True, 1.4, "A siren.", True)
    assert case.late_s == pytest.approx(-0.8)  # before the end of the audio
    (case,) = scored(tmp_path, pcm, line % ', "respond_after_s": 1.2').cases
    assert case.late_s == pytest.approx(0.2)


def test_a_response_that_is_too_early_is_none(tmp_path: Path) -> None:
    pcm = np.concatenate([tone(0.4), quiet(1.6), tone(0.4), quiet(0.6)])
    line = '{"audio": "a.wav", "expect": "respond", "kind": "question", "instruction": "x", "respond_after_s": %s}'
    (case,) = scored(tmp_path, pcm, line % 1.9).cases
    assert (case.responded, case.premature, case.at_s) == (True, 1, 2.2)
    assert case.text == "x"
    (case,) = scored(tmp_path, pcm, line % 2.9).cases
    assert (case.responded, case.premature, case.text) == (False, 2, "")


def test_a_sound_may_be_told_of_while_it_is_heard(tmp_path: Path) -> None:
    pcm = np.concatenate([tone(0.4), quiet(1.6)])
    line = '{"audio": "a.wav", "expect": "respond", "kind": "sound", "instruction": "x", "respond_after_s": 1.9}'
    (case,) = scored(tmp_path, pcm, line).cases
    assert (case.responded, case.premature, case.at_s, case.late_s) == (True, 0, 0.2, pytest.approx(-1.7))


def test_silence_is_wanted_in_the_whole_stream(tmp_path: Path) -> None:
    line = '{"audio": "a.wav", "expect": "silent", "kind": "noise"}'
    loud = scored(tmp_path, np.concatenate([quiet(1.0), tone(0.4), quiet(1.0), tone(0.4)]), line)
    assert (loud.cases[0].right, loud.responses) == (False, 2)
    assert loud.hours == pytest.approx(5.8 / 3600, abs=CHUNK_S / 3600)
    still = scored(tmp_path, quiet(2.0), line)
    assert (still.cases[0].right, still.responses) == (True, 0)


def test_every_event_has_its_window(tmp_path: Path) -> None:
    """Three events: silence wanted, and it comes; a response wanted, and it comes; one wanted, and none comes."""
    pcm = np.concatenate([quiet(2.0), tone(0.8), quiet(1.2), quiet(1.0)])
    events = (
        '[{"at_s": 0, "end_s": 1, "expect": "silent"}, {"at_s": 2, "end_s": 2.8, "expect": "respond", "label": "x"}, '
        '{"at_s": 4, "end_s": 5, "expect": "respond"}]'
    )
    got = scored(tmp_path, pcm, f'{{"audio": "a.wav", "instruction": "x", "events": {events}}}')
    assert [case.right for case in got.cases] == [True, True, False]
    assert [case.text for case in got.cases] == ["", "x", ""]
    assert got.cases[1].at_s == 2.2
    assert got.cases[1].late_s == pytest.approx(-0.6)
    assert got.first is got.cases[1]


def test_writing_is_a_response_only_where_it_is_asked_for(tmp_path: Path) -> None:
    pcm = np.concatenate([quiet(0.6), tone(0.8), quiet(0.6)])
    line = '{"audio": "a.wav", "expect": "respond", "kind": "speech", "text": "Hello, big world", "label": "world"}'
    got = scored(tmp_path, pcm, line)
    assert got.cases[0].responded
    assert got.cases[0].late_s is None
    assert got.responses == 1
    assert (got.text, got.word_errors, got.words) == ("hello world", 1, 3)  # the better revision, once
    assert got.cases[0].names_label
