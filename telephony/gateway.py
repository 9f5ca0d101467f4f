"""The front door: which calls are taken. The same for every bridge.

A call is answered only after a model worker has accepted it, so a full house says busy at once instead of serving
everybody late. The gateway also carries what the bus says about each call to its Session, and tells the console how
telephony is.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping, Sequence

from calls.bus import Bus
from calls.events import call_stream, speech_stream
from calls.log import for_call
from calls.model import Happening, Mode, Participant, Role
from telephony.bridge import Bridge, Leg, LegEvents, Offer, Refused
from telephony.orphans import SERVICE, bury
from telephony.session import Parts, Session

log = logging.getLogger(__name__)

PAIRING_S = 5.0  # the second leg of an assist call may come before the first by so much
CALLS_A_SECOND = 25  # new calls; bursts above that are refused
BEAT_S = 1.0

_BASE32 = "0123456789abcdefghijklmnopqrstuv"  # RFC 4648 section 7: sorts as its value does


def new_call_id() -> str:
    """16 characters that sort by time: 45 bits of milliseconds, 35 random bits."""
    value = int(time.time() * 1000) << 35 | secrets.randbits(35)
    return "".join(_BASE32[value >> shift & 31] for shift in range(75, -1, -5))


class Ticket:
    """What a bridge holds of a call that it may answer: a CallHandle for the parties of one transport."""

    def __init__(self, gateway: CallGateway, session: Session, roles: tuple[Role, ...]) -> None:
        self.call_id = session.id
        self._gateway = gateway
        self._session = session
        self._roles = roles

    def participant(self, role: Role) -> Participant:
        return Participant(role.value, role)

    def join(self, leg: Leg, events: LegEvents) -> None:
        """The leg's audio begins. If the call is over by now, the leg is hung up."""
        self._gateway.joined(self._session, leg, events)

    def abandon(self, reason: str) -> None:
        """The transport ended before it was answered. The agent's may be tried again; the caller's ends the call."""
        self._gateway.abandoned(self._session, self._roles, reason)


