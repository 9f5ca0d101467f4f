"""Errors of models that are not faults."""

from __future__ import annotations

from calls.errors import OffhookError


class NoRoom(OffhookError):
    """There is no slot or no memory for one more call. The calls that are here go on."""
