"""How the other commands find the service that `offhook up` runs on this machine.

`offhook up` leaves running.json in its data folder and, so that commands find it whatever folder that was, in
~/.cache/offhook. It holds the password, so it is readable by its owner alone, and it goes when the service stops.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from calls.errors import OffhookError
from offhook.secrets import write_private


class NotRunning(OffhookError):
    """No service was found; the text says how to start or name one."""


@dataclass(frozen=True, slots=True)
class Running:
    """A service and how to speak to it. The telephone part is empty for a service on another machine."""

    url: str
    password: str
    pid: int = 0
    data: str = ""
    sip_host: str = ""
    sip_port: int = 0
    media_url: str = ""
    public_url: str = ""  # what Twilio would call, if it was set
    twilio_auth_token: str = ""
    database_url: str = ""

    @property
    def stopped(self) -> bool:
        """Its process ran on this machine and runs no more."""
        return bool(self.pid) and not _alive(self.pid)


def _files(data: Path | None) -> list[Path]:
    shared = Path.home() / ".cache" / "offhook" / "running.json"
    return [data / "running.json", shared] if data else [shared]


def announce(running: Running) -> None:
    for path in _files(Path(running.data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, json.dumps(asdict(running)))


def withdraw(running: Running) -> None:
    for path in _files(Path(running.data)):
        if _read(path) == running:
            path.unlink(missing_ok=True)


def find(url: str = "", password: str = "", data: Path | None = None) -> Running:
    """The service named by `url` and `password`, else the one of this machine. Raises NotRunning."""
    local = next((found for path in _files(data) if (found := _read(path)) and not found.stopped), None)
    if url and (local is None or url.rstrip("/") != local.url):
        if not password:
            raise NotRunning(f"a password is needed for {url}: give --password or set OFFHOOK_PASSWORD")
        return Running(url.rstrip("/"), password)
    if local is None:
        raise NotRunning("no running service found: start one with `offhook up`, or name one with --url and --password")
    return Running(**{**asdict(local), "password": password or local.password})


def _read(path: Path) -> Running | None:
    try:
        return Running(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
