"""What every bridge gives and gets: a Leg for each participant's transport, a Gateway that admits calls.

The session (session.py) drives Legs on one 20 ms clock: each tick it reads a Frame from every Leg and writes one to
every Leg. Media time is the number of ticks. A Leg hides its transport's packets, codec, jitter buffer and pacing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from calls.audio import Frame
from calls.model import Mode, Participant, Role


class Leg(Protocol):
    """One participant's transport, already answered."""

    participant: Participant

    def read(self) -> Frame | None:
        """The next 20 ms heard from the party; None when nothing arrived in time (the session conceals it).
        Called once a tick; never blocks."""
        ...

    def write(self, frame: Frame) -> None:
        """The next 20 ms for the party. Called once a tick (silence included); never blocks."""
        ...

    def flush(self) -> int:
        """Drop what was written and not yet played. Returns how many samples (16 kHz) were dropped."""
        ...

    def unplayed(self) -> int:
        """Samples (16 kHz) written that the party has not been sent, or has not acknowledged, yet."""
        ...

    async def hang_up(self, reason: str) -> None:
        """End this leg towards its party. Harmless if it has ended."""
        ...


@dataclass(slots=True)
class LegEvents:
    """What a Leg reports to its session; the session sets these before the first tick. Call them from the event
    loop only."""

    dtmf: Callable[[str], None] = lambda digit: None
    held: Callable[[bool], None] = lambda held: None
    closed: Callable[[str, bool], None] = lambda reason, lost: None  # lost: not a hang-up but a failure
    acknowledged: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Offer:
    """An incoming call as its bridge sees it.

    `mode` None: the gateway's routes decide by `to`. `reference` joins the legs of one assist call: the caller's leg
    brings it, the agent's leg names it. `roles` are the participants that this one transport carries. `trusted`: the
    bridge knows who rings (a signature, a password, an address of the house); a stranger is no agent unless it names
    the call.
    """

    bridge: str
    from_: str
    to: str
    mode: Mode | None = None
    reference: str = ""
    roles: tuple[Role, ...] = (Role.CALLER,)
    headers: dict[str, str] = field(default_factory=dict)
    trusted: bool = True


class Refused(Exception):
    """The gateway does not take this call. `busy`: 486; `forbidden`: 403, it may not ask for this; else 503."""

    def __init__(self, reason: str, busy: bool = False, forbidden: bool = False) -> None:
        super().__init__(reason)
        self.busy = busy
        self.forbidden = forbidden


class CallHandle(Protocol):
    """A call that was admitted and may now be answered."""

    call_id: str

    def participant(self, role: Role) -> Participant:
        """The participant that this leg is."""
        ...

    def join(self, leg: Leg, events: LegEvents) -> None:
        """The transport is answered: this leg's audio begins. The first leg starts the call's clock."""
        ...

    def abandon(self, reason: str) -> None:
        """The transport ended before it was answered (CANCEL, a failed negotiation)."""
        ...


class Gateway(Protocol):
    """Admission, the same for every bridge."""

    async def ring(self, offer: Offer) -> CallHandle:
        """Ask for room for this call. Raises Refused."""
        ...


class Bridge(Protocol):
    """Listens for calls of one kind."""

    name: str

    async def run(self, gateway: Gateway) -> None:
        """Serve until cancelled; hangs up its calls on the way out."""
        ...

    @property
    def ready(self) -> bool:
        """It is listening."""
        ...
