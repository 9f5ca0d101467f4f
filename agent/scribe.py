"""The one writer of live rows: what lies on `call:ID` becomes rows in Postgres, in batches, and survives its outages.

`CallRows` is a fold like the conversation: the same stream gives the same rows with the same ids, so after a restart
everything is simply written again. `Scribe` writes about twice a second and tries again while the database is away.
Its memory is bounded: when too many rows wait, those of whole calls are let go and read from the stream again later,
where they still are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from calls import events as ev
from calls.bus import Message
from calls.errors import OffhookError, StoreError
from calls.model import LIVE_STATE, Decision, Hint, State, Utterance
from calls.store import Row, Store
from calls.trace import CHUNKS_A_MINUTE, pack

log = logging.getLogger(__name__)

FLUSH_S = 0.5
BATCH = 500  # rows in one transaction
CAPACITY = 50_000  # rows that may wait
TRIES = 3  # of a batch that an answering database refuses, before its rows are tried one by one

Key = tuple[str, ...]


class CallRows:
    """The rows of one call, as far as its stream was read. `take` gives those that changed since the last time."""

    def __init__(self) -> None:
        self.recorded = False  # a recording with sound was saved
        self._call: Row = {}
        self._hints: dict[str, Hint] = {}
        self._traces: dict[tuple[str, int], dict[int, Decision]] = {}
        self._newest_minute = 0
        self._changed: dict[Key, tuple[str, Row]] = {}
        self._changed_traces: set[tuple[str, int]] = set()

    @property
    def waiting(self) -> int:
        return len(self._changed) + len(self._changed_traces)

    def fold(self, message: Message) -> None:
        """Take the next message of the call's stream."""
        event = message.event
        match event:
            case ev.CallOffered():
                self._offered(event)
            case _ if not self._call:
                return  # the stream's beginning is missing: there is no tenant to write for
            case ev.CallStarted():
                mode = self._call["mode"]
                self._set_call(state=LIVE_STATE[mode].value, started_at=_time(event.started_at))
            case ev.CallEnded():
                duration_s = event.duration_s
                self._set_call(
                    state=event.state.value, reason=event.reason, ended_at=_time(event.ended_at), duration_s=duration_s
                )
            case ev.Decided():
                self._decided(event)
            case ev.Uttered():
                self._uttered(event.utterance)
            case ev.HintShown():
                self._hint(event.hint)
            case ev.HintJudged() if hint := self._hints.get(event.hint_id):
                self._hint(replace(hint, verdict=event.verdict))
            case ev.Answered():
                answer = msgspec.to_builtins(event.answer)
                self._put("answers", (answer["id"],), answer)
            case ev.RecordingSaved():
                self.recorded = self.recorded or event.duration_s > 0
                row = {name: getattr(event, name) for name in ("path", "duration_s", "channels", "complete")}
                self._put("recordings", (event.path,), row)
            case ev.Notice():
                row = {"id": message.position, "kind": event.kind, "text": event.text, "at_s": event.at_s}
                self._put("notices", (message.position,), row)

    def close(self, wrap_up: str) -> None:
        """All of the call was read: say with its last row what comes next."""
        if self._call:
            self._set_call(wrap_up=wrap_up)

    def take(self) -> list[tuple[str, Row]]:
        rows = list(self._changed.values())
        for participant_id, minute in sorted(self._changed_traces):
            decisions = self._traces[participant_id, minute]
            row = {"participant_id": participant_id, "minute": minute, "trace": pack(minute, decisions.values())}
            rows.append(("decision_traces", self._owned(row)))
        self._changed, self._changed_traces = {}, set()
        for key in [key for key in self._traces if key[1] < self._newest_minute - 1]:
            del self._traces[key]  # two minutes are kept: a chunk may come late
        return rows

    # --- one event each ---------------------------------------------------------------------------------------

    def _offered(self, event: ev.CallOffered) -> None:
        if self._call:
            return
        self._call = {
            "id": event.call_id,
            "tenant_id": event.tenant,
            "mode": event.mode.value,
            "state": State.RINGING.value,
            "bridge": event.bridge,
            "from_": _clean(event.from_),
            "to": _clean(event.to),
            "offered_at": _time(event.offered_at),
        }
        self._set_call()
        for participant in event.participants:
            self._put("participants", (participant.id,), {"id": participant.id, "role": participant.role.value})

    def _decided(self, event: ev.Decided) -> None:
        minute = event.chunk // CHUNKS_A_MINUTE
        if minute < self._newest_minute - 1:
            return  # written long ago
        self._newest_minute = max(self._newest_minute, minute)
        decision = Decision(event.participant_id, event.chunk, event.choice, event.score, event.late, event.stopped)
        self._traces.setdefault((event.participant_id, minute), {})[event.chunk] = decision
        self._changed_traces.add((event.participant_id, minute))

    def _uttered(self, utterance: Utterance) -> None:
        self._put("utterances", (utterance.id,), msgspec.to_builtins(utterance))

    def _hint(self, hint: Hint) -> None:
        self._hints[hint.id] = hint
        self._put("hints", (hint.id,), msgspec.to_builtins(hint))

    def _set_call(self, **columns: Any) -> None:
        self._call = {**self._call, **{name: _clean(value) for name, value in columns.items()}}
        self._changed["calls", self._call["id"]] = ("calls", self._call)

    def _put(self, table: str, key: Key, row: Row) -> None:
        self._changed[table, *key] = (table, self._owned({name: _clean(value) for name, value in row.items()}))

    def _owned(self, row: Row) -> Row:
        return {"call_id": self._call["id"], "tenant_id": self._call["tenant_id"], **row}


