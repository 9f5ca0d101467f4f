"""Giving background inference a lower priority than the live path."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def niced(make: Callable[[], T], nice: int) -> T:
    """Call `make` on a thread of lower priority and return what it made.

    On Linux niceness belongs to a thread and is inherited, so an engine built here starts its own worker threads niced,
    while the rest of the process keeps its priority. Elsewhere `make` is simply called.
    """
    if sys.platform != "linux" or nice <= 0:
        return make()
    made: Future[T] = Future()

    def run() -> None:
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
            made.set_result(make())
        except BaseException as error:  # handed to the caller by result()
            made.set_exception(error)

    threading.Thread(target=run, name="niced").start()
    return made.result()
