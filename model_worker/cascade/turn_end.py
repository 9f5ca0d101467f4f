"""Has the caller finished? Smart Turn v3.2 (pipecat-ai, BSD-2): a Whisper-tiny encoder over the last eight seconds.

It listens to prosody as much as to words: it is meant to be asked once somebody has fallen silent for a moment, and its
answer is one voice among several (the words said, the length of the pause).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_worker.cascade.mel import SAMPLE_RATE, log_mel
from model_worker.onnx import open_session

Pcm = npt.NDArray[np.float32]

WINDOW = 8 * SAMPLE_RATE


class TurnEnd:
    """Holds weights only; one instance serves every call. `directory` is `catalogue.path("smart-turn")`."""

    def __init__(self, directory: Path, threads: int = 1) -> None:
        self._session = open_session(directory / "smart-turn-v3.2-cpu.onnx", threads)

    def probability(self, pcm: Pcm) -> float:
        """The probability, 0..1, that the turn is complete at the end of 16 kHz float32 mono [samples].

        Give the whole turn so far, up to its last eight seconds, with the short silence that follows it. The features
        are those of its training: silence in front to make eight seconds, then zero mean and unit variance.
        """
        window = np.asarray(pcm[-WINDOW:], np.float32)
        window = np.pad(window, (WINDOW - len(window), 0))
        window = (window - window.mean()) / np.sqrt(window.var() + 1e-7)
        features = log_mel(window)[None]
        return float(self._session.run(None, {"input_features": features})[0].reshape(-1)[0])
