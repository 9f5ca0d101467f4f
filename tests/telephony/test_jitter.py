"""The jitter buffer: order, bounds, adaptation, recovery. Its clock is the count of pops, so all of this is exact."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telephony.jitter import JitterBuffer, Unwrapper


def run(buffer: JitterBuffer[int], arrivals: dict[int, list[int]], ticks: int) -> list[int | None]:
    """arrivals: tick -> places that come before that tick's pop. Returns what each tick played."""
    played = []
    for tick in range(ticks):
        for place in arrivals.get(tick, []):
            buffer.push(place, place)
        played.append(buffer.pop())
    return played


def steady(count: int, delays: list[int] | None = None, first: int = 0) -> dict[int, list[int]]:
    arrivals: dict[int, list[int]] = {}
    for n in range(count):
        arrivals.setdefault(n + (delays[n] if delays else 0), []).append(first + n)
    return arrivals


def test_a_steady_stream_is_played_whole_at_the_shallowest_depth() -> None:
    buffer: JitterBuffer[int] = JitterBuffer(shallowest=2)
    assert run(buffer, steady(100, first=7000), 101) == [None, *range(7000, 7100)]
    assert buffer.depth == 2


def test_reordered_and_duplicate_frames() -> None:
    buffer: JitterBuffer[int] = JitterBuffer(shallowest=3)
    arrivals = {0: [1], 1: [0, 0], 2: [2, 3], 3: [5, 4, 4], 4: [6], 5: [6]}
    assert [p for p in run(buffer, arrivals, 9) if p is not None] == [0, 1, 2, 3, 4, 5, 6]
    assert buffer.counts.duplicate == 3


def test_a_lost_frame_is_one_concealed_tick_and_no_more_delay() -> None:
    buffer: JitterBuffer[int] = JitterBuffer(shallowest=2)
    arrivals = steady(60)
    arrivals[30] = []
    played = run(buffer, arrivals, 61)
    assert played[1:] == [n if n != 30 else None for n in range(60)]
    assert buffer.counts.lost == 1


def test_a_late_frame_is_not_played_after_its_place() -> None:
    buffer: JitterBuffer[int] = JitterBuffer(shallowest=1, deepest=1, capacity=10)
    assert run(buffer, {0: [0], 1: [2], 2: [1], 3: [3]}, 4) == [0, None, 2, 3]
    assert buffer.counts.late == 1


def test_jitter_deepens_and_calm_shallows_again() -> None:
    rng = random.Random(3)
    buffer: JitterBuffer[int] = JitterBuffer()
    rough = [rng.choice([0, 1, 2, 4, 5]) for _ in range(600)]
    played = run(buffer, steady(600, rough), 620)
    assert 5 <= buffer.depth <= 8
    assert sum(p is None for p in played[300:590]) < 10  # once it knows, it conceals next to nothing
    calm = run(buffer, {tick: [600 + 20 + tick] for tick in range(800)}, 800)
    assert buffer.depth == 2
    assert buffer.delay <= 3
    assert sum(p is None for p in calm[300:]) == 0


def test_a_burst_after_a_stall_is_kept_and_its_delay_given_back() -> None:
    buffer: JitterBuffer[int] = JitterBuffer()
    arrivals = steady(1500)
    stalled = [place for tick in range(200, 230) for place in arrivals.pop(tick)]  # TCP stood still for 600 ms
    arrivals[230] = stalled + arrivals[230]
    played = run(buffer, arrivals, 1501)
    kept = [place for place in played if place is not None]
    assert set(range(200, 205)) <= set(kept)  # what was delayed is heard, not skipped
    assert buffer.delay <= 3
    assert 1400 < len(kept) < 1500


def test_silence_is_what_is_left_out_first() -> None:
    buffer: JitterBuffer[int] = JitterBuffer(expendable=lambda place: place >= 240)
    arrivals = steady(300)
    arrivals[220] = [place for tick in range(200, 221) for place in arrivals.pop(tick)]
    played = [place for place in run(buffer, arrivals, 301) if place is not None]
    assert len(set(range(240)) - set(played)) <= 2  # of speech, one each half second
    assert buffer.delay <= buffer.depth + 1  # the stall itself is remembered for 5 s


