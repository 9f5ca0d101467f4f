"""A recorded call, decided again by the model that decided it live."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import msgspec
import numpy as np
import pytest

from calls.audio import CHUNK_SAMPLES
from calls.events import Decided, Event, ResponseOpened
from calls.model import Mode, Role
from model_worker.replay import ReplayError, Tracks, decide_again
from model_worker.stream import Past
from tests.model_worker.interaction.calls import chunks, model, told

COUNT = 30
LEFT, RIGHT = chunks(4, COUNT), chunks(7, COUNT, participant="human_agent")


def record(path: Path, cut: int = 0) -> Path:
    """What telephony would have recorded; `cut` samples are missing at its end."""
    sides = [np.frombuffer(b"".join(chunk.pcm for chunk in side), "<i2") for side in (LEFT, RIGHT)]
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.stack(sides, axis=1)[: COUNT * CHUNK_SAMPLES - cut].tobytes())
    return path


def test_the_chunks_are_the_very_samples(tmp_path: Path) -> None:
    tracks = Tracks(record(tmp_path / "call.wav", cut=100))
    assert len(tracks) == COUNT
    assert [tracks.chunk(Role.CALLER, i) for i in range(COUNT - 1)] == [chunk.pcm for chunk in LEFT[:-1]]
    assert tracks.chunk(Role.HUMAN_AGENT, 7) == RIGHT[7].pcm
    assert tracks.chunk(Role.CALLER, COUNT - 1) == LEFT[-1].pcm[:-200] + bytes(200)  # as Framer.rest fills it up


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="cannot be read"):
        Tracks(tmp_path / "none.wav")
    mono = tmp_path / "mono.wav"
    with wave.open(str(mono), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    with pytest.raises(ReplayError, match="two channels"):
        Tracks(mono)


@pytest.mark.parametrize("mode", list(Mode))
def test_a_call_is_decided_as_it_was_also_where_policy_stopped_it(tmp_path: Path, mode: Mode) -> None:
    served, events = model(), list[Event]()
    stream = served.open("c1", told(mode), events.append, Past())
    for mine, theirs in zip(LEFT, RIGHT, strict=True):
        served.step([(stream, mine), (stream, theirs)])
        for _ in range(mine.index % 4):
            served.respond()
        opened = [event.response_id for event in events if isinstance(event, ResponseOpened)]
        if opened and mine.index % 3 == 0:
            served.cancel(stream, opened[-1])
    served.close(stream)
    live = [event for event in events if isinstance(event, Decided)]
    # Who is not listened to was decided in the call's own order of participants; the others in that of their Chunks.
    stopped = {(event.participant_id, event.chunk) for event in live if event.stopped}
    assert bool(stopped) == (mode is not Mode.TRANSCRIBE)
    again = list(decide_again(model(), told(mode), Tracks(record(tmp_path / "call.wav")), stopped))
    assert sorted(map(_plain, again)) == sorted(map(_plain, live))
    assert len(again) == 2 * COUNT


def _plain(event: Decided) -> tuple[str, int, str, float, bool]:
    return event.participant_id, event.chunk, event.choice, event.score, event.stopped


def run(asked: str, model_name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "model_worker.replay"],
        env={**os.environ, "OFFHOOK_MODEL": model_name},
        input=asked,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_process_speaks_json_lines(tmp_path: Path) -> None:
    instruction = msgspec.to_builtins(told(Mode.ASSIST))
    asked = {"instruction": instruction, "recording": str(record(tmp_path / "call.wav")), "stopped": [["caller", 3]]}
    done = run(json.dumps(asked), "echo")
    assert done.returncode == 0, done.stderr
    first, *lines = map(json.loads, done.stdout.splitlines())
    assert first == {"model": "echo", "chunks": COUNT}
    assert lines[:2] == [
        {"participant": "caller", "chunk": 0, "choice": "silent", "score": 1.0},
        {"participant": "human_agent", "chunk": 0, "choice": "silent", "score": 1.0},
    ]
    assert len(lines) == 2 * COUNT


@pytest.mark.parametrize(
    ("asked", "name", "status", "words"),
    [
        ("{}", "echo", 2, "standard input"),
        ('{"instruction": {"mode": "sing"}, "recording": "x", "stopped": []}', "echo", 2, "standard input"),
        (
            '{"instruction": {"mode": "answer", "text": "", "participants": []}, "recording": "no.wav", "stopped": []}',
            "echo",
            1,
            "no.wav cannot be read",
        ),
    ],
)
def test_what_cannot_be_done_is_said(asked: str, name: str, status: int, words: str) -> None:
    done = run(asked, name)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("parrot", "is no model of this build"),
        ("interaction:/nowhere", "there is no such directory"),
        ("interaction:", "there is no such directory"),
        ("interaction:/", "is no checkpoint"),
    ],
)
def test_a_model_that_cannot_be_had_is_named(tmp_path: Path, name: str, words: str) -> None:
    instruction = {"mode": "answer", "text": "", "participants": []}
    done = run(
        json.dumps({"instruction": instruction, "recording": str(record(tmp_path / "c.wav")), "stopped": []}), name
    )
    assert done.returncode == 1
    assert words in done.stderr
