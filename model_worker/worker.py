"""The worker: claims calls from `work`, brings their audio to the engine and posts what the model says.

One asyncio process. Inference runs in the engine's thread, synthesis in the speaker's; this loop only moves events.
A call is held by a lease that is renewed three times in its life; a worker that cannot renew stops speaking for the
call, and one that learns that the lease is lost drops the call at once. When a worker is killed its leases lapse, and
another worker claims them, reads the call's story, hears again the audio that is still on the bus, and goes on.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from calls.audio import CHUNK_S
from calls.bus import Bus, Lease, Message
from calls.errors import BusError, OffhookError
from calls.events import (
    PREPARE,
    Answered,
    AnyEvent,
    AudioChunk,
    CallAccepted,
    CallEnded,
    CancelResponse,
    Event,
    Notice,
    Prepare,
    ResponseClosed,
    Say,
    Speech,
    StopSaying,
    audio_stream,
    call_stream,
    speech_stream,
)
from calls.log import for_call
from calls.model import Instruction
from model_worker.engine import Engine
from model_worker.recall import Recollection, recollect
from model_worker.scheduler import deadline_of
from model_worker.speaker import Speaker
from model_worker.stream import Stream

log = logging.getLogger(__name__)

BEAT_S = 1.0
FULL_PAUSE_S = 0.5
UNCERTAIN_EVENTS = 5_000  # kept while we do not know whether the call is still ours
PHRASES = "phrases"  # Instruction.options: fixed phrases, one a line, to be synthesised before they are needed


class ThreadDied(OffhookError):
    """A thread that every call of this worker needs is gone."""


@dataclass(slots=True)
class HeldCall:
    """A call whose lease this worker holds."""

    lease: Lease
    renewed_at: float  # monotonic, of the last renewal that is known to have worked
    stream: Stream | None = None
    audio_position: str = "0-0"
    next_chunk: dict[str, int] = field(default_factory=dict)  # participant -> the index that must come next
    answered: set[str] = field(default_factory=set)
    uncertain: deque[tuple[str, Event]] = field(default_factory=deque)
    dropped: int = 0  # of those, the oldest: there were more than UNCERTAIN_EVENTS
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False
    leaving: bool = False  # its Stream was handed back to the engine, to be closed

    @property
    def id(self) -> str:
        return self.lease.assignment.call_id


class Outlet:
    """Brings events from any thread to the event loop, in order, with one wake-up for all that wait."""

    def __init__(self, deliver: Callable[[str, Event], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._deliver = deliver
        self._waiting: deque[tuple[str, Event]] = deque()
        self._lock = threading.Lock()
        self._scheduled = False

    def put(self, call_id: str, event: Event) -> None:
        with self._lock:
            self._waiting.append((call_id, event))
            if self._scheduled or self._loop.is_closed():
                return
            self._scheduled = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
            self._scheduled = False
        for call_id, event in waiting:
            self._deliver(call_id, event)


class Worker:
    """Serves up to `capacity` calls with one engine. `run` ends when `stop` is set; its leases are left to lapse.

    It raises ThreadDied (in a group) when the engine's or the speaker's thread has ended: nothing would be heard or
    said any more while heartbeats and leases go on. The process must then end too, and its calls go to another.
    """

    def __init__(
        self,
        bus: Bus,
        engine: Engine,
        name: str,
        *,
        capacity: int,
        lapse_ms: int,
        make_speaker: Callable[[Callable[[str, Speech], None]], Speaker | None] = lambda post: None,
    ) -> None:
        self.bus = bus
        self.engine = engine
        self.name = name
        self.capacity = capacity
        self.lapse_ms = lapse_ms
        self.calls: dict[str, HeldCall] = {}
        self.missing_chunks = 0
        self.dropped = 0  # events that waited for a lease to be renewed, and were too many
        self._stopping = False
        self._serving: set[asyncio.Task[None]] = set()
        self._outlet = Outlet(self._deliver)
        self._follower = bus.follower(name)
        self._speaker = make_speaker(self._outlet.put)

    async def run(self, stop: asyncio.Event) -> None:
        """Claim and serve calls until `stop` is set. Returns within about a second; what was said is sent first."""
        died = asyncio.get_running_loop().create_future()
        self._start("engine", self.engine.run, died)
        if self._speaker:
            self._start("speaker", self._speaker.run, died)
        try:
            async with asyncio.TaskGroup() as tasks:
                work = [
                    tasks.create_task(self._claim(tasks), name="claim"),
                    tasks.create_task(self._follow(), name="follow"),
                    tasks.create_task(self._beat(), name="heartbeat"),
                    tasks.create_task(_wait_for(died), name="threads"),
                ]
                await stop.wait()
                self._stopping = True
                log.info("stopping with %d calls; their leases lapse for another worker", len(self.calls))
                for task in work:
                    task.cancel()
                for call in self.calls.values():
                    call.lost = True
                    call.ended.set()
                for task in self._serving:
                    task.cancel()
        finally:
            self._stopping = True
            self.engine.stop()
            if self._speaker:
                self._speaker.close()
            await self.bus.outbox.flush(1.0)

    def _start(self, name: str, work: Callable[[], None], died: asyncio.Future[None]) -> None:
        """Run `work` in a thread; `died` hears of it if that ends before the worker does."""
        loop = asyncio.get_running_loop()

        def tell() -> None:
            if not died.done():
                died.set_exception(ThreadDied(f"the {name} thread has ended"))

        def run() -> None:
            try:
                work()
            except Exception:
                log.exception("the %s thread failed", name)  # the process boundary: it ends for this
            if not self._stopping and not loop.is_closed():
                loop.call_soon_threadsafe(tell)

        threading.Thread(target=run, name=name, daemon=True).start()

    # --- claiming ---------------------------------------------------------------------------------------------

    def room(self) -> int:
        """How many more calls this worker takes now."""
        full = self._stopping or self.engine.model.load() >= 1.0
        return 0 if full else max(0, self.capacity - len(self.calls))

    async def _claim(self, tasks: asyncio.TaskGroup) -> None:
        # Not `while True`: now and then the Redis client swallows a cancellation that meets the end of a blocking read.
        while not self._stopping:
            try:
                leases = await self.bus.leases.claim(self.name, self.room(), self.lapse_ms)
            except BusError as error:
                log.debug("no work: %s", error)
                await asyncio.sleep(0.2)
                continue
            for lease in leases:
                held = self.calls.get(lease.assignment.call_id)
                if held is None:
                    call = HeldCall(lease, time.monotonic())
                    self.calls[call.id] = call
                    with for_call(call.id):
                        task = tasks.create_task(self._serve(call), name=f"call {call.id}")
                    self._serving.add(task)
                    task.add_done_callback(self._serving.discard)
                elif held.lease.position == lease.position:
                    self._renewed(held)  # our own lease had lapsed while the bus was away, and we were first again
            if not self.room():
                await asyncio.sleep(FULL_PAUSE_S)

    async def _serve(self, call: HeldCall) -> None:
        """Hold one call from its claim to its end."""
        try:
            async with asyncio.TaskGroup() as tasks:
                renewing = tasks.create_task(self._renew(call))
                if await self._open(call):
                    await call.ended.wait()
                    await self._close(call)
                renewing.cancel()
        except* Exception as group:
            # The call's boundary: its lease lapses, and another worker (or this one, afresh) takes it over.
            log.error("gave the call up", exc_info=group)
        finally:
            self._drop(call)

    async def _renew(self, call: HeldCall) -> None:
        while not call.lost:
            await asyncio.sleep(self.lapse_ms / 3000)
            try:
                ours = await self.bus.leases.renew(self.name, call.lease.position)
            except BusError:
                continue  # the bus is away: nobody else can claim the call either
            if ours:
                self._renewed(call)
            else:
                log.warning("the lease is lost: dropping the call")
                call.lost = True
                call.ended.set()
                return

    def _renewed(self, call: HeldCall) -> None:
        call.renewed_at = time.monotonic()
        while call.uncertain:
            self.bus.post(*call.uncertain.popleft())
        if call.dropped:
            text = f"{call.dropped} events of the model are lost: for too long no lease of the call could be renewed"
            log.error("[%s] %s", call.id, text)
            at_s = max(call.next_chunk.values(), default=0) * CHUNK_S
            self.bus.post(call_stream(call.id), Notice(call_id=call.id, kind="hole", text=text, at_s=at_s))
            call.dropped = 0

    # --- one call -----------------------------------------------------------------------------------------------

    async def _open(self, call: HeldCall) -> bool:
        """Read the story so far, open the model's Stream and accept. False: there is nothing to serve."""
        story = await self._read(call_stream(call.id))
        known = recollect(story, await self._read(speech_stream(call.id)) if story else [])
        if known.ended:
            await self.bus.leases.release(self.name, call.lease.position)
            return False
        instruction = call.lease.assignment.instruction
        post = self._poster(call.id)
        call.stream = await asyncio.to_thread(self.engine.open, call.id, instruction, known.past(), post)
        if call.lost:
            return False
        takeover = known.accepted_before
        call.answered = set(known.answers)
        call.next_chunk = {p.id: known.hear_from(p.id) for p in instruction.participants} if takeover else {}
        accepted = CallAccepted(call_id=call.id, worker=self.name, model=self.engine.model.name, takeover=takeover)
        self._post(call, call_stream(call.id), accepted)
        if takeover:
            await self._resume(call, known)
        self._prepare_phrases(instruction)
        self._follower.add(call_stream(call.id), known.position)
        self._follower.add(audio_stream(call.id))
        log.info("%s (%s)", "took over" if takeover else "accepted", instruction.mode)
        return True

    async def _resume(self, call: HeldCall, known: Recollection) -> None:
        """Say who goes on and what is lost for good, close what was torn, speak what was not spoken."""
        audio = await self._read(audio_stream(call.id))
        first: dict[str, int] = {}
        for message in audio:
            if isinstance(event := message.event, AudioChunk):
                first.setdefault(event.participant_id, event.index)
        self._say_takeover(call, known, audio)
        for participant_id, index in first.items():
            expected = max(known.decided.get(participant_id, -1) + 1, known.hear_from(participant_id))
            call.next_chunk[participant_id] = max(index, known.hear_from(participant_id))
            if index > expected:
                self._hole(call, participant_id, expected, index)
        for response_id, text in known.torn_responses():
            closed = ResponseClosed(call_id=call.id, response_id=response_id, text=text, cancelled=True)
            self._post(call, call_stream(call.id), closed)
        if self._speaker:
            for say, skip in known.unsaid():
                self._speaker.say(say, skip)

    def _say_takeover(self, call: HeldCall, known: Recollection, audio: list[Message]) -> None:
        """A supervisor should see that a worker was lost, and what of the call its successor heard again."""
        chunks = [m.event for m in audio if isinstance(m.event, AudioChunk)]
        wanted = [c.index for c in chunks if c.index >= known.hear_from(c.participant_id)]
        again = f"heard again from {min(wanted) * CHUNK_S:.1f} s" if wanted else "nothing to hear again"
        at_s = (max(known.decided.values(), default=-1) + 1) * CHUNK_S
        text = f"model worker {self.name} took the call over, {again}"
        notice = Notice(call_id=call.id, kind="takeover", text=text, at_s=at_s)
        self._post(call, call_stream(call.id), notice)

    async def _close(self, call: HeldCall) -> None:
        """The call has ended, or is lost. After a proper end: hear what is left, send it all, release the lease."""
        assert call.stream is not None
        closed = asyncio.Event()
        loop = asyncio.get_running_loop()
        if not call.lost:
            for message in await self._read(audio_stream(call.id), call.audio_position):
                self._hear(call, message.position, message.event)

        def tell() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(closed.set)

        call.leaving = True
        self.engine.close(call.stream, tell, at_once=call.lost)
        if call.lost:
            return
        await closed.wait()
        await self.bus.outbox.flush()
        while True:
            try:
                await self.bus.leases.release(self.name, call.lease.position)
            except BusError:
                await asyncio.sleep(0.2)
            else:
                log.info("released")
                return

    async def _read(self, stream: str, after: str = "0-0") -> list[Message]:
        """What a stream holds now, however long the bus is away."""
        while not self._stopping:
            try:
                return await self.bus.read(stream, after)
            except BusError:
                await asyncio.sleep(0.2)
        return []

    def _drop(self, call: HeldCall) -> None:
        self.calls.pop(call.id, None)
        if call.stream is not None and not call.leaving:
            self.engine.close(call.stream, lambda: None, at_once=True)  # it was lost, or failed after it was opened
        self._follower.drop(call_stream(call.id))
        self._follower.drop(audio_stream(call.id))
        if self._speaker:
            self._speaker.forget(call.id)

    def _prepare(self, instruction: Instruction) -> None:
        """What the first call would otherwise wait for."""
        self.engine.model.prepare(instruction)
        self._prepare_phrases(instruction)

    def _prepare_phrases(self, instruction: Instruction) -> None:
        phrases = instruction.options.get(PHRASES, "")
        if self._speaker and phrases:
            self._speaker.prepare(phrases.splitlines(), keep=True)

    # --- what comes from the bus ----------------------------------------------------------------------------------

    async def _follow(self) -> None:
        self._follower.add(PREPARE)
        async for message in self._follower.messages():
            try:
                self._take(message)
            except Exception:
                # The call's boundary: what one message leads to in the model must not end the other calls. This call
                # goes on without it; a Chunk that was not heard is a hole, which the next one makes known.
                event = type(message.event).__name__
                log.exception("[%s] failed at %s %s", message.event.call_id, event, message.position)

    def _take(self, message: Message) -> None:
        if isinstance(message.event, Prepare):
            self._prepare(message.event.instruction)
        kind, _, call_id = message.stream.partition(":")
        call = self.calls.get(call_id)
        if call is None or call.stream is None or call.lost:
            return
        if kind == "audio":
            self._hear(call, message.position, message.event)
        else:
            self._note(call, message.event)

    def _hear(self, call: HeldCall, position: str, event: AnyEvent) -> None:
        """One Chunk: each index once and in order; a gap is counted and said."""
        if not isinstance(event, AudioChunk) or call.stream is None:
            return
        expected = call.next_chunk.setdefault(event.participant_id, 0)
        if event.index >= expected:
            if not self.engine.hear(call.stream, event.chunk(), deadline_of(event.sent_at, time.time())):
                self._pause(call)
                return
            if event.index > expected:
                self._hole(call, event.participant_id, expected, event.index)
            call.next_chunk[event.participant_id] = event.index + 1
        call.audio_position = position

    def _pause(self, call: HeldCall) -> None:
        """The engine has no room for more of this call: read on from the same place when it has."""
        self._follower.drop(audio_stream(call.id))
        log.warning("[%s] the engine is %d chunks behind", call.id, self.engine.backlog(call.id))
        asyncio.get_running_loop().call_later(FULL_PAUSE_S, self._unpause, call)

    def _unpause(self, call: HeldCall) -> None:
        if self.calls.get(call.id) is call and not call.lost:
            self._follower.add(audio_stream(call.id), call.audio_position)

    def _note(self, call: HeldCall, event: AnyEvent) -> None:
        """What the agent and telephony say about a call."""
        assert call.stream is not None
        match event:
            case Say() if self._speaker:
                self._speaker.say(event)
            case StopSaying(answer_id=answer_id) if self._speaker:
                self._speaker.stop(call.id, answer_id)
            case CancelResponse(response_id=response_id):
                self.engine.model.cancel(call.stream, response_id)
            case Answered(answer=answer) if answer.id not in call.answered:
                call.answered.add(answer.id)
                self.engine.model.hear_answer(call.stream, answer)
            case CallEnded():
                call.ended.set()
            case _:
                pass

    # --- what goes to the bus -------------------------------------------------------------------------------------

    def _poster(self, call_id: str) -> Callable[[Event], None]:
        return lambda event: self._outlet.put(call_id, event)

    def _deliver(self, call_id: str, event: Event) -> None:
        """On the event loop: post what a model or the voice said, unless the call is not ours any more."""
        call = self.calls.get(call_id)
        if call is not None and not call.lost:
            self._post(call, speech_stream(call_id) if isinstance(event, Speech) else call_stream(call_id), event)

    def _post(self, call: HeldCall, stream: str, event: Event) -> None:
        """Post now, or when the lease is known to be ours still: a worker that was frozen must not speak."""
        if time.monotonic() - call.renewed_at > self.lapse_ms / 1000 or call.uncertain:
            call.uncertain.append((stream, event))
            if len(call.uncertain) > UNCERTAIN_EVENTS:
                call.uncertain.popleft()
                call.dropped += 1
                self.dropped += 1
        else:
            self.bus.post(stream, event)

    def _hole(self, call: HeldCall, participant_id: str, expected: int, found: int) -> None:
        self.missing_chunks += found - expected
        start_s, end_s = expected * CHUNK_S, found * CHUNK_S
        text = f"no audio of {participant_id} from {start_s:.1f} s to {end_s:.1f} s: not in the transcript"
        log.warning("[%s] %s", call.id, text)
        notice = Notice(call_id=call.id, kind="hole", text=text, at_s=start_s)
        self._post(call, call_stream(call.id), notice)

    async def _beat(self) -> None:
        while True:
            books = self.engine.books
            info: dict[str, str | int | float] = {
                "model": self.engine.model.name,
                "room": self.room(),
                "calls": len(self.calls),
                "load": round(self.engine.model.load(), 3),
                "step_ms_p99": round(books.quantile(0.99), 2),
                "decided": books.decided,
                "missed": books.missed,
                "missing": self.missing_chunks,
                "dropped": self.dropped,
            }
            await self.bus.beat("worker", self.name, info)
            await asyncio.sleep(BEAT_S)


async def _wait_for(future: asyncio.Future[None]) -> None:
    await future
