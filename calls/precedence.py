"""Precedence on the processor for the thread that keeps a 20 ms clock.

A niceness is not enough: Linux weighs sessions first (autogroups, each service has one), so on a busy machine a media
thread at nice -5 woke 150 to 650 ms late (p99); as a round-robin real-time thread 1.2 ms, side by side.
"""

from __future__ import annotations

import os

_PRIORITY = 10  # of 1..99; the kernel leaves other processes 5 % of the time in any case


def take_precedence() -> bool:
    """Let the calling thread run before all ordinary ones; threads and processes it starts do not inherit that. False
    where that is not possible: it takes Linux and root, or a limit `rtprio` of at least 10 (limits.conf(5), Docker's
    ulimits)."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(_PRIORITY))
    except (AttributeError, OSError):
        return False
    return True
