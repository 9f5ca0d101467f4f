"""The agent service: follows `calls` and every live `call:ID`, posts what the conversations command.

One reader takes all streams in turn; folding an event is quick and never waits. What an event leads to goes to the
outbox, rows go to the scribe. After a restart every live call is read from the start of its stream: until the end that
the stream had when the reading began, commands are only noted, then those are posted that it does not hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from agent import policy
from agent.conversation import Conversation
from agent.knowledge import Knowledge
from agent.scribe import CallRows, Scribe
from calls import events as ev
from calls.bus import FROM_START, Bus, Follower, Message
from calls.errors import BusError, OffhookError, StoreError
from calls.log import for_call
from calls.model import Mode, State
from calls.store import Store

log = logging.getLogger(__name__)

BEAT_S = 1.0
QUIET_S = 3.0  # a call that ended is read on until nothing came for so long: the worker's last utterances
LINGER_S = 20.0  # but no longer than this
ORPHAN_S = 120.0  # a call with no event for so long, and no heartbeat of its telephony process, has lost that
FORGOTTEN = 20_000  # ids of calls that are done with, kept so that a bus that went back in time is not believed

ROLE = "agent"
LEAD_MS = 1500  # an agent service silent for so long is replaced; also how long a restart after a kill waits

T = TypeVar("T")

Enqueue = Callable[[str, str], Awaitable[None]]
"""Queue the job after a call: (call id, tenant). Raises OSError when the queue cannot be reached."""


class Superseded(OffhookError):
    """Another agent service is the active one now."""


@dataclass(slots=True)
class LiveCall:
    offered: ev.CallOffered
    conversation: Conversation
    caught_up_at: tuple[int, int]  # the end of the stream when we began to read it
    caught_up: bool = False
    position: tuple[int, int] = (0, 0)
    started_at: float = 0.0  # Unix time
    last_event: float = field(default_factory=time.monotonic)
    ended: bool = False
    broken: bool = False  # its conversation raised an error: it is still written down


class Service:
    """`run` is the whole life of the process."""

    def __init__(
        self, bus: Bus, store: Store, knowledge: Knowledge, rules: policy.Rules, enqueue: Enqueue, name: str = "agent"
    ) -> None:
        self.bus = bus
        self.store = store
        self.knowledge = knowledge
        self.rules = rules
        self.name = name
        self.scribe = Scribe(store, lambda call_id: bus.read(ev.call_stream(call_id)))
        self._enqueue = enqueue
        self._follower: Follower = bus.follower(f"agent-{name}")
        self._calls: dict[str, LiveCall] = {}
        self._done: dict[str, None] = {}
        self._assigned: set[str] = set()
        self._reachable_since: float | None = None  # monotonic; None: the bus is away
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        """Wait until no other agent service is active, then serve until cancelled; the rows that wait are then given
        a moment to be written. Raises Superseded (in a group) when another one became active, because the bus was away
        or we were frozen for longer than LEAD_MS."""
        cards = self.knowledge.cards()  # an error in them is better known now than at the first call
        await self._stand_by()
        for mode in Mode:
            instruction = policy.instruct(mode, (), cards, self.rules)
            self.bus.post(ev.PREPARE, ev.Prepare(call_id="", instruction=instruction))
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._tasks.create_task(self.bus.outbox.run(), name="outbox")
                self._tasks.create_task(self.scribe.run(), name="scribe")
                self._tasks.create_task(self._beat(), name="heartbeat")
                self._tasks.create_task(self._stay_active(), name="lead")
                await self._begin()
                await self._follow()
        finally:
            await self._last_words()
            with contextlib.suppress(BusError):
                await self.bus.resign(ROLE, self.name)

    async def _stand_by(self) -> None:
        """Two that converse would say everything twice: one is active, others wait for its place."""
        told = False
        while not await _patiently(lambda: self.bus.lead(ROLE, self.name, LEAD_MS), BusError):
            if not told:
                log.info("another agent service is active: standing by")
                told = True
            await asyncio.sleep(LEAD_MS / 5000)

    async def _stay_active(self) -> None:
        while True:
            await asyncio.sleep(LEAD_MS / 5000)
            try:
                active = await self.bus.lead(ROLE, self.name, LEAD_MS)
            except BusError:
                continue  # nobody else can become active either
            if not active:
                raise Superseded("another agent service has become active")

    async def _last_words(self) -> None:
        outbox = asyncio.create_task(self.bus.outbox.run())
        try:
            await self.bus.outbox.flush(1.0)
            await asyncio.wait_for(self.scribe.flush(), 2.0)
        except TimeoutError:
            log.warning("stopped with %d rows unwritten; the next start writes them", self.scribe.waiting)
        finally:
            outbox.cancel()

    async def _beat(self) -> None:
        while True:
            waiting, database = self.scribe.waiting, int(self.scribe.connected)
            await self.bus.beat(
                "agent", self.name, {"calls": len(self._calls), "rows_waiting": waiting, "database": database}
            )
            await self._end_orphans()
            await asyncio.sleep(BEAT_S)

    # --- which calls there are -----------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Find the calls that go on, and those that ended while nobody wrote them down."""
        past = await self._read(ev.CALLS)
        self._assigned = {message.event.call_id for message in await self._read(ev.WORK)}
        offered = {m.event.call_id: m.event for m in past if isinstance(m.event, ev.CallOffered)}
        ended = {m.event.call_id for m in past if isinstance(m.event, ev.CallEnded)}
        for call_id, event in offered.items():
            if call_id in ended:
                self._forget(call_id)
            else:
                await self._open(event)
        self._tasks.create_task(
            self._recover([event for call_id, event in offered.items() if call_id in ended]), name="recovery"
        )
        self._follower.add(ev.CALLS, past[-1].position if past else FROM_START)

    async def _recover(self, ended: list[ev.CallOffered]) -> None:
        """Calls that ended while the agent was away: those not written to the end are read again."""
        progress: dict[str, str] = {}
        for first in range(0, len(ended), 500):
            part = [offered.call_id for offered in ended[first : first + 500]]
            progress |= await _patiently(partial(self.store.wrap_ups, part), StoreError)
        for offered in ended:
            match progress.get(offered.call_id, ""):
                case "":
                    self._done.pop(offered.call_id, None)
                    await self._open(offered, live=False)
                case "queued":
                    await self._queue(offered)

    async def _read(self, stream: str) -> list[Message]:
        return await _patiently(lambda: self.bus.read(stream), BusError)

    async def _open(self, offered: ev.CallOffered, live: bool = True) -> None:
        """Begin a call. A worker is asked for at once, unless that was done: the telephone is ringing."""
        call_id = offered.call_id
        if call_id in self._calls or call_id in self._done:
            return
        with for_call(call_id):
            if live and call_id not in self._assigned and time.time() - offered.offered_at < ORPHAN_S:
                instruction = policy.instruct(offered.mode, offered.participants, self.knowledge.cards(), self.rules)
                self._assigned.add(call_id)
                self.bus.post(ev.WORK, ev.Assignment(call_id=call_id, instruction=instruction))
            newest = await _patiently(lambda: self.bus.newest(ev.call_stream(call_id)), BusError)
            call = LiveCall(offered, Conversation(offered, self.rules), _order(newest))
            self._calls[call_id] = call
            self._follower.add(ev.call_stream(call_id))

    def _forget(self, call_id: str) -> None:
        self._calls.pop(call_id, None)
        self._assigned.discard(call_id)
        self._follower.drop(ev.call_stream(call_id))
        self._done[call_id] = None
        while len(self._done) > FORGOTTEN:
            del self._done[next(iter(self._done))]

    # --- what happens on them --------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        async for message in self._follower.messages():
            if message.stream == ev.CALLS:
                if isinstance(message.event, ev.CallOffered):
                    await self._open(message.event)
            elif call := self._calls.get(message.event.call_id):
                with for_call(call.offered.call_id):
                    self._take(call, message)

    def _take(self, call: LiveCall, message: Message) -> None:
        """One message of one call."""
        position = _order(message.position)
        if position <= call.position:
            return  # the bus lost its newest entries and is read again
        call.position = position
        call.last_event = time.monotonic()
        self.scribe.note(message)
        if isinstance(message.event, ev.CallStarted) and not call.started_at:
            call.started_at = message.event.started_at
        commands = self._converse(call, message)
        if call.caught_up:
            self._post(call, commands)
        elif position >= call.caught_up_at:
            call.caught_up = True
            self._post(call, call.conversation.owed)
        if isinstance(message.event, ev.CallEnded) and not call.ended:
            call.ended = True
            self._tasks.create_task(self._finish(call), name=f"finish {call.offered.call_id}")

    def _converse(self, call: LiveCall, message: Message) -> list[ev.Event]:
        """An error in one conversation ends that call, politely for telephony, and no other."""
        if call.broken:
            return []
        posted_s = call.position[0] / 1000 - call.started_at if call.started_at else 0.0
        try:
            return call.conversation.apply(message.event, posted_s)
        except Exception:
            log.exception("conversation failed at %s: hanging up", type(message.event).__name__)
            call.broken = True
            return [ev.HangUp(call_id=call.offered.call_id, reason="internal error")]

    def _post(self, call: LiveCall, commands: list[ev.Event]) -> None:
        for command in commands:
            self.bus.post(ev.call_stream(call.offered.call_id), command)

    async def _end_orphans(self) -> None:
        """A telephony process that was killed never says how its calls ended.

        Silence means nothing while the bus is away, so it is counted from when the bus was back; and a call whose
        telephony process shows a heartbeat is in good hands, however quiet it is.
        """
        if not await self.bus.ping():
            self._reachable_since = None
            return
        now = time.monotonic()
        if self._reachable_since is None:
            self._reachable_since = now
        quiet_since = now - ORPHAN_S
        if self._reachable_since > quiet_since:
            return
        silent = [call for call in self._calls.values() if not call.ended and call.last_event < quiet_since]
        if silent:
            try:
                alive = set((await self.bus.services()).get("telephony", {}))
            except BusError:
                self._reachable_since = None
                return
            for call in silent:
                if not call.ended and call.last_event < quiet_since and call.offered.instance not in alive:
                    self._give_up(call)

    def _give_up(self, call: LiveCall) -> None:
        call_id = call.offered.call_id
        log.warning("no event for %.0f s: the call is lost", ORPHAN_S, extra={"call_id": call_id})
        call.last_event = time.monotonic()
        ended = ev.CallEnded(
            call_id=call_id,
            state=State.FAILED,
            reason="telephony was lost",
            ended_at=time.time(),
            duration_s=call.conversation.now_s,
        )
        self.bus.post(ev.call_stream(call_id), ended)
        self.bus.post(ev.CALLS, ended)

    # --- the end of a call --------------------------------------------------------------------------------------------

    async def _finish(self, call: LiveCall) -> None:
        """Hear the stream out, make the rows durable, then queue the job after the call."""
        call_id = call.offered.call_id
        latest = time.monotonic() + LINGER_S
        while (wait_s := min(call.last_event + QUIET_S, latest) - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(wait_s)
        word = await self.scribe.finish(call_id, _what_next)
        self._forget(call_id)
        if word == "queued":
            await self._queue(call.offered)
        log.info("written; wrap-up %s", word)

    async def _queue(self, offered: ev.CallOffered) -> None:
        await _patiently(lambda: self._enqueue(offered.call_id, offered.tenant), OSError)


def _what_next(rows: CallRows) -> str:
    return "queued" if rows.recorded else "none"


async def _patiently(action: Callable[[], Awaitable[T]], outage: type[Exception]) -> T:
    """`action`, again and again while it raises `outage`."""
    pause_s = 0.1
    while True:
        try:
            return await action()
        except outage as error:
            log.warning("trying again: %s", error)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 2.0)


def _order(position: str) -> tuple[int, int]:
    """A bus position as numbers, to compare."""
    time_ms, _, serial = position.partition("-")
    return int(time_ms), int(serial or 0)
