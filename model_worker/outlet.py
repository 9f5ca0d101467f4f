"""From any thread to the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from calls.events import Event


class Outlet:
    """Brings events from any thread to the event loop, in order, with one wake-up for all that wait. It needs no bound:
    the loop empties it at its next turn."""

    def __init__(self, deliver: Callable[[str, Event], None]) -> None:
        """`deliver(call_id, event)` is called on the loop that is running now."""
        self._loop = asyncio.get_running_loop()
        self._deliver = deliver
        self._waiting: deque[tuple[str, Event]] = deque()
        self._lock = threading.Lock()
        self._scheduled = False

    def put(self, call_id: str, event: Event) -> None:
        with self._lock:
            self._waiting.append((call_id, event))
            if self._scheduled or self._loop.is_closed():
                return
            self._scheduled = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
            self._scheduled = False
        for call_id, event in waiting:
            self._deliver(call_id, event)
