"""How events lie on the bus: each stream under its prefixed name, an entry with one field for each event, the newest
entries kept."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from calls.errors import EventError
from calls.events import AnyEvent, decode
from calls.model import Mode

log = logging.getLogger(__name__)

PREFIX = "offhook:"
FIELD = b"e"
FROM_START = "0-0"
# Seconds that a stream is kept after its last entry. Audio is for a takeover, the call's story for an agent's restart.
EXPIRE_S = {"call": 3600, "audio": 180, "speech": 180, "wake": 3600}

# Entries kept, by the stream's name up to its colon. Prepare: the newest of each mode. Audio: 60 s of two participants
# at 2.5 Chunks a second.
BOUNDS = {"calls": 20_000, "work": 10_000, "prepare": len(Mode), "call": 200_000, "audio": 300, "speech": 500}


@dataclass(frozen=True, slots=True)
class Message:
    """One event as it lies on the bus. `stream` is without the prefix; `position` orders it within its stream."""

    stream: str
    position: str
    event: AnyEvent


def read_entry(stream: str, position: str, fields: dict[bytes, bytes]) -> Message | None:
    """An entry as a Message; None (logged) for one that nobody can read."""
    try:
        return Message(stream, position, decode(fields.get(FIELD, b"")))
    except EventError as error:
        log.error("skipped %s %s: %s", stream, position, error)
        return None


def kind_of(stream: str) -> str:
    """The stream's name up to its colon."""
    return stream.partition(":")[0]


def order(position: str) -> tuple[int, int]:
    """Positions as numbers that compare."""
    time_ms, _, serial = position.partition("-")
    return int(time_ms), int(serial or 0)
