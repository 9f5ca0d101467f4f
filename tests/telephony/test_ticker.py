from __future__ import annotations

import logging
from itertools import pairwise

import pytest

from calls.audio import FRAME_S
from telephony.ticker import MAKE_UP_S, PHASES, STEP_S, Ticker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Ticked:
    def __init__(self, id: str, fails_at: int | None = None) -> None:
        self.id = id
        self.ticks = 0
        self.error: Exception | None = None
        self._fails_at = fails_at

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks == self._fails_at:
            raise RuntimeError("no")

    def crashed(self, error: Exception) -> None:
        self.error = error


class World:
    """A Ticker, a call on it, and a time in which nothing but waiting takes time."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.ticker = Ticker(self.clock)
        self.ticker._due = self.clock.now
        self.call = Ticked("a")
        self.ticker.add(self.call)

    def until(self, end: float) -> list[float]:
        """Run on; the times of the steps."""
        times = []
        while (self.clock.now + (wait := self.ticker.wait())) <= end:
            self.clock.now += wait
            times.append(self.clock.now)
            self.ticker.step()
        return times


def test_one_tick_each_20_ms() -> None:
    world = World()
    world.until(101.0)
    assert world.call.ticks == pytest.approx(50, abs=1)
    assert world.ticker.stalls == 0
    assert world.ticker.lag_s() < 0.001


def test_calls_are_dealt_out_over_the_tick() -> None:
    world = World()
    calls = [Ticked(str(n)) for n in range(2 * PHASES - 1)]
    for call in calls:
        world.ticker.add(call)
    for _ in range(10 * PHASES):
        before = sum(call.ticks for call in [world.call, *calls])
        world.ticker.step()
        assert sum(call.ticks for call in [world.call, *calls]) - before == 2
    assert {call.ticks for call in [world.call, *calls]} == {10}


def test_a_stall_is_made_up_for_without_a_burst() -> None:
    world = World()
    world.until(101.0)
    world.clock.now += 0.4
    times = world.until(103.0)
    assert min(later - earlier for earlier, later in pairwise(times)) >= STEP_S / 2 - 1e-9
    assert world.call.ticks == pytest.approx(3.0 / FRAME_S, abs=2), "media time is in step with the world again"
    assert world.ticker.stalls > 0
    assert world.ticker.skipped == 0


def test_of_a_long_stall_only_so_much_is_made_up_for(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.until(101.0)
    before = world.call.ticks
    world.clock.now += 5.0
    with caplog.at_level(logging.WARNING):
        world.until(109.0)
    assert world.ticker.skipped == pytest.approx((5.0 - MAKE_UP_S) / FRAME_S, abs=2)
    assert world.call.ticks - before == pytest.approx((3.0 + MAKE_UP_S) / FRAME_S, abs=3)
    assert len(caplog.records) == 1


def test_a_failing_call_ends_alone(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    bad = Ticked("bad", fails_at=3)
    world.ticker.add(bad)
    for _ in range(10 * PHASES):
        world.ticker.step()
    assert bad.ticks == 3
    assert isinstance(bad.error, RuntimeError)
    assert world.call.ticks == 10
    assert [record.call_id for record in caplog.records if record.levelno == logging.ERROR] == ["bad"]  # type: ignore[attr-defined]
