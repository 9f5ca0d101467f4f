"""A whole service, as `offhook up` starts it, for every test in this folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from calls.audio import SAMPLE_BYTES, SAMPLE_RATE
from offhook.client import Client
from offhook.local import Running, find
from offhook.phone.wav import load
from offhook.servers import free_port

PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
LOGS = Path(__file__).resolve().parents[2] / "artefacts" / "system"


@dataclass
class System:
    """A running service and how to look into it."""

    running: Running
    data: Path
    process: subprocess.Popen[str]
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def client(self) -> Client:
        return Client(self.running)

    def pid_of(self, *command_words: str) -> int:
        """The newest child of `offhook up` with these words one after the other in its command line."""
        found, wanted = [], list(command_words)
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                except OSError:
                    continue
                words = [Path(word).name for word in command.split()]
                runs = (words[at : at + len(wanted)] for at in range(len(words)))
                if parent == self.process.pid and wanted in runs:
                    found.append(int(folder.name))
        assert found, f"no process with {command_words}"
        return max(found)

    def kill(self, *command_words: str) -> int:
        pid = self.pid_of(*command_words)
        os.kill(pid, signal.SIGKILL)
        return pid

    def offhook(self, *arguments: str, check: bool = True, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """The command line, in a process of its own, as a user runs it."""
        return subprocess.run(
            [sys.executable, "-m", "offhook.cli", *arguments, "--data", str(self.data)],
            check=check,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def place(self, via: str, *arguments: str, check: bool = True, timeout_s: float = 120) -> dict[str, Any]:
        """`offhook call --json`: the story of the call."""
        done = self.offhook("call", "--via", via, "--json", *arguments, check=False, timeout_s=timeout_s)
        assert not check or done.returncode == 0, done.stderr + done.stdout[-2000:]
        return dict(json.loads(done.stdout)) if done.stdout.strip() else {}


def start(data: Path, **environment: str) -> System:
    """`offhook up` on free ports, ready to take calls."""
    ports = {name: free_port() for name in ("port", "sip-port", "media-port")}
    options = [part for name, port in ports.items() for part in (f"--{name}", str(port))]
    LOGS.mkdir(parents=True, exist_ok=True)
    log = (LOGS / f"{data.name}.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "offhook.cli", "up", "--data", str(data), "--no-demo", "-v", *options],
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )
    log.close()
    deadline = time.monotonic() + 600  # the first time it pulls the models
    while not (data / "running.json").exists():
        said = (LOGS / f"{data.name}.log").read_text()
        assert process.poll() is None, said[-3000:]
        assert time.monotonic() < deadline, said[-3000:]
        time.sleep(0.1)
    return System(find(data=data), data, process, ports)


def stop(system: System) -> None:
    system.process.send_signal(signal.SIGINT)
    try:
        system.process.wait(40)
    except subprocess.TimeoutExpired:
        system.process.kill()
        raise


@pytest.fixture(scope="session")
def system(server_folder: Path) -> Iterator[System]:
    """One service for all tests that leave it as it was."""
    system = start(server_folder / "system")
    yield system
    stop(system)


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for something to become true."""

    def wait(condition: Callable[[], Any], timeout_s: float = 30.0, what: str = "it") -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not happen in {timeout_s:.0f} s"
            time.sleep(0.1)

    return wait


def write_wav(path: Path, pcm: bytes) -> Path:
    """16 kHz mono."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes(pcm)
    return path


@pytest.fixture
def say(tmp_path: Path) -> Callable[..., Path]:
    """A WAV of files and pauses: say("vm-goodbye", 0.5, some_path). Names are telephone prompts, one real speaker."""

    def join(*parts: str | float | Path) -> Path:
        pcm = bytearray()
        for part in parts:
            if isinstance(part, int | float):
                pcm += bytes(int(part * SAMPLE_RATE) * SAMPLE_BYTES)
            else:
                pcm += load(part if isinstance(part, Path) else PROMPTS / f"{part}.wav")
        return write_wav(tmp_path / f"said-{len(list(tmp_path.iterdir()))}.wav", bytes(pcm))

    return join


@pytest.fixture
def cut(tmp_path: Path) -> Callable[[Path, float, float], Path]:
    """A stretch of a WAV: cut(path, from_s, to_s)."""

    def piece(path: Path, from_s: float, to_s: float) -> Path:
        first, last = (int(at_s * SAMPLE_RATE) * SAMPLE_BYTES for at_s in (from_s, to_s))
        return write_wav(tmp_path / f"{path.stem}-{from_s:.0f}-{to_s:.0f}.wav", load(path)[first:last])

    return piece