class CallGateway:
    """Admission, and the traffic between the bus and the sessions."""

    def __init__(
        self,
        bus: Bus,
        parts: Parts,
        *,
        max_calls: int,
        routes: Mapping[str, str],
        default_mode: str,
        admission_timeout_s: float,
        bridges: Sequence[Bridge] = (),
    ) -> None:
        self.sessions: dict[str, Session] = {}
        self._bus = bus
        self._parts = parts
        self._max_calls = max_calls
        self._routes = {number: Mode(mode) for number, mode in routes.items()}
        self._default_mode = Mode(default_mode)
        self._admission_timeout_s = admission_timeout_s
        self._bridges = tuple(bridges)  # only to tell whether they listen
        self._follower = bus.follower(f"telephony:{parts.instance}")
        self._tasks: asyncio.TaskGroup | None = None
        self._promised: set[str] = set()  # calls whose agent's leg rings
        self._admitted = asyncio.Condition()
        self._allowance = float(CALLS_A_SECOND)
        self._allowed_at = time.monotonic()
        self._closed = False
        self._empty = asyncio.Event()
        self._empty.set()

    # --- admission -----------------------------------------------------------------------------------------------

    async def ring(self, offer: Offer) -> Ticket:
        """Ask for room for this call, or for the agent's place on a call. Raises Refused."""
        if self._closed or self._tasks is None:
            raise Refused("the service is not taking calls")
        if offer.roles == (Role.HUMAN_AGENT,):
            return await self._second_leg(offer)
        mode = offer.mode or self._routes.get(offer.to, self._default_mode)
        self._check(offer, mode)
        session = Session(new_call_id(), offer, mode, self._parts)
        with for_call(session.id):
            await self._admit(session, offer)
        return Ticket(self, session, offer.roles)

    def _check(self, offer: Offer, mode: Mode) -> None:
        if Role.CALLER not in offer.roles or not set(offer.roles) <= {Role.CALLER, Role.HUMAN_AGENT}:
            raise Refused(f"no call is made of {', '.join(offer.roles) or 'nobody'}")
        if mode is Mode.ANSWER and Role.HUMAN_AGENT in offer.roles:
            raise Refused("a call that the voice agent answers has no human agent")
        if len(self.sessions) >= self._max_calls:
            raise Refused(f"all {self._max_calls} lines are busy", busy=True)
        if not self._bus.outbox.connected:
            raise Refused("the bus is away")
        now = time.monotonic()
        self._allowance = min(CALLS_A_SECOND, self._allowance + (now - self._allowed_at) * CALLS_A_SECOND)
        self._allowed_at = now
        if self._allowance < 1:
            raise Refused(f"more than {CALLS_A_SECOND} new calls a second")
        self._allowance -= 1

    async def _admit(self, session: Session, offer: Offer) -> None:
        """Offer the call and wait for a worker to accept it."""
        assert self._tasks is not None
        self.sessions[session.id] = session
        self._empty.clear()
        self._follower.add(call_stream(session.id))
        self._follower.add(speech_stream(session.id))
        session.offer()
        self._tasks.create_task(self._live(session), name=f"call {session.id}")
        try:
            async with asyncio.timeout(self._admission_timeout_s):
                await session.accepted.wait()
        except TimeoutError:
            session.end(Happening.REFUSED, "no worker has room")
            raise Refused("no worker has room") from None
        except asyncio.CancelledError:
            session.end(Happening.HUNG_UP, "the caller hung up")
            raise
        if session.over:
            raise Refused("the call is over")
        log.info("%s call from %s to %s by %s", session.mode, offer.from_, offer.to, offer.bridge)
        async with self._admitted:
            self._admitted.notify_all()

    async def _second_leg(self, offer: Offer) -> Ticket:
        """The agent's leg joins the assist call that it names, or the oldest one that waits for its agent. Who is not
        trusted must name it: whoever reaches the port could else sit down at any caller's ear."""
        if not offer.trusted and not offer.reference:
            raise Refused(f"{offer.from_} is a stranger and names no call", forbidden=True)
        try:
            async with asyncio.timeout(PAIRING_S), self._admitted:
                await self._admitted.wait_for(lambda: self._waiting_for_agent(offer.reference) is not None)
        except TimeoutError:
            named = f"named {offer.reference!r} " if offer.reference else ""
            raise Refused(f"no assist call {named}waits for its agent", forbidden=not offer.trusted) from None
        session = self._waiting_for_agent(offer.reference)
        assert session is not None  # nothing else ran since the wait
        self._promised.add(session.id)
        return Ticket(self, session, offer.roles)

    def _waiting_for_agent(self, reference: str) -> Session | None:
        for session in self.sessions.values():  # the oldest first
            if (
                session.mode is Mode.ASSIST
                and session.accepted.is_set()
                and session.wants(Role.HUMAN_AGENT)
                and session.id not in self._promised
                and reference in ("", session.reference)
            ):
                return session
        return None

    # --- what a Ticket may do ------------------------------------------------------------------------------------

    def joined(self, session: Session, leg: Leg, events: LegEvents) -> None:
        if session.over:
            if self._tasks is not None:
                self._tasks.create_task(self._turn_away(session, leg))
            return
        with for_call(session.id):
            session.join(leg.participant.role, leg, events)

    def abandoned(self, session: Session, roles: tuple[Role, ...], reason: str) -> None:
        self._promised.discard(session.id)
        if Role.CALLER in roles:
            session.end(Happening.HUNG_UP, reason)

    async def _turn_away(self, session: Session, leg: Leg) -> None:
        with for_call(session.id):
            try:
                await leg.hang_up("the call is over")
            except Exception:  # the boundary of one transport
                log.exception("hanging up a leg that came too late")

    # --- the life of the process ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry events to the sessions and live signs to the console, until cancelled; its calls end with it."""
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(self._dispatch(), name="dispatch")
            self._tasks.create_task(self._beat(), name="heartbeat")
            self._tasks.create_task(bury(self._bus, self._parts.recorder.root), name="orphans")

    async def close(self, timeout_s: float) -> None:
        """Take no more calls, hang up those in progress, and wait until their last events are posted."""
        self._closed = True
        for session in list(self.sessions.values()):
            session.end(Happening.HUNG_UP, "the service is stopping")
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            log.warning("%d calls did not end in time", len(self.sessions))

    async def _live(self, session: Session) -> None:
        try:
            await session.run()
        except Exception:  # the boundary of one call: the others go on
            log.exception("call failed", extra={"call_id": session.id})
        finally:
            self._follower.drop(call_stream(session.id))
            self._follower.drop(speech_stream(session.id))
            self._promised.discard(session.id)
            del self.sessions[session.id]
            if not self.sessions:
                self._empty.set()

    async def _dispatch(self) -> None:
        async for message in self._follower.messages():
            session = self.sessions.get(message.event.call_id)
            if session is None or session.over:
                continue
            try:
                session.receive(message.event)
            except Exception as error:  # the boundary of one call
                log.exception("event failed", extra={"call_id": session.id})
                session.crashed(error)

    async def _beat(self) -> None:
        """No live sign before every bridge listens: until then the house is not ready to take calls."""
        while True:
            listening = all(bridge.ready for bridge in self._bridges)
            if listening:
                await self._bus.beat(SERVICE, self._parts.instance, self.health())
            await asyncio.sleep(BEAT_S if listening else BEAT_S / 20)

    def health(self) -> dict[str, str | int | float]:
        """What /healthz of the console shows of telephony."""
        ticker = self._parts.ticker
        return {
            "calls": len(self.sessions),
            "max_calls": self._max_calls,
            "taking_calls": int(not self._closed),
            "tick_lag_p99_ms": round(ticker.lag_s() * 1000, 2),
            "stalls": ticker.stalls,
            "ticks_skipped": ticker.skipped,
            "events_dropped": self._bus.outbox.dropped,
        }
