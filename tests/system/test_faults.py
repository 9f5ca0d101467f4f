"""What breaks under a live call, and what the call makes of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from offhook.place import Via, orders, place_orders
from tests.system.conftest import System, start, stop

WORDS = ("vm-goodbye", "all-circuits-busy-now", "vm-review", "vm-goodbye", "all-circuits-busy-now", "vm-goodbye")


@pytest.fixture(scope="module")
def fragile(server_folder: Path) -> Iterator[System]:
    """A service of this file's own: it is broken again and again."""
    system = start(server_folder / "faults")
    yield system
    stop(system)


async def call_while(system: System, wav: Path, fault: Callable[[], Any], after_s: float) -> dict[str, Any]:
    """Place a transcribed call, break something in the middle, give the story when it is all written."""
    steps = [[{"play": str(wav)}, {"pause": 4}]]
    call = asyncio.create_task(place_orders(system.running, orders(Via.SIP, "transcribe", steps), None))
    await asyncio.sleep(after_s)
    await asyncio.to_thread(fault)
    completed, call_id, why = await call
    assert completed, why
    return await asyncio.to_thread(system.client.wait_until_written, call_id, 60.0)


def said_after(story: dict[str, Any], at_s: float) -> list[str]:
    return [u["text"] for u in story["utterances"] if u["end_s"] > at_s and u["text"]]


@pytest.fixture
def long_speech(say: Callable[..., Path]) -> Path:
    return say(1.0, *(part for word in WORDS for part in (word, 1.0)))


async def test_a_killed_worker_costs_no_call_and_no_transcript(fragile: System, long_speech: Path) -> None:
    story = await call_while(fragile, long_speech, lambda: fragile.kill("-m", "model_worker"), after_s=9)
    assert story["state"] == "ended"
    assert len(said_after(story, 14)) >= 2, story["utterances"]
    # The audio of the last minute is on the bus, so the next worker decides every chunk, if late.
    assert story["decisions"]["chunks"] >= int(story["duration_s"] / 0.4) - 3, story["decisions"]
    assert not [notice for notice in story["notices"] if notice["kind"] == "hole"]


async def test_a_killed_valkey_costs_no_call_and_no_transcript(fragile: System, long_speech: Path) -> None:
    story = await call_while(fragile, long_speech, lambda: fragile.kill("valkey-server"), after_s=9)
    assert story["state"] == "ended"
    assert len(said_after(story, 14)) >= 2, story["utterances"]
    assert story["decisions"]["chunks"] >= int(story["duration_s"] / 0.4) - 3


async def test_a_valkey_that_is_away_for_five_seconds_loses_nothing(fragile: System, long_speech: Path) -> None:
    def freeze() -> None:
        pid = fragile.pid_of("valkey-server")
        os.kill(pid, signal.SIGSTOP)
        time.sleep(5)
        os.kill(pid, signal.SIGCONT)

    story = await call_while(fragile, long_speech, freeze, after_s=6)
    assert story["state"] == "ended"
    assert story["decisions"]["chunks"] >= int(story["duration_s"] / 0.4) - 3
    assert len(said_after(story, 0)) >= 4


async def test_a_killed_agent_costs_no_row(fragile: System, long_speech: Path) -> None:
    story = await call_while(fragile, long_speech, lambda: fragile.kill("-m", "agent"), after_s=9)
    assert story["state"] == "ended"
    assert story["decisions"]["chunks"] >= int(story["duration_s"] / 0.4) - 3
    assert len({u["id"] for u in story["utterances"]}) == len(story["utterances"])


async def test_a_database_that_is_away_for_five_seconds_loses_nothing(fragile: System, long_speech: Path) -> None:
    def freeze() -> None:
        pids = [int(line) for line in subprocess.check_output(["pgrep", "-u", _owner(fragile), "postgres"]).split()]
        mine = [pid for pid in pids if _under(pid, fragile.data)]
        assert mine
        for pid in mine:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(5)
        for pid in mine:
            os.kill(pid, signal.SIGCONT)

    story = await call_while(fragile, long_speech, freeze, after_s=6)
    assert story["state"] == "ended"
    assert story["decisions"]["chunks"] >= int(story["duration_s"] / 0.4) - 3
    assert len(said_after(story, 0)) >= 4


def _owner(system: System) -> str:
    return str((system.data / "postgres" / "pg" / "PG_VERSION").owner())


def _under(pid: int, folder: Path) -> bool:
    """Is this a server of the cluster in `folder`? Its backends have the postmaster as their parent."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
        parent = int(status.rpartition(")")[2].split()[1])
        commands = [Path(f"/proc/{p}/cmdline").read_bytes() for p in (pid, parent)]
    except OSError:
        return False
    return any(str(folder).encode() in command for command in commands)
