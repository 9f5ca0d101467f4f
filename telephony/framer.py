"""From what a transport delivers to what the model hears: one Frame a tick without holes, 20 Frames a Chunk.

Sans-IO: no clock, no bus. One Framer per human participant, ticked from the call's second 0 whether or not its
party has joined yet, so that every participant has a Chunk for every index.
"""

from __future__ import annotations

import numpy as np

from calls.audio import CHUNK_BYTES, FRAME_SAMPLES, SILENT_FRAME, Chunk, Frame

FADE_FRAMES = (
    3  # a hole is filled for 60 ms, then it is silence (the idea of G.711 Appendix I, without its pitch search)
)

_FADES = np.linspace(1.0, 0.0, FADE_FRAMES * FRAME_SAMPLES, dtype=np.float32).reshape(FADE_FRAMES, FRAME_SAMPLES)


class Concealer:
    """Fills holes: the last Frame again, fading to nothing over 60 ms, then silence."""

    def __init__(self) -> None:
        self._last: Frame = SILENT_FRAME
        self._missing = 0

    def fill(self, frame: Frame | None) -> Frame:
        """`frame` itself, or a stand-in for one that did not come."""
        if frame is not None:
            self._last = frame
            self._missing = 0
            return frame
        self._missing += 1
        if self._missing > FADE_FRAMES or self._last is SILENT_FRAME:
            return SILENT_FRAME
        samples = np.frombuffer(self._last, dtype="<i2") * _FADES[self._missing - 1]
        return bytes(samples.astype("<i2").data)


class Framer:
    """Collects one participant's Frames into Chunks, indices from 0."""

    def __init__(self, call_id: str, participant_id: str) -> None:
        self._call_id = call_id
        self._participant_id = participant_id
        self._pcm = bytearray()
        self._lost = 0
        self._index = 0

    def push(self, frame: Frame, lost: bool = False) -> Chunk | None:
        """Take one Frame; the Chunk that it completes, if it does. `lost`: the Frame is a stand-in."""
        self._pcm += frame
        self._lost += lost
        return self._emit() if len(self._pcm) >= CHUNK_BYTES else None

    def rest(self) -> Chunk | None:
        """At the end of the call: the begun Chunk, filled up with silence, so that no last word is lost."""
        if not self._pcm:
            return None
        self._pcm += bytes(CHUNK_BYTES - len(self._pcm))
        return self._emit()

    def _emit(self) -> Chunk:
        chunk = Chunk(self._call_id, self._participant_id, self._index, bytes(self._pcm), self._lost)
        self._pcm.clear()
        self._lost = 0
        self._index += 1
        return chunk
