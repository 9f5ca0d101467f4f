"""Interruption, decided beside the media: a caller who speaks over an answer pauses it within a few Frames.

Pausing is cheap and quick, stopping is not: a pause becomes an interruption when the voice lasts, or when the agent
service understands it ("stop"); a cough, "mhm" or noise is over by then, and the answer goes on where it was heard.
Sans-IO; time is the Frames heard.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto

from calls.audio import FRAME_SAMPLES, SAMPLE_RATE, Frame
from calls.errors import IllegalTransition
from telephony.voice_activity import WINDOW, EchoEstimate, NoiseFloor, SileroNet, VoiceTrack, level


class State(Enum):
    IDLE = auto()  # nothing is being said
    LISTENING = auto()  # an answer plays
    PAUSED = auto()  # the caller spoke; is it meant?
    INTERRUPTED = auto()  # it was; the answer is being closed


class Happening(Enum):
    ANSWER_BEGAN = auto()
    ANSWER_ENDED = auto()  # played, stopped by the agent service, or closed after an interruption
    VOICE_BEGAN = auto()
    VOICE_LASTED = auto()
    VOICE_PASSED = auto()


TRANSITIONS = {
    (State.IDLE, Happening.ANSWER_BEGAN): State.LISTENING,
    (State.LISTENING, Happening.VOICE_BEGAN): State.PAUSED,
    (State.PAUSED, Happening.VOICE_LASTED): State.INTERRUPTED,
    (State.PAUSED, Happening.VOICE_PASSED): State.LISTENING,
    (State.LISTENING, Happening.ANSWER_ENDED): State.IDLE,
    (State.PAUSED, Happening.ANSWER_ENDED): State.IDLE,
    (State.INTERRUPTED, Happening.ANSWER_ENDED): State.IDLE,
}


class Verdict(Enum):
    """What the session is to do now."""

    PAUSE = auto()
    RESUME = auto()
    INTERRUPT = auto()


VERDICTS = {
    Happening.VOICE_BEGAN: Verdict.PAUSE,
    Happening.VOICE_LASTED: Verdict.INTERRUPT,
    Happening.VOICE_PASSED: Verdict.RESUME,
}

# Measured with benchmarks/interruption.py: two sure windows begin a voice as reliably as three or four likely ones,
# 40 ms sooner, and a clock or a sneeze passes less often.
SURE = 0.7  # probability of a window that can begin a voice
BEGINS = 2  # of them among the newest three
LIKELY = 0.5  # probability of a window that carries it on
GAP = SAMPLE_RATE // 5  # 200 ms: silence between words, part of the voice around it
PATIENCE = SAMPLE_RATE // 2  # 500 ms after the voice ended: it was not meant
_PRE_ROLL = 6  # Frames before the gate opened that the net hears too
_HANG_OVER = 10  # Frames the gate stays open
_CLEAR_OF_NOISE = 2.0  # 6 dB
_CLEAR_OF_ECHO = 2.0
_LEAST = 40.0  # RMS; -58 dBFS: no voice on a telephone is fainter


class Interruption:
    """The interruption path of one call."""

    def __init__(self, net: SileroNet, interrupt_after_ms: int) -> None:
        self.state = State.IDLE
        self._interrupt_after = interrupt_after_ms * SAMPLE_RATE // 1000
        self._track = VoiceTrack(net)
        self._floor = NoiseFloor()
        self._echo = EchoEstimate()
        self._answer = ""  # the id of what is said
        self._said = 0.0  # level of what was played last
        self._newest: deque[Frame] = deque(maxlen=_PRE_ROLL)
        self._open_for = 0  # Frames until the gate closes
        self._recent: deque[float] = deque(maxlen=3)  # the newest windows
        self._voiced = 0  # samples of voice since it began, short gaps included
        self._quiet = 0  # samples since the last voiced window

    def said(self, frame: Frame) -> None:
        """What was just written to the caller."""
        self._said = level(frame) if self.state is State.LISTENING else 0.0

    def hear(self, frame: Frame, answering: bool, coming: bool = False, answer: str = "") -> Verdict | None:
        """The caller's next Frame. `answering`: an answer is being said, or is paused. `coming`: one is on its way,
        so that a caller who already speaks when it begins is known at once. `answer`: the id of what is said, so that
        an answer that follows another at once is known to be another."""
        loud = level(frame)
        echo = self._echo.hear(loud, self._said)
        if self.state is not State.IDLE and (not answering or answer != self._answer):
            self._go(Happening.ANSWER_ENDED)
        if self.state is State.IDLE and answering:
            self._go(Happening.ANSWER_BEGAN)
        self._answer = answer
        if answering or coming:
            windows = self._judge(frame, loud, echo)
        else:
            windows, self._open_for = [], 0
            self._recent.clear()
        self._floor.hear(loud)
        self._newest.append(frame)
        return self._weigh(windows)

    def _go(self, happening: Happening) -> Verdict | None:
        try:
            self.state = TRANSITIONS[self.state, happening]
        except KeyError:
            raise IllegalTransition(f"{happening.name} cannot happen to a barge-in that is {self.state.name}") from None
        return VERDICTS.get(happening)

    def _judge(self, frame: Frame, loud: float, echo: float) -> list[float]:
        """The probability of voice for each window that `frame` completes; none while the gate is shut."""
        if loud > max(_CLEAR_OF_NOISE * self._floor.level, _CLEAR_OF_ECHO * echo, _LEAST):
            if not self._open_for:
                self._track.reset()
                self._recent.clear()
                for earlier in self._newest:
                    self._recent.extend(self._track.hear(earlier))
            self._open_for = _HANG_OVER
        elif self._open_for:
            self._open_for -= 1
        return self._track.hear(frame) if self._open_for else []

    def _weigh(self, windows: list[float]) -> Verdict | None:
        self._quiet += FRAME_SAMPLES
        for probability in windows:
            self._recent.append(probability)
            if probability >= LIKELY:
                self._voiced += WINDOW + (self._quiet - WINDOW if WINDOW < self._quiet <= GAP else 0)
                self._quiet = 0
        if self.state is State.LISTENING and sum(p >= SURE for p in self._recent) >= BEGINS:
            self._voiced = sum(p >= LIKELY for p in self._recent) * WINDOW
            return self._go(Happening.VOICE_BEGAN)
        if self.state is State.PAUSED and self._voiced >= self._interrupt_after:
            return self._go(Happening.VOICE_LASTED)
        if self.state is State.PAUSED and self._quiet >= PATIENCE:
            self._recent.clear()
            return self._go(Happening.VOICE_PASSED)
        return None
