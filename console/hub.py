"""The live calls, folded from the bus by one Follower a process, for lists and counters.

Browsers do not get queues: each Watch remembers only *which* calls changed since it last looked, so a slow browser
costs a set of ids, and what it gets next is the newest state.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from calls.bus import Bus, Message
from calls.errors import Ambiguous
from calls.events import (
    CALLS,
    Answered,
    BargeIn,
    CallAccepted,
    CallEnded,
    CallOffered,
    CallStarted,
    Decided,
    HintJudged,
    HintShown,
    Notice,
    Partial,
    PlayoutEnded,
    PlayoutStarted,
    Say,
    Uttered,
    call_stream,
)
from calls.model import LIVE_STATE, State
from console.story import iso

STRIP = 75  # Chunks of each participant kept for the small decision strip: 30 s
STALE_S = 120.0  # a call without any event for so long was left behind by a crash
KEEP_ENDED = 500  # ended calls still known by id, for when the database is away


@dataclass(slots=True)
class LiveCall:
    """What the list shows of one call."""

    id: str
    offer: CallOffered
    touched_ms: int  # bus time of its newest event
    state: State = State.RINGING
    started_at: float | None = None
    ended_at: float | None = None
    duration_s: float | None = None
    reason: str = ""
    worker: str = ""
    last_words: dict[str, Any] | None = None
    saying: dict[str, Any] | None = None
    hints: dict[str, str] = field(default_factory=dict)  # id -> verdict
    answers: dict[str, bool] = field(default_factory=dict)  # id -> interrupted
    notices: set[tuple[str, float]] = field(default_factory=set)
    strips: dict[str, deque[tuple[int, str, float]]] = field(default_factory=dict)
    late: int = 0

    @property
    def live(self) -> bool:
        return self.state not in (State.ENDED, State.REFUSED, State.FAILED)

    def json(self) -> dict[str, Any]:
        """The call for lists: the keys of a past call, and what only a live one has."""
        offer = self.offer
        return {
            "id": self.id, "mode": offer.mode.value, "state": self.state.value, "bridge": offer.bridge,
            "from": offer.from_, "to": offer.to, "offered_at": iso(offer.offered_at),
            "started_at": iso(self.started_at), "ended_at": iso(self.ended_at), "duration_s": self.duration_s,
            "summary": "", "disposition": "", "wrap_up": "", "reason": self.reason, "headline": "",
            "participants": [{"id": p.id, "role": p.role.value} for p in offer.participants],
            "worker": self.worker, "last_words": self.last_words, "saying": self.saying,
            "hints": len(self.hints), "answers": len(self.answers), "notices": len(self.notices),
            "missed_deadlines": self.late,
            "strips": {
                who: {"first": strip[0][0], "cells": [[choice, round(score, 2)] for _, choice, score in strip]}
                for who, strip in self.strips.items() if strip
            },
        }  # fmt: skip

    def take(self, message: Message) -> bool:
        """Fold one event in. True if the list should show something new."""
        match message.event:
            case CallStarted() as event:
                self.started_at, self.state = event.started_at, LIVE_STATE[self.offer.mode]
            case CallAccepted() as event:
                self.worker = event.worker
            case CallEnded() as event:
                self.state, self.reason = event.state, event.reason
                self.ended_at, self.duration_s = event.ended_at, event.duration_s
            case Decided() as event:
                strip = self.strips.setdefault(event.participant_id, deque(maxlen=STRIP))
                if strip and event.chunk <= strip[-1][0]:
                    return False  # came twice
                strip.append((event.chunk, event.choice.value, event.score))
                self.late += event.late
            case Partial() as event:
                self._said(event.participant_id, event.text, event.end_s, final=False)
            case Uttered(utterance=said) if said.revision == 0:
                self._said(said.participant_id, said.text, said.end_s, final=True)
            case HintShown(hint=hint):
                self.hints.setdefault(hint.id, "")
            case HintJudged() as event:
                self.hints[event.hint_id] = event.verdict
            case Say() as event if event.text:
                self.saying = {"answer_id": event.answer_id, "text": event.text}
            case PlayoutStarted() as event:
                self.answers.setdefault(event.answer_id, False)
            case BargeIn() as event:
                self._fell_silent(event.answer_id)
            case PlayoutEnded() as event:
                self.answers[event.answer_id] = event.interrupted
                self._fell_silent(event.answer_id)
            case Answered(answer=answer):
                self.answers[answer.id] = answer.interrupted
                self._said("voice_agent", answer.heard_text, answer.at_s, final=True)
            case Notice() as event:
                self.notices.add((event.kind, event.at_s))
            case _:
                return False
        return True

    def _fell_silent(self, answer_id: str) -> None:
        if self.saying is not None and self.saying["answer_id"] == answer_id:  # not if the next one is on its way
            self.saying = None

    def _said(self, who: str, text: str, at_s: float, *, final: bool) -> None:
        if text and (self.last_words is None or at_s >= self.last_words["at_s"]):
            self.last_words = {"participant": who, "text": text, "at_s": at_s, "final": final}


class Watch:
    """One browser's view of the hub: what changed since it last looked."""

    def __init__(self) -> None:
        self._dirty: dict[str, None] = {}
        self._something = asyncio.Event()

    def mark(self, call_id: str) -> None:
        self._dirty[call_id] = None
        self._something.set()

    async def changed(self, timeout_s: float) -> list[str]:
        """The ids of calls that changed, as soon as there are any; empty after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._something.wait()
        except TimeoutError:
            return []
        self._something.clear()
        dirty, self._dirty = self._dirty, {}
        return list(dirty)


class LiveCalls:
    """Follows `calls` and the stream of every live call."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._calls: dict[str, LiveCall] = {}  # in order of offering; ended ones stay for a while
        self._watches: set[Watch] = set()
        self._follower = bus.follower(f"console-{secrets.token_hex(4)}")

    async def run(self) -> None:
        """Follow until cancelled."""
        self._follower.add(CALLS)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep())
            async for message in self._follower.messages():
                self._take(message)

    def live(self) -> list[LiveCall]:
        """Newest first."""
        return [call for call in reversed(self._calls.values()) if call.live]

    def recent(self) -> list[LiveCall]:
        """Live and lately ended calls, newest first."""
        return list(reversed(self._calls.values()))

    def get(self, call_id: str) -> LiveCall | None:
        return self._calls.get(call_id)

    def resolve(self, prefix: str) -> LiveCall | None:
        """The call with this id, or the only one whose id begins so. Raises Ambiguous."""
        if prefix in self._calls:
            return self._calls[prefix]
        found = [call for call_id, call in self._calls.items() if call_id.startswith(prefix)]
        if len(found) > 1:
            raise Ambiguous(f"{prefix} names several calls")
        return found[0] if found else None

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        watch = Watch()
        self._watches.add(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    def _take(self, message: Message) -> None:
        event = message.event
        touched_ms = int(message.position.partition("-")[0])
        call = self._calls.get(event.call_id)
        if call is None:
            if not isinstance(event, CallOffered):
                return
            call = self._calls[event.call_id] = LiveCall(event.call_id, event, touched_ms)
            self._follower.add(call_stream(event.call_id))
            self._mark(call)
            return
        call.touched_ms = max(call.touched_ms, touched_ms)
        if call.take(message):
            self._mark(call)
        if not call.live:
            self._follower.drop(call_stream(call.id))
            self._forget()

    def _mark(self, call: LiveCall) -> None:
        for watch in self._watches:
            watch.mark(call.id)

    def _forget(self) -> None:
        ended = [call.id for call in self._calls.values() if not call.live]
        for call_id in ended[: max(0, len(ended) - KEEP_ENDED)]:
            del self._calls[call_id]

    async def _sweep(self) -> None:
        """Put away calls whose telephony died without a last word."""
        while True:
            await asyncio.sleep(5.0)
            self.sweep(time.time())

    def sweep(self, now: float) -> None:
        """One round of it at Unix time `now`."""
        for call in self.live():
            if now - call.touched_ms / 1000 > STALE_S:
                call.state, call.reason = State.FAILED, "nothing was heard of this call any more"
                self._follower.drop(call_stream(call.id))
                self._mark(call)
