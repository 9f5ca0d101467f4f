"""The one 20 ms clock of the process: every live call is ticked on it, in turn.

A tick that comes late (a stalled process, a suspended machine) is made up for at twice the speed, never in a burst,
so that media time, which is a count of ticks, stays in step with the world and no transport is flooded. Of a stall
longer than MAKE_UP_S only so much is made up for; the rest is gone, and counted.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from calls.audio import FRAME_S

log = logging.getLogger(__name__)

MAKE_UP_S = 1.0
_KEPT = 3_000  # ticks measured: the last minute


class Ticking(Protocol):
    """What the Ticker drives."""

    id: str

    def tick(self) -> None:
        """20 ms of media time. Must not block."""
        ...

    def crashed(self, error: Exception) -> None:
        """A tick raised `error`; it will not be ticked again."""
        ...


class Ticker:
    """Ticks every added call each 20 ms of `clock`; an exception in one call ends that call only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: dict[str, Ticking] = {}
        self._lags: deque[float] = deque(maxlen=_KEPT)
        self._due = 0.0  # when the next tick should be
        self._ticked_at = -math.inf
        self.stalls = 0  # ticks that were late by a whole one or more
        self.skipped = 0  # ticks that were given up after a long stall

    def add(self, call: Ticking) -> None:
        self._calls[call.id] = call

    def drop(self, call: Ticking) -> None:
        self._calls.pop(call.id, None)

    async def run(self) -> None:
        """Tick until cancelled."""
        self._due = self._clock()
        while True:
            await asyncio.sleep(self.wait())
            self.step()

    def wait(self) -> float:
        """Seconds until the next tick: until it is due, but at least half a tick after the one before."""
        now = self._clock()
        behind = now - self._due
        if behind > MAKE_UP_S:
            given_up = math.ceil((behind - MAKE_UP_S) / FRAME_S)
            self.skipped += given_up
            self._due += given_up * FRAME_S
            log.warning("the clock stood still for %.2f s; %d ticks are lost", behind, given_up)
        return max(0.0, max(self._due, self._ticked_at + FRAME_S / 2) - now)

    def step(self) -> None:
        """One tick of every call. Its lag is counted to the end, when the last call's packet is out."""
        self._ticked_at = self._clock()
        self.stalls += self._ticked_at - self._due >= FRAME_S
        for call in list(self._calls.values()):
            try:
                call.tick()
            except Exception as error:  # the boundary of one call: the others go on
                self.drop(call)
                log.exception("tick failed", extra={"call_id": call.id})
                call.crashed(error)
        self._lags.append(self._clock() - self._due)
        self._due += FRAME_S

    def lag_s(self, quantile: float = 0.99) -> float:
        """How late the tick's last call was served over the last minute, in seconds."""
        if not self._lags:
            return 0.0
        lags = sorted(self._lags)
        return max(0.0, lags[min(len(lags) - 1, int(quantile * len(lags)))])
