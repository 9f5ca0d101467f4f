"""Recordings: one stereo WAV a call, caller left, the other side right, in step with the call's clock.

The event loop only collects Frames; one thread a process writes them, about once a second a call. The WAV header is
rewritten after every write, so a process that dies leaves a file that plays. A disk that fails ends the recording,
never the call.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from calls.audio import SAMPLE_BYTES, SAMPLE_RATE, Frame, seconds
from calls.log import for_call

log = logging.getLogger(__name__)

CHANNELS = 2
HEADER_BYTES = 44
_SECOND = SAMPLE_RATE * SAMPLE_BYTES  # bytes a second of one channel
_JOBS = 2_000  # waiting for the disk: some seconds of hundreds of calls
CLOSE_S = 3.0  # a disk that takes longer must not keep back the end of the call


def header(data_bytes: int) -> bytes:
    """A canonical RIFF/WAVE header for `data_bytes` of 16 kHz 16-bit stereo PCM."""
    frame_bytes = CHANNELS * SAMPLE_BYTES
    form = struct.pack("<HHIIHH", 1, CHANNELS, SAMPLE_RATE, SAMPLE_RATE * frame_bytes, frame_bytes, 8 * SAMPLE_BYTES)
    data_bytes = min(data_bytes, 0xFFFFFFFF - HEADER_BYTES)
    riff = struct.pack("<4sI4s4sI", b"RIFF", data_bytes + HEADER_BYTES - 8, b"WAVE", b"fmt ", len(form))
    return riff + form + struct.pack("<4sI", b"data", data_bytes)


def place(call_id: str, started_at: float) -> str:
    """Where the recording of a call lies, below the recordings folder: by day (UTC)."""
    return f"{datetime.fromtimestamp(started_at, UTC):%Y/%m/%d}/{call_id}.wav"


@dataclass(frozen=True, slots=True)
class Saved:
    """A closed recording. `path` is relative to the recordings folder."""

    path: str
    duration_s: float
    complete: bool


class Recording:
    """One call's recording. All methods are called from the event loop; `_store` runs on the writer thread."""

    def __init__(self, recorder: Recorder, path: Path, on_failure: Callable[[str], None]) -> None:
        self._recorder = recorder
        self._path = path
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._left = bytearray()
        self._right = bytearray()
        self._failed = False
        self._file: int | None = None  # of the writer thread, as is the next
        self._stored = 0  # bytes of PCM in the file
        self._broken = False  # seen by the writer thread at once, so that nothing follows a hole

    def write(self, left: Frame, right: Frame) -> None:
        """The next 20 ms of both channels. Never blocks."""
        if self._failed:
            return
        self._left += left
        self._right += right
        if len(self._left) >= 2 * _SECOND:  # the newest second stays here: `unsay` may still change it
            self._hand_over(_SECOND)

    def unsay(self, samples: int) -> None:
        """Silence the newest `samples` on the right: they were taken back before they were played."""
        size = min(samples * SAMPLE_BYTES, len(self._right))
        if size:
            self._right[-size:] = bytes(size)

    async def close(self) -> Saved:
        """Write the rest. The file is whole on the disk when this returns, or the disk did not do it within CLOSE_S:
        then it is not complete, and what is known to be in it counts. The writer goes on by itself."""
        if not self._failed and self._left:
            self._hand_over(len(self._left))
        done: Future[None] = Future()
        if self._recorder.submit(lambda: self._finish(done), urgent=True, call_id=self._path.stem):
            try:
                async with asyncio.timeout(CLOSE_S):
                    await asyncio.wrap_future(done)
            except TimeoutError:
                self._failed = True
                log.error("the disk did not close the recording within %.0f s", CLOSE_S)
        path = self._path.relative_to(self._recorder.root).as_posix()
        return Saved(path, seconds(self._stored // (CHANNELS * SAMPLE_BYTES)), not self._failed)

    def _hand_over(self, size: int) -> None:
        left, right = bytes(self._left[:size]), bytes(self._right[:size])
        del self._left[:size], self._right[:size]
        if not self._recorder.submit(lambda: self._store(left, right), call_id=self._path.stem):
            self._fail("the disk is too slow for the recordings")

    def _fail(self, reason: str) -> None:
        if not self._failed:
            self._failed = True
            self._on_failure(reason)

    # --- on the writer thread --------------------------------------------------------------------------------------

    def _store(self, left: bytes, right: bytes) -> None:
        if self._broken:
            return
        stereo = np.empty((len(left) // SAMPLE_BYTES, CHANNELS), dtype="<i2")
        stereo[:, 0] = np.frombuffer(left, dtype="<i2")
        stereo[:, 1] = np.frombuffer(right, dtype="<i2")
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o640)
                _write_all(self._file, header(0), 0)
            _write_all(self._file, stereo.tobytes(), HEADER_BYTES + self._stored)
            self._stored += stereo.nbytes
            _write_all(self._file, header(self._stored), 0)
        except OSError as error:
            self._broken = True
            reason = f"{error.strerror} ({self._path.name})"
            self._loop.call_soon_threadsafe(self._fail, reason)

    def _finish(self, done: Future[None]) -> None:
        awaited = done.set_running_or_notify_cancel()
        try:
            if self._file is not None:
                os.ftruncate(self._file, HEADER_BYTES + self._stored)  # half a second that a full disk cut short
                os.close(self._file)
                self._file = None
        except OSError as error:
            log.error("closing the recording: %s", error)
        finally:
            if awaited:
                done.set_result(None)


def _write_all(file: int, data: bytes, offset: int) -> None:
    """pwrite until all is there. Raises OSError."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, offset)
        rest = rest[written:]
        offset += written


class Recorder:
    """The recordings folder and the thread that writes into it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._jobs: queue.Queue[tuple[str, Callable[[], None]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    def open(self, call_id: str, started_at: float, on_failure: Callable[[str], None]) -> Recording:
        """A new recording at its `place`. `on_failure(reason)` is called once, on the event loop, when it
        has to stop early. Touches the disk only later."""
        return Recording(self, self.root / place(call_id, started_at), on_failure)

    def submit(self, job: Callable[[], None], urgent: bool = False, call_id: str = "-") -> bool:
        """Queue work for the disk. False if too much is waiting (never for urgent work: the end of a recording)."""
        if not urgent and self._jobs.qsize() >= _JOBS:
            return False
        self._jobs.put((call_id, job))
        return True

    def close(self) -> None:
        """Write what is waiting and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while waiting := self._jobs.get():
            call_id, job = waiting
            with for_call(call_id):
                try:
                    job()
                except Exception:
                    log.exception("writing a recording")  # the boundary of one job: the other recordings go on
