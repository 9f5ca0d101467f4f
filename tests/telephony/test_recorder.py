from __future__ import annotations

import asyncio
import resource
import signal
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from calls.audio import FRAME_BYTES, FRAME_SAMPLES, SAMPLE_RATE
from telephony.recorder import HEADER_BYTES, Recorder, header
from tests.telephony.sounds import frames, spoken

STARTED_AT = 1_700_000_000.0  # 2023-11-14


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    recorder = Recorder(tmp_path)
    yield recorder
    recorder.close()


def read(path: Path) -> np.ndarray:
    """[samples, 2]"""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, SAMPLE_RATE, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)


def never(reason: str) -> None:
    raise AssertionError(reason)


async def test_both_channels_sample_for_sample(recorder: Recorder, tmp_path: Path) -> None:
    left, right = frames(spoken(6)), frames(spoken(6, first=9))
    count = min(len(left), len(right))
    recording = recorder.open("0abc", STARTED_AT, never)
    for pair in zip(left[:count], right[:count], strict=True):
        recording.write(*pair)
    saved = await recording.close()
    assert saved.path == "2023/11/14/0abc.wav"
    assert saved.complete
    assert saved.duration_s == count * 0.02
    pcm = read(tmp_path / saved.path)
    assert pcm[:, 0].tobytes() == b"".join(left[:count])
    assert pcm[:, 1].tobytes() == b"".join(right[:count])


async def test_what_was_taken_back_is_not_on_the_recording(recorder: Recorder, tmp_path: Path) -> None:
    recording = recorder.open("0abc", STARTED_AT, never)
    loud = b"\1\1" * FRAME_SAMPLES
    for _ in range(200):
        recording.write(loud, loud)
    recording.unsay(3 * FRAME_SAMPLES)
    recording.write(loud, loud)
    pcm = read(tmp_path / (await recording.close()).path)
    assert np.count_nonzero(pcm[:, 0]) == 201 * FRAME_SAMPLES
    assert np.flatnonzero(pcm[:, 1] == 0).tolist() == list(range(197 * FRAME_SAMPLES, 200 * FRAME_SAMPLES))


def test_a_process_that_is_killed_leaves_a_file_that_plays(tmp_path: Path) -> None:
    script = f"""
import asyncio, os, signal
from pathlib import Path
from telephony.recorder import Recorder
async def main():
    recorder = Recorder(Path({str(tmp_path)!r}))
    recording = recorder.open("k", {STARTED_AT}, print)
    for n in range(500):
        recording.write(bytes([n % 100, 1]) * 320, bytes([2, n % 100]) * 320)
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    recorder.submit(lambda: loop.call_soon_threadsafe(done.set))
    await done.wait()
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pcm = read(tmp_path / "2023/11/14/k.wav")
    assert len(pcm) >= 8 * SAMPLE_RATE
    assert pcm[: 500 * FRAME_SAMPLES : FRAME_SAMPLES, 0].tolist() == [
        256 + n % 100 for n in range(len(pcm) // FRAME_SAMPLES)
    ]


async def test_a_full_disk_ends_the_recording_and_says_so_once(recorder: Recorder, tmp_path: Path) -> None:
    """A real error from the kernel: no file of this process may grow beyond 200 kB (EFBIG instead of ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    reasons: list[str] = []
    try:
        recording = recorder.open("0full", STARTED_AT, reasons.append)
        sound = frames(spoken(10))
        for n in range(400):
            recording.write(sound[n % len(sound)], sound[n % len(sound)])
            if n % 50 == 0:
                await asyncio.sleep(0.01)
        saved = await recording.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(reasons) == 1
    assert "0full.wav" in reasons[0]
    assert not saved.complete
    pcm = read(tmp_path / saved.path)
    assert len(pcm) == round(saved.duration_s * SAMPLE_RATE) == 3 * SAMPLE_RATE, "whole seconds, none torn"
    assert (tmp_path / saved.path).stat().st_size == HEADER_BYTES + pcm.nbytes


async def test_no_space_from_the_first_byte(recorder: Recorder, tmp_path: Path) -> None:
    """ENOSPC itself, from /dev/full."""
    (tmp_path / "2023/11/14").mkdir(parents=True)
    (tmp_path / "2023/11/14/0none.wav").symlink_to("/dev/full")
    reasons: list[str] = []
    recording = recorder.open("0none", STARTED_AT, reasons.append)
    for _ in range(150):
        recording.write(bytes(FRAME_BYTES), bytes(FRAME_BYTES))
    saved = await recording.close()
    assert (saved.complete, saved.duration_s) == (False, 0.0)
    assert len(reasons) == 1
    assert "No space left" in reasons[0]


async def test_a_disk_that_is_too_slow_ends_the_recording(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telephony.recorder._JOBS", 0)
    reasons: list[str] = []
    recording = recorder.open("0slow", STARTED_AT, reasons.append)
    for _ in range(150):
        recording.write(bytes(FRAME_BYTES), bytes(FRAME_BYTES))
    assert reasons == ["the disk is too slow for the recordings"]
    assert not (await recording.close()).complete


def test_the_header_of_a_recording_too_long_for_riff_stays_a_header() -> None:
    assert len(header(5_000_000_000)) == HEADER_BYTES