Reread = Callable[[str], Awaitable[list[Message]]]
"""Everything that a call's stream holds. Raises BusError when the bus is away."""


class Scribe:
    """Folds calls and writes their rows. `run` is its one task."""

    def __init__(self, store: Store, reread: Reread, capacity: int = CAPACITY) -> None:
        self._store = store
        self._reread = reread
        self._capacity = capacity
        self._calls: dict[str, CallRows] = {}
        self._dirty: dict[str, None] = {}  # calls with rows to write, in order
        self._let_go: set[str] = set()  # calls to be read again
        self._writing: set[str] = set()
        self._wrote = asyncio.Event()
        self.connected = True

    @property
    def waiting(self) -> int:
        """Rows that are not in the database yet."""
        return sum(self._calls[call_id].waiting for call_id in self._dirty)

    def note(self, message: Message) -> None:
        """Fold one message of a call's stream. Never waits."""
        call_id = message.event.call_id
        if call_id in self._let_go:
            return  # it will be read again, this message too
        rows = self._calls.setdefault(call_id, CallRows())
        try:
            rows.fold(message)
        except Exception:
            # The call's boundary: raised further it would end the service, which reads the event again when restarted.
            event = type(message.event).__name__
            log.exception("cannot write down %s %s", event, message.position, extra={"call_id": call_id})
        if rows.waiting:
            self._dirty[call_id] = None

    async def finish(self, call_id: str, wrap_up: Callable[[CallRows], str]) -> str:
        """Wait until all rows of an ended call are durable, the last of them saying what comes next; forget the
        call. `wrap_up` decides that once everything is known. Returns its word."""
        while True:
            while call_id in self._let_go:
                await self._next_write()
            rows = self._calls.setdefault(call_id, CallRows())
            word = wrap_up(rows)
            rows.close(word)
            self._dirty[call_id] = None
            while call_id in self._dirty or call_id in self._writing:
                await self._next_write()
            if call_id not in self._let_go:
                del self._calls[call_id]
                return word

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Write everything that waits, however long the database is away."""
        await self._read_again()
        while self._dirty:
            batch: list[tuple[str, Row]] = []
            while self._dirty and len(batch) < BATCH:
                call_id = next(iter(self._dirty))
                del self._dirty[call_id]
                self._writing.add(call_id)
                batch += self._calls[call_id].take()
            await self._write(batch)
            self._writing.clear()
        self._wrote.set()
        self._wrote = asyncio.Event()

    async def _next_write(self) -> None:
        await self._wrote.wait()

    async def _write(self, batch: list[tuple[str, Row]]) -> None:
        """Write `batch`. A database that answers and still refuses gets the rows one by one, so that one row that it
        cannot take does not hold up all others."""
        refused, pause_s = 0, 0.1
        while True:
            try:
                await self._store.write(batch)
            except StoreError as error:
                if self.connected:
                    log.warning("rows wait: %s", error)
                self.connected = False
                self._bound_memory()
                refused += await self._store.ping()
                if refused >= TRIES:
                    return await self._write_singly(batch)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 1.0)
            else:
                if not self.connected:
                    log.warning("database back")
                self.connected = True
                return None

    async def _write_singly(self, batch: list[tuple[str, Row]]) -> None:
        for table, row in batch:
            try:
                await self._store.write([(table, row)])
            except StoreError as error:
                call_id = row.get("call_id", row.get("id"))
                log.error("row of %s left out: %s", table, error, extra={"call_id": call_id})

    def _bound_memory(self) -> None:
        while self._dirty and self.waiting > self._capacity:
            call_id = max(self._dirty, key=lambda call_id: self._calls[call_id].waiting)
            log.warning("too many rows wait: reading the call again later", extra={"call_id": call_id})
            del self._dirty[call_id], self._calls[call_id]
            self._let_go.add(call_id)

    async def _read_again(self) -> None:
        """The database is there (the last batch was written): fetch what was let go, one call at a time."""
        for call_id in list(self._let_go)[:1]:
            try:
                messages = await self._reread(call_id)
            except OffhookError as error:
                log.warning("cannot read the call again yet: %s", error, extra={"call_id": call_id})
                return
            self._let_go.discard(call_id)
            for message in messages:
                self.note(message)


def _time(unix: float) -> datetime:
    return datetime.fromtimestamp(unix, UTC)


def _clean(value: Any) -> Any:
    """Postgres takes every character but NUL."""
    return value.replace("\x00", "") if isinstance(value, str) else value
