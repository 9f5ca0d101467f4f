from __future__ import annotations

import os
import sys
import threading

import pytest

from model_worker.cascade.threads import niced


@pytest.mark.skipif(sys.platform != "linux", reason="niceness belongs to a thread on Linux only")
def test_only_what_is_made_there_is_niced() -> None:
    def child() -> int:
        """The niceness of a thread started by the niced one."""
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(_nice()))
        thread.start()
        thread.join()
        return seen[0]

    before = _nice()
    assert niced(child, before + 3) == before + 3
    assert _nice() == before


def test_errors_come_back() -> None:
    with pytest.raises(ZeroDivisionError):
        niced(lambda: 1 // 0, 1)


def _nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
