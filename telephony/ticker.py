"""The one 20 ms clock of the process: every live call is ticked on it.

The calls are dealt out over the quarters of the 20 ms, so that they do not all wait for one another, and packets that
arrive are read in between. A tick that comes late (a stalled process, a suspended machine) is made up for at twice
the speed, never in a burst, so that media time, which is a count of ticks, stays in step with the world and no
transport is flooded. Of a stall longer than MAKE_UP_S only so much is made up for; the rest is gone, and counted.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from itertools import cycle
from typing import Protocol

from calls.audio import FRAME_S

log = logging.getLogger(__name__)

PHASES = 4
STEP_S = FRAME_S / PHASES
MAKE_UP_S = 1.0
_KEPT = int(60 / STEP_S)  # steps measured: the last minute
_TELL_EVERY_S = 10.0


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
        self._phases: tuple[dict[str, Ticking], ...] = tuple({} for _ in range(PHASES))
        self._turn = cycle(self._phases)
        self._lags: deque[float] = deque(maxlen=_KEPT)
        self._due = 0.0  # when the next step should be
        self._stepped_at = -math.inf
        self._told_at = -math.inf
        self.stalls = 0  # steps that were late by a whole tick or more
        self.skipped = 0  # ticks that were given up after a long stall

    def add(self, call: Ticking) -> None:
        min(self._phases, key=len)[call.id] = call

    def drop(self, call: Ticking) -> None:
        for phase in self._phases:
            phase.pop(call.id, None)

    async def run(self) -> None:
        """Tick until cancelled."""
        self._due = self._clock()
        while True:
            await asyncio.sleep(self.wait())
            self.step()

    def wait(self) -> float:
        """Seconds until the next step: until it is due, but at least half a step after the one before."""
        now = self._clock()
        if now - self._due > MAKE_UP_S:
            self._give_up(now)
        return max(0.0, max(self._due, self._stepped_at + STEP_S / 2) - now)

    def _give_up(self, now: float) -> None:
        """Ticks too late to be worth making up for: every call loses as many."""
        behind = now - self._due
        given_up = math.ceil((behind - MAKE_UP_S) / FRAME_S)
        self.skipped += given_up
        self._due += given_up * FRAME_S
        if now - self._told_at > _TELL_EVERY_S:
            self._told_at = now
            log.warning("%.2f s behind the clock: %d ticks are lost, %d so far", behind, given_up, self.skipped)

    def step(self) -> None:
        """Tick the calls whose turn it is. The lag is counted to the end, when the last one's packet is out."""
        self._stepped_at = self._clock()
        self.stalls += self._stepped_at - self._due >= FRAME_S
        for call in list(next(self._turn).values()):
            try:
                call.tick()
            except Exception as error:  # the boundary of one call: the others go on
                self.drop(call)
                log.exception("tick failed", extra={"call_id": call.id})
                call.crashed(error)
        self._lags.append(self._clock() - self._due)
        self._due += STEP_S

    def lag_s(self, quantile: float = 0.99) -> float:
        """How late the last call of a step was served over the last minute, in seconds."""
        if not self._lags:
            return 0.0
        lags = sorted(self._lags)
        return max(0.0, lags[min(len(lags) - 1, int(quantile * len(lags)))])
