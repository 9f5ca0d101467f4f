"""The ear of one participant: Chunks in, stretches of speech out. Knows nothing of words.

Voice activity is judged on windows of 512 samples (32 ms); all positions are samples on the call's clock. Speech begins
with two voiced windows in a row and keeps 0.2 s from before them; it ends after a pause, whose length depends on how
long the speaker has been talking: long talk is cut at ever shorter pauses, so that no stretch grows without bound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from calls.audio import CHUNK_SAMPLES, SAMPLE_RATE, Chunk
from model_worker.cascade.vad import WINDOW, VoiceState

Pcm = npt.NDArray[np.float32]

ONSET, HOLD = 0.5, 0.35  # probabilities: speech begins at the one and goes on down to the other
ONSET_WINDOWS = 2
PRE_ROLL = SAMPLE_RATE // 5
TAIL = SAMPLE_RATE * 3 // 20  # 0.15 s kept after the last voice: final consonants are quiet
SAME_SPAN = SAMPLE_RATE // 10  # a gap shorter than this does not part two voiced spans
BLIP = SAMPLE_RATE * 3 // 25  # less voice than 0.12 s is a click, not speech
LONGEST_S = 12.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a pause ends a stretch of speech: [(from this length in s, pause in s)], rising in length."""

    steps: tuple[tuple[float, float], ...]

    def pause_s(self, length_s: float) -> float:
        return next(pause for since, pause in reversed(self.steps) if length_s >= since)


LISTENING = Patience(((0.0, 0.6), (5.0, 0.35), (8.0, 0.16)))
# A caller who is to be answered may think in mid-sentence: turns.py ends the turn, these are only the outer bounds.
ANSWERING = Patience(((0.0, 1.8), (9.0, 0.35)))


@dataclass(slots=True)
class Speech:
    """A stretch of one participant's speech, still growing until `closed`."""

    id: str
    spans: list[tuple[int, int]]  # voiced, in samples
    origin: int  # the call's sample at which `pcm` begins
    blocks: list[Pcm] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)  # of the voiced windows
    closed: bool = False

    @property
    def start(self) -> int:
        return self.spans[0][0]

    @property
    def voiced_until(self) -> int:
        return self.spans[-1][1]

    @property
    def start_s(self) -> float:
        return self.start / SAMPLE_RATE

    @property
    def end_s(self) -> float:
        return self.voiced_until / SAMPLE_RATE

    @property
    def voiced(self) -> int:
        return sum(end - start for start, end in self.spans)

    @property
    def certainty(self) -> float:
        """Mean voice probability of the voiced windows."""
        return sum(self.probabilities) / len(self.probabilities) if self.probabilities else 0.0

    def pcm(self) -> Pcm:
        """Audio from the pre-roll to just after the last voice."""
        if len(self.blocks) > 1:
            self.blocks[:] = [np.concatenate(self.blocks)]
        return self.blocks[0][: self.voiced_until + TAIL - self.origin]