def test_a_sender_with_a_faster_clock_does_not_build_up_delay() -> None:
    buffer: JitterBuffer[int] = JitterBuffer()
    arrivals: dict[int, list[int]] = {}
    for n in range(6000):
        arrivals.setdefault(n * 999 // 1000, []).append(n)
    run(buffer, arrivals, 5994)
    assert buffer.delay <= 4
    assert len(buffer) <= 4


def test_a_slower_clock_costs_one_concealment_at_a_time() -> None:
    buffer: JitterBuffer[int] = JitterBuffer()
    arrivals: dict[int, list[int]] = {}
    for n in range(3000):
        arrivals.setdefault(n * 1001 // 1000, []).append(n)
    played = run(buffer, arrivals, 3003)
    assert sum(p is None for p in played) < 15
    assert buffer.counts.late == 0


def test_one_wild_frame_changes_nothing_and_two_that_agree_start_afresh() -> None:
    buffer: JitterBuffer[int] = JitterBuffer(shallowest=2)
    arrivals = steady(100)
    arrivals[50] = [50, 9_999_999]
    assert run(buffer, arrivals, 100)[1:] == list(range(99))
    played = run(buffer, {tick: [5_000_000 + tick] for tick in range(50)}, 50)
    assert [p for p in played if p is not None and p > 1000] == list(range(5_000_000, 5_000_000 + 49))


def test_a_pause_in_the_media_clock_is_not_waited_out() -> None:
    buffer: JitterBuffer[int] = JitterBuffer()
    run(buffer, steady(50), 80)
    played = run(buffer, {tick: [130 + tick] for tick in range(20)}, 20)  # discontinuous transmission: 80 places
    assert [p for p in played if p is not None][:10] == list(range(130, 140))


places = st.integers(min_value=0, max_value=40) | st.integers(min_value=-(2**70), max_value=2**70)


@given(st.lists(st.lists(places, max_size=6), max_size=200))
def test_any_arrival_keeps_the_bounds(arrivals: list[list[int]]) -> None:
    buffer: JitterBuffer[int] = JitterBuffer(shallowest=2, deepest=4, capacity=16)
    for burst in arrivals:
        for place in burst:
            buffer.push(place, place)
            assert len(buffer) <= 2 * 16
            assert 2 <= buffer.depth <= 4
        buffer.pop()
        assert buffer.delay <= 16


@given(st.permutations(list(range(12))), st.sets(st.integers(0, 11), max_size=5), st.integers(0, 3))
def test_whatever_the_order_places_are_played_once_and_upwards(
    order: list[int], dropped: set[int], a_tick: int
) -> None:
    buffer: JitterBuffer[int] = JitterBuffer(shallowest=2, deepest=5, capacity=30)
    played = []
    for at, place in enumerate(order):
        if place not in dropped:
            buffer.push(place, place)
            buffer.push(place, place)
        if a_tick and at % a_tick == 0:
            played.append(buffer.pop())
    played += [buffer.pop() for _ in range(40)]
    kept = [place for place in played if place is not None]
    assert kept == sorted(set(kept))
    if a_tick == 0:
        assert set(kept) == set(range(12)) - dropped or buffer.counts.left_out


@given(st.integers(0, 2**16 - 1), st.lists(st.integers(-100, 200), max_size=300))
def test_unwrapping_follows_a_counter_past_its_end(start: int, steps: list[int]) -> None:
    unwrap = Unwrapper(16)
    true = start
    assert unwrap(start) == start
    for step in steps:
        true = max(true, true + step)
        assert unwrap(true % 65536) == true


def test_depths_must_make_sense() -> None:
    with pytest.raises(ValueError, match="capacity"):
        JitterBuffer(shallowest=3, deepest=2)
