"""The commands of the agent: what it posts on `call:ID`, how each is named, and which of them are still owed.

A command's key is made from ids alone, never from a clock or a count of posts, so that the same call read again from
the start of its stream gives the same keys. That is what makes a restart harmless: what the stream already holds is
not posted again, what it does not hold yet is.
"""

from __future__ import annotations

from calls.events import Answered, CancelResponse, Event, HangUp, HintShown, Notice, Say, StopSaying

Command = Say | StopSaying | CancelResponse | HintShown | Answered | HangUp | Notice

MESSAGE = "message"  # the kind of Notice that holds a caller's message for the team


def key(event: Event) -> str | None:
    """The name of a command, unique within its call; None for an event that is not the agent's own."""
    match event:
        case Say():
            return f"say {event.answer_id} {event.seq}"
        case StopSaying():
            return f"stop {event.answer_id}"
        case CancelResponse():
            return f"cancel {event.response_id}"
        case HintShown():
            return f"hint {event.hint.id}"
        case Answered():
            return f"answered {event.answer.id}"
        case HangUp():
            return "hang up"
        case Notice(kind=kind) if kind == MESSAGE:
            return f"message {event.at_s:.2f}"
    return None


class Ledger:
    """Which commands were issued, and which of those the stream does not hold yet."""

    def __init__(self) -> None:
        self._issued: set[str] = set()
        self._owed: dict[str, Event] = {}

    def issue(self, command: Event) -> bool:
        """Whether `command` is new: neither issued before nor on the stream already."""
        name = key(command)
        if name is None:
            raise ValueError(f"{type(command).__name__} is not a command of the agent")
        if name in self._issued:
            return False
        self._issued.add(name)
        self._owed[name] = command
        return True

    def seen(self, event: Event) -> bool:
        """Take note of an event of the stream; True if it is a command of ours."""
        name = key(event)
        if name is None:
            return False
        self._issued.add(name)
        self._owed.pop(name, None)
        return True

    @property
    def owed(self) -> list[Event]:
        """Issued and not seen on the stream, in the order of their issue."""
        return list(self._owed.values())
