"""`offhook replay`, its processes and all, against a server that has one call."""

from __future__ import annotations

import json
import threading
import wave
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

from calls.audio import CHUNK_SAMPLES
from offhook.cli import app
from offhook.replay import compare

CHUNKS = 5
CALL = "01JD0A7YX3KQ9V5T2M8W4B6E17"


def decision(chunk: int, choice: str = "silent", score: float = 1.0, participant: str = "caller") -> dict[str, Any]:
    return {"participant": participant, "chunk": chunk, "choice": choice, "score": score, "stopped": chunk == 2}


def story() -> dict[str, Any]:
    return {
        "id": CALL, "mode": "answer", "ended_at": "2026-11-23T19:25:55.000Z",
        "participants": [{"id": "caller", "role": "caller"}, {"id": "voice_agent", "role": "voice_agent"}],
        "recording": {"path": "x.wav", "complete": True, "duration_s": 2.0, "channels": 2},
        "notices": [{"kind": "takeover", "text": "model worker w2 took the call over", "at_s": 1.0}],
    }  # fmt: skip


class Api(BaseHTTPRequestHandler):
    """The console's API as far as this command uses it."""

    story: ClassVar[dict[str, Any]]
    recording: ClassVar[bytes]

    def do_GET(self) -> None:
        of = f"/api/v1/calls/{CALL}"
        found = {
            "/api/v1/calls/01JD": self.story,
            f"{of}/decisions": {"decisions": [*(decision(i) for i in range(CHUNKS - 1)), decision(4, "answer", 0.7)]},
        }
        if self.path == f"{of}/recording":
            self._answer(200, self.recording)
        elif self.path in found:
            self._answer(200, json.dumps(found[self.path]).encode())
        else:
            self._answer(404, json.dumps({"error": "no such call", "hint": ""}).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    path = tmp_path / "call.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(CHUNKS * CHUNK_SAMPLES * 4))
    Api.story, Api.recording = story(), path.read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("OFFHOOK_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OFFHOOK_PASSWORD", "secret")
    monkeypatch.setenv("HOME", str(tmp_path))
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("service")
def test_a_call_is_decided_again_and_compared() -> None:
    done = CliRunner().invoke(app, ["replay", "01JD", "--model", "echo", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {
        "call": CALL,
        "model": "echo",
        "decisions": CHUNKS,
        "same": CHUNKS - 1,
        "differences": [
            {
                "participant": "caller",
                "chunk": 4,
                "at_s": 1.6,
                "then": {"choice": "answer", "score": 0.7},
                "now": {"choice": "silent", "score": 1.0},
            }
        ],
        "remarks": ["takeover: model worker w2 took the call over"],
    }


@pytest.mark.usefixtures("service")
def test_for_people() -> None:
    done = CliRunner().invoke(app, ["replay", "01JD", "--model", "echo"])
    assert done.exit_code == 0, done.output
    assert "answer 0.70  ->  silent 1.00" in done.stdout
    assert "5 chunks decided again by echo, 4 the same, 1 different" in done.stdout
    assert "took the call over" in done.stdout


@pytest.mark.usefixtures("service")
def test_what_cannot_be_done_ends_with_one_line_and_status_1() -> None:
    unknown = CliRunner().invoke(app, ["replay", "01XX"])
    assert (unknown.exit_code, "no such call" in unknown.stderr) == (1, True)
    parrot = CliRunner().invoke(app, ["replay", "01JD", "--model", "parrot"])
    assert (parrot.exit_code, "the reason is above" in parrot.stderr) == (1, True)
    Api.story = story() | {"recording": None}
    silent = CliRunner().invoke(app, ["replay", "01JD"])
    assert (silent.exit_code, "has no recording" in silent.stderr) == (1, True)


def test_a_step_of_the_stored_score_is_no_difference() -> None:
    then = {("caller", n): decision(n, score=0.5) for n in range(4)}
    now = {("caller", n): decision(n, score=0.5 + n * 0.004) for n in range(5)}
    assert [(d["chunk"], d["then"], d["now"]) for d in compare(then, now)] == [
        (2, {"choice": "silent", "score": 0.5}, {"choice": "silent", "score": 0.508}),
        (3, {"choice": "silent", "score": 0.5}, {"choice": "silent", "score": 0.512}),
        (4, None, {"choice": "silent", "score": 0.516}),
    ]
