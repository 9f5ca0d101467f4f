"""The commands that read calls, against a server that has some."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import pytest
from rich.console import Console
from typer.testing import CliRunner

from offhook import show
from offhook.cli import app

OLD = "01HZ0A7YX3KQ9V5T2M8W4B6E19"
IDS = ("01JD0A7YX3KQ9V5T2M8W4B6E17", "01JD0A7YX3KQ9V5T2M8W4B6E18", OLD)  # the newest first


def brief(call_id: str) -> dict[str, Any]:
    return {
        "id": call_id, "mode": "answer", "state": "ended", "bridge": "mediastreams", "duration_s": 62.0,
        "from": "sip:somebody-with-a-long-name@192.0.2.10", "to": "sip:answer@127.0.0.1",
        "started_at": "2026-11-23T19:25:55.000Z",
    }  # fmt: skip


class Api(BaseHTTPRequestHandler):
    """The console's API as far as these commands use it: tests/console holds the real one to the same answers."""

    asked: list[str]

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.asked.append(path)
        wanted = path.removeprefix("/api/v1/calls/")
        found = [call_id for call_id in IDS if call_id.startswith(wanted)]
        if path == "/api/v1/calls":
            self._answer(200, {"calls": [brief(call_id) for call_id in IDS]})
        elif len(found) == 1:
            self._answer(200, brief(found[0]))
        else:
            self._answer(404, {"error": f"{wanted} names several calls", "hint": ""})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A service whose requests are listed."""
    paths: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Asked", (Api,), {"asked": paths}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setenv("OFFHOOK_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OFFHOOK_PASSWORD", "any")
    yield paths
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("width", [10, 26, 30, 40, 60, 80, 200])
def test_an_id_is_never_cut(width: int) -> None:
    out = io.StringIO()
    Console(file=out, width=width).print(show.call_table([brief(call_id) for call_id in IDS]), crop=False)
    assert re.findall(r"^01\S*", out.getvalue(), re.MULTILINE) == list(IDS)


def test_calls_prints_ids_that_show_takes(asked: list[str]) -> None:
    listed = CliRunner().invoke(app, ["calls"], env={"COLUMNS": "40"})
    assert listed.exit_code == 0, listed.output
    for call_id in re.findall(r"^01\S*", listed.stdout, re.MULTILINE):
        assert json.loads(CliRunner().invoke(app, ["show", call_id, "--json"]).stdout)["id"] == call_id
    assert asked == ["/api/v1/calls", *(f"/api/v1/calls/{call_id}" for call_id in IDS)]


def test_show_takes_last_and_a_unique_beginning(asked: list[str]) -> None:
    for name, expected in (("last", IDS[0]), (OLD[:6], OLD)):
        shown = CliRunner().invoke(app, ["show", name, "--json"])
        assert json.loads(shown.stdout)["id"] == expected
    several = CliRunner().invoke(app, ["show", "01JD"])
    assert several.exit_code == 1
    assert "several calls" in several.output


def test_version() -> None:
    told = CliRunner().invoke(app, ["--version"])
    assert (told.exit_code, told.output) == (0, f"offhook {version('offhook')}\n")
