"""Is the engine too slow for more calls? Judged by its Decisions alone: how many came so near their deadline that one
more call would make them late.

Not by how busy the engine is: a cascade's step waits for words on purpose, and the Audio Interaction Model writes
whenever it has nothing to hear, so that both may look busy with one call and have room for nine more.

    open -> closed   of the Decisions of the last WINDOW_S, more than CLOSE_ABOVE were tight, and at least FEW of them
    closed -> open   of those of the last CALM_S, at most OPEN_BELOW; what was before is forgotten
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from calls.audio import CHUNK_S

TIGHT_S = 0.2 * CHUNK_S  # before its deadline, or later: such a Decision is tight
WINDOW_S = 10.0
CALM_S = 5.0
CLOSE_ABOVE = 0.2
OPEN_BELOW = 0.05
FEW = 10  # tight Decisions: fewer are a hiccup, however few there were in all
BUCKET_S = 0.5


@dataclass(slots=True)
class _Bucket:
    """What was decided within BUCKET_S from `at_s`."""

    at_s: float
    decided: int = 0
    tight: int = 0


class Pressure:
    """Any thread. Every `now` is in seconds on one clock of the caller's; one that jumps forgets what was."""

    def __init__(self) -> None:
        self._buckets: deque[_Bucket] = deque()
        self._closed_at: float | None = None
        self._lock = threading.Lock()

    def note(self, now: float, decided: int, tight: int) -> None:
        """So many Decisions were made, and so many of them were tight."""
        with self._lock:
            self._forget(now)
            if not self._buckets or now - self._buckets[-1].at_s >= BUCKET_S:
                self._buckets.append(_Bucket(now))
            self._buckets[-1].decided += decided
            self._buckets[-1].tight += tight

    def overloaded(self, now: float) -> bool:
        """Whether to refuse more calls at this moment."""
        with self._lock:
            self._forget(now)
            if self._closed_at is None:
                decided, tight = self._sum(now - WINDOW_S)
                if tight >= FEW and tight > CLOSE_ABOVE * decided:
                    self._closed_at = now
            elif not 0 <= now - self._closed_at < CALM_S:
                decided, tight = self._sum(now - CALM_S)
                if tight <= OPEN_BELOW * decided:
                    self._closed_at = None
                    self._buckets.clear()
            return self._closed_at is not None

    def _sum(self, since: float) -> tuple[int, int]:
        recent = [bucket for bucket in self._buckets if bucket.at_s >= since]
        return sum(bucket.decided for bucket in recent), sum(bucket.tight for bucket in recent)

    def _forget(self, now: float) -> None:
        """Old buckets, and all of a time that has not come yet."""
        while self._buckets and not 0 <= now - self._buckets[0].at_s <= WINDOW_S:
            self._buckets.popleft()
        while self._buckets and self._buckets[-1].at_s > now:
            self._buckets.pop()
