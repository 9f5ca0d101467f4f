"""A Leg in memory, with the delay of a real one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from calls.audio import FRAME_SAMPLES, SILENT_FRAME, Frame
from calls.model import Participant, Role


class MemoryLeg:
    """Says `says` and is silent after it; a None in it is a lost packet. What is written is `played` only after
    `delay` more Frames."""

    def __init__(self, role: Role, says: Iterable[Frame | None] = (), delay: int = 0) -> None:
        self.participant = Participant(role.value, role)
        self.played: list[Frame] = []
        self.hung_up: str | None = None
        self._says = deque(says)
        self._waiting: deque[Frame] = deque()
        self._delay = delay

    def read(self) -> Frame | None:
        return self._says.popleft() if self._says else SILENT_FRAME

    def write(self, frame: Frame) -> None:
        self._waiting.append(frame)
        if len(self._waiting) > self._delay:
            self.played.append(self._waiting.popleft())

    def flush(self) -> int:
        dropped = len(self._waiting)
        self._waiting.clear()
        return dropped * FRAME_SAMPLES

    def unplayed(self) -> int:
        return len(self._waiting) * FRAME_SAMPLES

    async def hang_up(self, reason: str) -> None:
        self.hung_up = reason
