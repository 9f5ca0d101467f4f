from __future__ import annotations

import logging
from itertools import pairwise

import pytest

from calls.audio import FRAME_S
from telephony.ticker import MAKE_UP_S, Ticker


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


def ticker_at(clock: Clock) -> Ticker:
    ticker = Ticker(clock)
    ticker._due = clock.now
    return ticker


def run(ticker: Ticker, clock: Clock, until: float) -> list[float]:
    """When the ticks happen, if nothing but waiting takes time."""
    times = []
    while (clock.now + (wait := ticker.wait())) <= until:
        clock.now += wait
        times.append(clock.now)
        ticker.step()
    return times


def test_one_tick_each_20_ms() -> None:
    clock = Clock()
    ticker = ticker_at(clock)
    call = Ticked("a")
    ticker.add(call)
    times = run(ticker, clock, 101.0)
    assert call.ticks == len(times) == pytest.approx(50, abs=1)
    assert ticker.stalls == 0
    assert ticker.lag_s() < 0.001


def test_a_stall_is_made_up_for_without_a_burst() -> None:
    clock = Clock()
    ticker = ticker_at(clock)
    run(ticker, clock, 101.0)
    clock.now += 0.4
    times = run(ticker, clock, 103.0)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert min(gaps) >= FRAME_S / 2 - 1e-9
    assert len(times) == pytest.approx(2.0 / FRAME_S, abs=2), "media time is in step with the world again"
    assert ticker.stalls > 0
    assert ticker.skipped == 0


def test_of_a_long_stall_only_so_much_is_made_up_for(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    ticker = ticker_at(clock)
    run(ticker, clock, 101.0)
    clock.now += 5.0
    with caplog.at_level(logging.WARNING):
        times = run(ticker, clock, 109.0)
    assert ticker.skipped == pytest.approx((5.0 - MAKE_UP_S) / FRAME_S, abs=2)
    assert len(times) == pytest.approx((3.0 + MAKE_UP_S) / FRAME_S, abs=3)


def test_a_failing_call_ends_alone(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    ticker = ticker_at(clock)
    bad, good = Ticked("bad", fails_at=3), Ticked("good")
    ticker.add(bad)
    ticker.add(good)
    for _ in range(10):
        ticker.step()
    assert bad.ticks == 3
    assert isinstance(bad.error, RuntimeError)
    assert good.ticks == 10
    assert [record.call_id for record in caplog.records if record.levelno == logging.ERROR] == ["bad"]  # type: ignore[attr-defined]
