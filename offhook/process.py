"""One supervised service process: started, watched, restarted with back-off, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from offhook.servers import die_with_parent

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1  # a worker that was killed has live calls waiting
LONGEST_PAUSE_S = 10.0
LOG_BYTES = 20 << 20  # of each service; as much again is kept of what came before
STEADY_S = 20.0  # a process that lived so long begins again with the first pause


class LogFile:
    """A service's log. When it is long it begins anew, and the one before is kept beside it. A full disk costs lines,
    never the service."""

    def __init__(self, path: Path, most_bytes: int = LOG_BYTES) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._file: BinaryIO | None = None
        self._failing = False

    def write(self, line: bytes) -> None:
        try:
            if self._file is None:
                self._file = self._path.open("ab", buffering=0)
            self._file.write(line)
            if self._file.tell() > self._most_bytes:
                self.close()
                self._path.replace(self._path.with_suffix(".old.log"))
        except OSError as error:
            if not self._failing:
                log.error("%s cannot be written (%s): its lines are lost until it can", self._path, error.strerror)
            self._failing = True
            self.close()
        else:
            self._failing = False

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


class Service:
    """A service of `offhook up`. `run` keeps it alive until `stop`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        env: dict[str, str],
        log_file: Path,
        on_line: Callable[[str, str], None] = lambda name, line: None,
        nice: int = 0,
    ) -> None:
        self.name = name
        self._command = list(command)
        self._env = env
        self._log_file = log_file
        self._on_line = on_line
        self._nice = nice
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self.restarts = -1

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    async def run(self) -> None:
        """Start it, and start it again whenever it ends, until `stop`."""
        pause_s = FIRST_PAUSE_S
        while not self._stopping:
            self.restarts += 1
            started = time.monotonic()
            status = await self._run_once()
            if self._stopping:
                return
            if time.monotonic() - started > STEADY_S:
                pause_s = FIRST_PAUSE_S
            log.warning("%s ended (%s); again in %.1f s; its log: %s", self.name, status, pause_s, self._log_file)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _run_once(self) -> str:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C goes to the supervisor alone, which stops them in order
            preexec_fn=self._prepare,
            limit=1 << 20,
        )
        assert self._process.stdout is not None
        log_file = LogFile(self._log_file)
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:  # a line over the limit: it is dropped
                continue
            if not line:
                break
            log_file.write(line)
            self._on_line(self.name, line.decode(errors="replace").rstrip())
        log_file.close()
        code = await self._process.wait()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    def _prepare(self) -> None:
        die_with_parent()
        if self._nice:
            os.nice(self._nice)
            # The service is a session, which the kernel may weigh as a whole (sched(7), autogroup).
            with contextlib.suppress(OSError):
                Path("/proc/self/autogroup").write_text(str(self._nice))

    async def stop(self, grace_s: float = 8.0) -> None:
        """SIGTERM, then SIGKILL of the whole session after `grace_s`."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), grace_s)
        except TimeoutError:
            log.warning("%s did not stop in %.0f s: killed", self.name, grace_s)
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            await process.wait()
