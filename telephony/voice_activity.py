"""Is somebody speaking? An energy gate in front, the Silero net behind it, both cheap enough for every 20 ms.

The gate follows the noise floor of the line and, while an answer plays, the caller's echo of that answer; only what
stands clear of both is worth the net's 0.16 ms a window.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from calls.audio import FRAME_S, FRAME_SAMPLES, Frame

WINDOW = 512  # samples the net judges at once: 32 ms
_CONTEXT = 64  # samples of the window before, in front of each
_WEIGHTS = Path(__file__).parent / "weights" / "silero_vad_v6.onnx"


def level(frame: Frame) -> float:
    """Root mean square of a Frame, 0..32,768."""
    samples = np.frombuffer(frame, dtype="<i2").astype(np.float32)
    return float(np.sqrt(np.dot(samples, samples) / FRAME_SAMPLES))


class SileroNet:
    """The weights: one a process. Stateless between calls of `judge`, so safe to share."""

    def __init__(self, path: Path = _WEIGHTS) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def judge(self, window: NDArray[np.float32], state: list[NDArray[np.float32]]) -> float:
        """Probability of speech in `window` (float32 [1, 576], -1..1); `state` [h, c] is carried on in place."""
        probability, state[0], state[1] = self._session.run(None, {"input": window, "h": state[0], "c": state[1]})
        return float(probability[0])


class VoiceTrack:
    """The net's state for one track: Frames in, one probability for every 512 samples out."""

    def __init__(self, net: SileroNet) -> None:
        self._net = net
        self.reset()

    def reset(self) -> None:
        """What comes next does not follow what came before."""
        self._state = [np.zeros((1, 1, 128), dtype=np.float32) for _ in range(2)]
        self._context = np.zeros(_CONTEXT, dtype=np.float32)
        self._rest = np.zeros(0, dtype=np.float32)

    def hear(self, frame: Frame) -> list[float]:
        """The probabilities of the windows that `frame` completes: none or one (320 samples in, 512 a window)."""
        samples = np.frombuffer(frame, dtype="<i2").astype(np.float32) / 32_768.0
        self._rest = np.concatenate([self._rest, samples])
        judged = []
        while len(self._rest) >= WINDOW:
            window = np.concatenate([self._context, self._rest[:WINDOW]])
            judged.append(self._net.judge(window[np.newaxis], self._state))
            self._context = window[-_CONTEXT:]
            self._rest = self._rest[WINDOW:]
        return judged


class NoiseFloor:
    """The level of the line when nobody speaks: falls at once, rises slowly."""

    RISE = 10 ** (3.0 / 20 * FRAME_S)  # 3 dB a second

    def __init__(self) -> None:
        self.level = 200.0

    def hear(self, loud: float) -> None:
        # Digital silence (a muted microphone, a lost packet) says nothing about the line's noise.
        if loud > 1.0:
            self.level = max(5.0, min(loud, self.level * self.RISE))


_ONES = np.ones(100, dtype=np.float32)


class EchoEstimate:
    """How loud the caller's track echoes what we play: delay and gain from the levels of the last two seconds.

    No echo is removed from the audio; the estimate only tells what a Frame may be by echo alone. It takes some 300 ms
    of echo to learn a path, so the first answer on an echoing line stumbles once (it is paused, and resumed); a path
    that changes (a phone put on speaker) is followed within two seconds.
    """

    FRAMES = len(_ONES)
    LAGS = 30  # up to 600 ms there and back
    LOUD = 100.0  # RMS of a played Frame that can be heard as echo
    LEAST = 12  # loud Frames before there is an estimate
    EVERY = 10  # Frames between estimates
    SURE = 0.7  # correlation of the levels
    # Echo is always there while we play, speech now and then: of the ratios of heard to played, a low quantile
    # bounds the echo's gain whatever else is heard.
    QUANTILE = 0.3
    MOST = 0.5  # -6 dB; what comes back louder is no echo

    def __init__(self) -> None:
        self._heard: deque[float] = deque([0.0] * self.FRAMES, maxlen=self.FRAMES)
        self._played: deque[float] = deque([0.0] * (self.FRAMES + self.LAGS), maxlen=self.FRAMES + self.LAGS)
        self._since_loud = self.FRAMES
        self._ticks = 0
        self.lag = 0
        self.gain = 0.0

    def hear(self, heard: float, played: float) -> float:
        """Levels of the Frame heard now and of the one played with it; what echo alone may account for of `heard`."""
        self._heard.append(heard)
        self._played.append(played)
        self._since_loud = 0 if played > self.LOUD else self._since_loud + 1
        self._ticks += 1
        if self._since_loud < self.FRAMES and self._ticks % self.EVERY == 0:
            self._estimate()
        if not self.gain:
            return 0.0
        last = len(self._played) - 1 - self.lag
        return self.gain * max(self._played[place] for place in range(last - 2, min(last + 2, len(self._played))))

    def _estimate(self) -> None:
        heard = np.array(self._heard, dtype=np.float32)
        played = np.array(self._played, dtype=np.float32)
        by_lag = np.lib.stride_tricks.sliding_window_view(played, self.FRAMES)[::-1]  # row n: played n Frames before
        centred = heard - heard.sum() / self.FRAMES
        mean = by_lag @ _ONES / self.FRAMES
        power = np.maximum((by_lag * by_lag) @ _ONES - self.FRAMES * mean * mean, 1.0)
        correlation = by_lag @ centred / np.sqrt(power * max(float(centred @ centred), 1.0))
        best = int(correlation.argmax())
        sure = bool(correlation[best] >= self.SURE)
        lag = best if sure else self.lag
        loud = by_lag[lag] > self.LOUD
        ratios = heard[loud] / by_lag[lag][loud]
        if len(ratios) < self.LEAST:
            return
        ratios.sort()
        bound = float(ratios[int(self.QUANTILE * len(ratios))])
        if sure and bound <= self.MOST:
            self.lag, self.gain = best, bound
        else:
            self.gain = min(self.gain, bound)
