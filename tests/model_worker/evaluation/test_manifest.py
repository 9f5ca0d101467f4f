from __future__ import annotations

from pathlib import Path

import pytest

from calls.model import Mode
from model_worker.evaluation.kinds import POLICY
from model_worker.evaluation.manifest import Item, ManifestError, read


def write(folder: Path, *lines: str) -> Path:
    path = folder / "m.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def one(folder: Path, line: str) -> Item:
    (item,) = read(write(folder, line))
    return item


def test_a_line_is_an_item(tmp_path: Path) -> None:
    item = one(
        tmp_path,
        '{"audio": "a/b.wav", "expect": "respond", "kind": "sound", "label": "dog", "text": null, '
        '"respond_after_s": 1.5, "note": "ignored"}',
    )
    assert (item.line, item.path, item.mode) == (1, tmp_path / "a/b.wav", Mode.ASSIST)
    assert item.instruction == POLICY[Mode.ASSIST]
    (event,) = item.events
    assert (event.respond, event.label, event.respond_after_s, event.end_s) == (True, "dog", 1.5, None)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("digits", Mode.TRANSCRIBE),
        ("Hold-Music", Mode.ANSWER),
        ("line noise", Mode.ANSWER),
        ("anything else", Mode.ASSIST),
    ],
)
def test_the_kind_tells_the_mode(tmp_path: Path, kind: str, mode: Mode) -> None:
    assert one(tmp_path, f'{{"audio": "a.wav", "expect": "silent", "kind": "{kind}"}}').mode is mode


@pytest.mark.parametrize("kind", ["", '"kind": "spoken_digit", '])
def test_of_another_kind_it_is_speech_if_words_are_said_in_it(tmp_path: Path, kind: str) -> None:
    line = f'{{"audio": "a.wav", {kind}"expect": "respond", "label": %s, "text": "seven"}}'
    assert one(tmp_path, line % '"7"').mode is Mode.TRANSCRIBE
    assert one(tmp_path, line % '"baby_cry"').mode is Mode.ASSIST  # there the text is what the sound is called


def test_a_line_may_say_mode_and_instruction_itself(tmp_path: Path) -> None:
    item = one(tmp_path, '{"audio": "a.wav", "expect": "silent", "mode": "answer", "instruction": "Count."}')
    assert (item.mode, item.instruction) == (Mode.ANSWER, "Count.")


def test_a_line_may_say_its_task_and_what_is_to_be_replied(tmp_path: Path) -> None:
    item = one(tmp_path, '{"audio": "a.wav", "expect": "respond", "task": "instructions/count", "reply": "Two."}')
    assert (item.task, item.events[0].reply, item.text) == ("instructions/count", "Two.", "")
    plain = one(tmp_path, '{"audio": "a.wav", "expect": "silent", "task": null, "reply": ""}')
    assert (plain.task, plain.events[0].reply) == ("", "")


def test_events_and_empty_lines(tmp_path: Path) -> None:
    events = '[{"at_s": 0, "end_s": 1, "expect": "silent"}, {"at_s": 2, "end_s": 3, "expect": "respond", "text": "hi"}]'
    items = read(write(tmp_path, "", f'{{"audio": "a.wav", "events": {events}}}', "  "))
    assert [(item.line, len(item.events), item.text) for item in items] == [(2, 2, "hi")]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "truncated"),
        ('{"expect": "silent"}', "`audio`"),
        ('{"audio": " ", "expect": "silent"}', "`audio` is empty"),
        ('{"audio": "a.wav"}', "wants `expect`"),
        ('{"audio": "a.wav", "expect": "loud"}', "'loud'"),
        ('{"audio": "a.wav", "expect": "respond", "respond_after_s": "soon"}', "respond_after_s"),
        ('{"audio": "a.wav", "expect": "respond", "respond_after_s": -1}', "-1"),
        ('{"audio": "a.wav", "expect": "silent", "respond_after_s": 1}', "silence is expected"),
        ('{"audio": "a.wav", "expect": "silent", "reply": "Two."}', "silence is expected"),
        ('{"audio": "a.wav", "expect": "silent", "mode": "sing"}', "sing"),
        ('{"audio": "a.wav", "events": []}', "`events` is empty"),
        ('{"audio": "a.wav", "expect": "silent", "events": [{"at_s": 0, "end_s": 1, "expect": "silent"}]}', "in each"),
        ('{"audio": "a.wav", "events": [{"at_s": 2, "end_s": 1, "expect": "silent"}]}', "follow"),
        (
            '{"audio": "a.wav", "events": [{"at_s": 0, "end_s": 2, "expect": "silent"}, '
            '{"at_s": 1, "end_s": 3, "expect": "silent"}]}',
            "after 2.0 s",
        ),
        ("[1]", "object"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    path = write(tmp_path, '{"audio": "a.wav", "expect": "silent"}', line)
    with pytest.raises(ManifestError) as caught:
        read(path)
    assert "line 2: " in str(caught.value)
    assert says in str(caught.value)
    assert "line 1" not in str(caught.value)


def test_every_wrong_line_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"line 1: .*\nline 2: .*\nline 3: "):
        read(write(tmp_path, "x", "y", "z"))


def test_no_manifest_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(ManifestError, match="no items"):
        read(write(tmp_path, ""))
    (tmp_path / "latin.jsonl").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ManifestError, match="cannot be read"):
        read(tmp_path / "latin.jsonl")
