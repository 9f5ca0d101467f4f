"""Ctrl-C while a call is under way: the caller is hung up on, the call is written, and no service is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.system.conftest import start, stop

SERVICES = ("telephony", "agent", "model_worker", "console", "celery")


def test_nothing_is_left_behind(server_folder: Path, say: Callable[..., Path], until: Callable[..., None]) -> None:
    folder = server_folder / "stop"
    caller = str(say(60.0))
    system = start(folder, OFFHOOK_MODEL="echo")
    pids: dict[str, int] = {}
    phone = subprocess.Popen(
        [sys.executable, "-m", "offhook.cli", "call", "--caller", caller, "--no-wait-wrap-up", "--data", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        pids |= {name: system.pid_of("-m", name) for name in SERVICES} | {"valkey": system.pid_of("valkey-server")}
        assert len(set(pids.values())) == len(pids)
        until(lambda: [call for call in system.client.calls(live=True) if call["started_at"]], what="the call")
        [live] = system.client.calls(live=True)
        until(lambda: system.client.call(live["id"])["decisions"]["chunks"] > 2, what="a decision")
        system.process.send_signal(signal.SIGINT)
        assert system.process.wait(40) == 0
        assert {name for name, pid in pids.items() if alive(pid)} == set()
        # It was hung up on, long before a minute of silence was over, and asks nobody who is not there for the call.
        assert f"see the call by `offhook show {live['id']}`" in phone.communicate(timeout=30)[1].replace("\n", " ")
    finally:
        for process in (system.process, phone):
            process.kill()
            process.wait()
        for pid in filter(alive, pids.values()):
            os.kill(pid, signal.SIGKILL)
    again = start(folder, OFFHOOK_MODEL="echo")
    try:
        story = again.client.call(live["id"])
        assert story["state"] == "ended"
        assert story["reason"] == "the service is stopping"
        assert story["recording"]["complete"]
        assert story["decisions"]["chunks"] > 2
    finally:
        stop(again)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
