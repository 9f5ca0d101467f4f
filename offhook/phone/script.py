"""What a fake phone does on a call, apart from any transport: sans-IO, one tick = 20 ms of 16 kHz mono PCM.

A phone calls `tick` once every 20 ms with what it heard and sends what it gets back; when it gets None it hangs up.
The media clock is the number of ticks, so a script plays the same on every transport.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calls.audio import FRAME_BYTES, FRAME_S, SAMPLE_BYTES, SILENT_FRAME, Frame

AUDIBLE_RMS = 150.0  # of 32,768, -47 dBFS: above codec noise (G.711 idles at 8), below any speech


@dataclass(frozen=True, slots=True)
class Play:
    """Say this (16 kHz mono s16, any length)."""

    pcm: bytes


@dataclass(frozen=True, slots=True)
class WaitForSpeech:
    """Silent until the far end has been audible for `seconds` in all since this step began."""

    seconds: float
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class WaitForQuiet:
    """Silent until the far end has been silent for `seconds` on end, counted from this step's beginning."""

    seconds: float
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Silent for `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class HangUp:
    """The script ends here, whatever follows."""


Step = Play | WaitForSpeech | WaitForQuiet | Pause | HangUp


class Script:
    """Plays its steps in order. The end of the last step is the end of the call.

    `timed_out` lists the steps (by index) that gave up waiting; `last_audible_s` is the end of the last Frame in which
    the far end could be heard, on the script's own clock (None: nothing was heard yet).
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = tuple(steps)
        self._at = 0  # the step being played
        self._step_ticks = 0  # ticks that it has had
        self._count = 0  # what it counts: audible or silent ticks
        self.ticks = 0
        self.last_audible_s: float | None = None
        self.started_s: list[float] = []  # when each step began
        self.timed_out: list[int] = []

    @property
    def over(self) -> bool:
        return self._at >= len(self._steps)

    @property
    def now_s(self) -> float:
        """The script's clock: ticks so far, in seconds."""
        return self.ticks * FRAME_S

    def tick(self, heard: Frame | None) -> Frame | None:
        """20 ms go by: what was heard in them (None: nothing came) gives what to send; None when the script is over."""
        audible = heard is not None and is_audible(heard)
        self._hear(audible)
        out = self._frame()
        self.ticks += 1
        if audible:
            self.last_audible_s = self.now_s
        return out

    def _hear(self, audible: bool) -> None:
        if self.over or not self._step_ticks:
            return
        match self._steps[self._at]:
            case WaitForSpeech():
                self._count += audible
            case WaitForQuiet():
                self._count = 0 if audible else self._count + 1

    def _frame(self) -> Frame | None:
        while not self.over:
            if self._step_ticks == 0 and len(self.started_s) == self._at:
                self.started_s.append(self.now_s)
            frame = self._step_frame(self._steps[self._at])
            if frame is not None:
                self._step_ticks += 1
                return frame
            self._at += 1
            self._step_ticks = self._count = 0
        return None

    def _step_frame(self, step: Step) -> Frame | None:
        """What this step sends in this tick; None when it is done."""
        match step:
            case Play(pcm):
                frame = pcm[self._step_ticks * FRAME_BYTES : (self._step_ticks + 1) * FRAME_BYTES]
                frame = frame[: len(frame) // SAMPLE_BYTES * SAMPLE_BYTES]
                return frame.ljust(FRAME_BYTES, b"\0") if frame else None
            case WaitForSpeech(seconds, timeout_s) | WaitForQuiet(seconds, timeout_s):
                if self._count >= _ticks(seconds):
                    return None
                if self._step_ticks >= _ticks(timeout_s):
                    self.timed_out.append(self._at)
                    return None
                return SILENT_FRAME
            case Pause(seconds):
                return SILENT_FRAME if self._step_ticks < _ticks(seconds) else None
            case HangUp():
                self._at = len(self._steps)
                return None


def from_pcm(pcm: bytes, linger_s: float) -> Script:
    """Say all of `pcm`, listen for `linger_s` more seconds, hang up."""
    return Script([Play(pcm), Pause(linger_s), HangUp()])


def is_audible(frame: Frame) -> bool:
    """Is there anything to hear in these 20 ms (speech, a tone), or only a codec's idle noise?"""
    samples = np.frombuffer(frame, dtype="<i2").astype(np.float32)
    return bool(samples.size) and float(np.sqrt(np.mean(samples * samples))) > AUDIBLE_RMS


def _ticks(seconds: float) -> int:
    return round(seconds / FRAME_S)
