"""The supervisor's process: restarted with back-off, stopped at once, and never an orphan."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from offhook.process import LogFile, Service

SLEEPS = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)")


async def until(condition, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.02)


async def test_a_killed_service_comes_back_and_stop_ends_it(tmp_path: Path) -> None:
    lines: list[str] = []
    service = Service("s", SLEEPS, dict(os.environ), tmp_path / "s.log", lambda name, line: lines.append(line))
    running = asyncio.create_task(service.run())
    await until(lambda: lines == ["up"])
    first = service.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: lines == ["up", "up"])
    assert service.restarts == 1
    assert service.pid not in (None, first)
    await service.stop()
    await asyncio.wait_for(running, 5)
    assert service.pid is None
    assert (tmp_path / "s.log").read_text() == "up\nup\n"


async def test_a_service_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    stubborn = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    lines: list[str] = []
    command = (sys.executable, "-c", stubborn)
    service = Service("s", command, dict(os.environ), tmp_path / "s.log", lambda name, line: lines.append(line))
    running = asyncio.create_task(service.run())
    await until(lambda: bool(lines))
    await service.stop(grace_s=0.2)
    await asyncio.wait_for(running, 5)
    await until(lambda: not Path(f"/proc/{lines[0]}/cmdline").exists() or _zombie(int(lines[0])))


def _zombie(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


async def test_services_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    supervisor = (
        "import asyncio, os, sys\nfrom pathlib import Path\nfrom offhook.process import Service\n"
        f"service = Service('s', {SLEEPS!r}, dict(os.environ), Path({str(tmp_path / 's.log')!r}),\n"
        "    lambda name, line: print(service.pid, flush=True))\n"
        "asyncio.run(service.run())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", supervisor], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int((await asyncio.to_thread(parent.stdout.readline)).strip())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    await until(lambda: _zombie(child))


async def test_a_disk_that_is_full_costs_log_lines_and_nothing_else(tmp_path: Path) -> None:
    full = tmp_path / "full.log"
    full.symlink_to("/dev/full")
    lines: list[str] = []
    service = Service("s", SLEEPS, dict(os.environ), full, lambda name, line: lines.append(line))
    running = asyncio.create_task(service.run())
    await until(lambda: lines == ["up"])
    await service.stop()
    await asyncio.wait_for(running, 5)


def test_a_long_log_begins_anew_and_keeps_the_one_before(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "s.log", most_bytes=10)
    for line in (b"one\n", b"two-----\n", b"three\n"):
        log.write(line)
    log.close()
    assert (tmp_path / "s.old.log").read_bytes() == b"one\ntwo-----\n"
    assert (tmp_path / "s.log").read_bytes() == b"three\n"
