from __future__ import annotations

import asyncio

import pytest

from calls.bus import Bus


@pytest.mark.parametrize("steps", range(1, 40))
async def test_a_cancellation_is_never_swallowed(bus_url: str, steps: int) -> None:
    """Wherever between connecting and the reply it comes."""
    bus = Bus(bus_url)
    task = asyncio.create_task(bus.beat("test", "one", {"a": 1}))
    for _ in range(steps):
        await asyncio.sleep(0)
    before = task.done()
    task.cancel()
    await asyncio.wait([task])
    assert before or task.cancelled()
    await bus.close()
