"""Refusing calls before the calls that are there become slow. Time is a number here."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model_worker.pressure import BUCKET_S, CALM_S, FEW, OPEN_BELOW, WINDOW_S, Pressure

STEP_S = 0.4


def fed(pressure: Pressure, since: float, seconds: float, decided: int, tight: int) -> float:
    """`decided` and `tight` in each of the steps of so many seconds. Returns the time after them."""
    steps = round(seconds / STEP_S)
    for step in range(steps):
        pressure.note(since + step * STEP_S, decided, tight)
    return since + steps * STEP_S


def test_nothing_decided_is_no_pressure() -> None:
    assert not Pressure().overloaded(0.0)


def test_tight_decisions_close_and_calm_opens_again() -> None:
    pressure = Pressure()
    now = fed(pressure, 0.0, 4.0, 20, 0)
    assert not pressure.overloaded(now)
    now = fed(pressure, now, 4.0, 20, 10)
    assert pressure.overloaded(now)
    now = fed(pressure, now, CALM_S - 1, 20, 0)
    assert pressure.overloaded(now), "not calm for long enough"
    now = fed(pressure, now, 2.0, 20, 0)
    assert not pressure.overloaded(now)
    assert not pressure.overloaded(now), "what led to it is forgotten"
    now = fed(pressure, now, 2.0, 20, 10)
    assert pressure.overloaded(now)


def test_it_stays_closed_while_decisions_are_tight() -> None:
    pressure, now = Pressure(), 0.0
    for _ in range(20):
        now = fed(pressure, now, 2.0, 20, 10)
        assert pressure.overloaded(now)


def test_it_opens_when_nobody_is_left() -> None:
    pressure = Pressure()
    now = fed(pressure, 0.0, 2.0, 2, 2)
    assert pressure.overloaded(now)
    assert not pressure.overloaded(now + CALM_S + STEP_S)


def test_a_hiccup_is_no_overload() -> None:
    pressure = Pressure()
    pressure.note(0.0, FEW - 1, FEW - 1)
    assert not pressure.overloaded(0.1)


def test_a_clock_that_is_set_back_does_not_close_it_for_long() -> None:
    pressure = Pressure()
    now = fed(pressure, 3600.0, 4.0, 20, 20)
    assert pressure.overloaded(now)
    assert not pressure.overloaded(10.0)


@given(st.lists(st.tuples(st.floats(0.01, 3.0), st.integers(1, 32)), max_size=200))
def test_decisions_in_good_time_never_close_it(steps: list[tuple[float, int]]) -> None:
    pressure, now = Pressure(), 0.0
    for after, decided in steps:
        now += after
        pressure.note(now, decided, 0)
        assert not pressure.overloaded(now)


@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(1, 32), st.floats(0, 1)), max_size=200))
def test_it_closes_only_for_what_the_window_holds_and_always_opens(steps: list[tuple[float, int, float]]) -> None:
    pressure, now, noted, closed = Pressure(), 0.0, list[tuple[float, int, int]](), False
    for after, decided, share in steps:
        now += after
        tight = int(decided * share)
        pressure.note(now, decided, tight)
        noted.append((now, decided, tight))
        was, closed = closed, pressure.overloaded(now)
        recent = [one for one in noted if now - one[0] <= WINDOW_S]
        if closed and not was:
            assert sum(one[2] for one in recent) >= FEW
        if was and not closed:
            calm = [one for one in noted if now - one[0] <= CALM_S - BUCKET_S]
            assert sum(one[2] for one in calm) <= OPEN_BELOW * sum(one[1] for one in noted)
    assert not pressure.overloaded(now + WINDOW_S + CALM_S)