class Ear:
    """Segments one participant. `deaf_until`: the sample before which everything was finished by an earlier worker."""

    def __init__(self, participant_id: str, patience: Patience = LISTENING, deaf_until: int = 0) -> None:
        self.participant_id = participant_id
        self.voice = VoiceState()
        self.speech: Speech | None = None
        self.probability = 0.0  # the highest of the last Chunk
        self.heard_until = 0  # samples
        self._patience = patience
        self._deaf_until = deaf_until
        self._rest: Pcm = np.zeros(0, np.float32)  # less than a window, for the next Chunk
        self._before: deque[Pcm] = deque(maxlen=(PRE_ROLL + WINDOW - 1) // WINDOW + ONSET_WINDOWS)
        self._onset = 0  # voiced windows in a row
        self._last_id = ""

    @property
    def silence_s(self) -> float:
        """Since the last voice of the speech that is open; 0 while nobody speaks."""
        return (self.heard_until - self.speech.voiced_until) / SAMPLE_RATE if self.speech else 0.0

    def take(self, chunk: Chunk) -> Pcm | None:
        """The Chunk's samples, to be judged by voice activity with `voice`; None for one that was heard before."""
        start = chunk.index * CHUNK_SAMPLES
        expected = self.heard_until + len(self._rest)
        if start < expected:
            return None
        if start > expected:
            self._skip_to(start)
        return np.frombuffer(chunk.pcm, "<i2").astype(np.float32) / np.float32(32768)

    def hear(self, pcm: Pcm, probabilities: Sequence[float]) -> list[Speech]:
        """Take what `take` returned, with the probability of a voice in each whole window; returns the stretches of
        speech that ended in it."""
        whole: Pcm = np.concatenate((self._rest, pcm))
        self._rest = whole[len(probabilities) * WINDOW :]
        self.probability = max(probabilities, default=0.0)
        ended = []
        for index, probability in enumerate(probabilities):
            if (speech := self._window(whole[index * WINDOW : (index + 1) * WINDOW], probability)) is not None:
                ended.append(speech)
        return ended

    def close(self) -> Speech | None:
        """End the open stretch now; None when there is none, or it was only a click."""
        speech, self.speech = self.speech, None
        self._onset = 0
        if speech is None or speech.voiced < BLIP:
            return None
        speech.closed = True
        return speech

    def _skip_to(self, start: int) -> None:
        """Audio was lost: to the ear it was silence."""
        self._rest = np.zeros(0, np.float32)
        self.voice = VoiceState()
        if self.speech is not None:
            self.speech.blocks.append(np.zeros(start - self.heard_until, np.float32))
        self._before.clear()
        self.heard_until = start

    def _window(self, window: Pcm, probability: float) -> Speech | None:
        at, self.heard_until = self.heard_until, self.heard_until + WINDOW
        if self.speech is None:
            self._listen(window, at, probability)
            return None
        self.speech.blocks.append(window)
        if probability >= HOLD:
            self._extend(self.speech, at, probability)
            return self._cut(self.speech) if self._length_s(self.speech) > LONGEST_S else None
        if self.silence_s >= self._patience.pause_s(self._length_s(self.speech)):
            self._before.append(window)
            return self.close()
        return None

    def _listen(self, window: Pcm, at: int, probability: float) -> None:
        """Nobody speaks: does somebody begin to?"""
        self._before.append(window)
        self._onset = self._onset + 1 if probability >= ONSET and at >= self._deaf_until else 0
        if self._onset >= ONSET_WINDOWS:
            start = at + WINDOW - self._onset * WINDOW
            origin = at + WINDOW - WINDOW * len(self._before)
            self.speech = Speech(self._name(start), [(start, at + WINDOW)], origin, list(self._before), [probability])
            self._before.clear()

    def _extend(self, speech: Speech, at: int, probability: float) -> None:
        speech.probabilities.append(probability)
        start, end = speech.spans[-1]
        if at - end < SAME_SPAN:
            speech.spans[-1] = (start, at + WINDOW)
        else:
            speech.spans.append((at, at + WINDOW))

    def _cut(self, speech: Speech) -> Speech | None:
        """Somebody talks without a pause: end the stretch at its widest gap in the later half, or right here."""
        gaps = [
            (after[0] - before[1], index)
            for index, (before, after) in enumerate(zip(speech.spans, speech.spans[1:], strict=False), start=1)
            if after[0] - speech.start > LONGEST_S / 2 * SAMPLE_RATE
        ]
        if not gaps:
            return self.close()
        _, index = max(gaps)
        pcm = np.concatenate(speech.blocks)
        rest = speech.spans[index:]
        origin = max(speech.origin, rest[0][0] - PRE_ROLL)
        self.speech = Speech(
            self._name(rest[0][0]), rest, origin, [pcm[origin - speech.origin :]], speech.probabilities[-8:]
        )
        return Speech(speech.id, speech.spans[:index], speech.origin, [pcm], speech.probabilities, closed=True)

    def _length_s(self, speech: Speech) -> float:
        return (speech.voiced_until - speech.start) / SAMPLE_RATE

    def _name(self, start: int) -> str:
        """The same speech has the same id at every worker that hears it; a second one in a Chunk gets a letter."""
        name = f"{self.participant_id}-{start // CHUNK_SAMPLES}"
        if name == self._last_id:
            name += "b"
        self._last_id = name
        return name
