"""Log lines that carry the call id.

`setup` is for `__main__` modules. Elsewhere: `log = logging.getLogger(__name__)` as always, and `for_call(call_id)`
(a context manager) around the work for one call; tasks that start inside it inherit the id.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_call_id: ContextVar[str] = ContextVar("call_id", default="-")


class _CallIdFilter(logging.Filter):
    """Puts `record.call_id` on every record; an explicit `extra={"call_id": ...}` wins."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "call_id"):
            record.call_id = _call_id.get()
        return True


def setup(level: str, service: str) -> None:
    """Log to standard error: time, level, service, call id, logger, message."""
    handler = logging.StreamHandler()
    handler.addFilter(_CallIdFilter())
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s %(levelname)-7s {service} call=%(call_id)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)


@contextmanager
def for_call(call_id: str) -> Iterator[None]:
    """Everything logged inside, also by tasks started inside, carries `call_id`."""
    token = _call_id.set(call_id)
    try:
        yield
    finally:
        _call_id.reset(token)
