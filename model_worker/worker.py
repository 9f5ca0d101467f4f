"""The worker: claims calls from `work`, brings their audio to the engine and posts what the model says.

    claim     a lease on a call (calls/bus/leases.py), renewed three times in its life
    open      the model's Stream, with the call's story so far (recall.py); takeover.py where another worker began it
    hear      the call's Chunks, in order, once each, to the engine (incoming.py)
    post      what the model and the voice say, while the lease is ours (outlet.py, held.py)
    release   the lease, when the call has ended and all that was said of it is sent

One asyncio process. Inference runs in the engine's thread, synthesis in the speaker's; this loop only moves events.
A worker that cannot renew a lease stops speaking for the call, and one that learns that the lease is lost drops the
call at once. When a worker is killed its leases lapse, and another worker claims them, reads the call's story, hears
again the audio that is still on the bus, and goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from calls.audio import CHUNK_S
from calls.bus import FROM_START, Bus, Lease, Message
from calls.errors import BusError, OffhookError
from calls.events import (
    CALLS,
    PREPARE,
    CallAccepted,
    CallEnded,
    Event,
    Speech,
    audio_stream,
    call_stream,
    speech_stream,
)
from calls.log import for_call
from calls.model import State
from model_worker.engine import Engine
from model_worker.held import HeldCall, Losses
from model_worker.incoming import FULL_PAUSE_S, Incoming
from model_worker.outlet import Outlet
from model_worker.recall import recollect
from model_worker.speaker import Speaker
from model_worker.takeover import go_on

log = logging.getLogger(__name__)

BEAT_S = 1.0
AWAY_PAUSE_S = 0.2  # the bus is away: ask again


class ThreadDied(OffhookError):
    """A thread that every call of this worker needs is gone."""


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
        no_audio_s: float = 180.0,
        make_speaker: Callable[[Callable[[str, Speech], None]], Speaker | None] = lambda post: None,
    ) -> None:
        self.bus = bus
        self.engine = engine
        self.name = name
        self.capacity = capacity
        self.lapse_ms = lapse_ms
        self.no_audio_s = no_audio_s
        self.calls: dict[str, HeldCall] = {}
        self.losses = Losses()
        self._stopping = False
        self._prepared = asyncio.Event()  # the model knows which calls will come
        self._serving: set[asyncio.Task[None]] = set()
        self._outlet = Outlet(self._deliver)
        self._speaker = make_speaker(self._outlet.put)
        self._incoming = Incoming(bus.follower(name), self.calls, engine, self._speaker)

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
                    tasks.create_task(self._listen(), name="incoming"),
                    tasks.create_task(self._beat(), name="heartbeat"),
                    tasks.create_task(_wait_for(died), name="threads"),
                ]
                await stop.wait()
                self._stopping = True
                log.info("stopping with %d calls; their leases lapse for another worker", len(self.calls))
                for task in work:
                    task.cancel()
                for call in self.calls.values():
                    call.lose()
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

    async def _listen(self) -> None:
        self._incoming.prepare(await self._read(PREPARE))
        self._prepared.set()
        await self._incoming.run()

    # --- claim ------------------------------------------------------------------------------------------------------

    def room(self) -> int:
        """How many more calls this worker takes now. None while the model gets ready or the engine is overloaded, not
        even one that another worker has lost: that waits, for whoever has room first, rather than that all calls here
        become slow."""
        away = self._stopping or not self._prepared.is_set()
        full = away or self.engine.model.load() >= 1.0 or self.engine.overloaded()
        return 0 if full else max(0, self.capacity - len(self.calls))

    async def _claim(self, tasks: asyncio.TaskGroup) -> None:
        await self._prepared.wait()
        # Not `while True`: now and then the Redis client swallows a cancellation that meets the end of a blocking read.
        while not self._stopping:
            try:
                leases = await self.bus.leases.claim(self.name, self.room(), self.lapse_ms)
            except BusError as error:
                log.debug("no work: %s", error)
                await asyncio.sleep(AWAY_PAUSE_S)
                continue
            for lease in leases:
                held = self.calls.get(lease.assignment.call_id)
                if held is None:
                    self._hold(lease, tasks)
                elif held.lease.position == lease.position:
                    held.renewed()  # our own lease had lapsed while the bus was away, and we were first again
            if not self.room():
                await asyncio.sleep(FULL_PAUSE_S)

    def _hold(self, lease: Lease, tasks: asyncio.TaskGroup) -> None:
        call = HeldCall(lease, self.lapse_ms / 1000, self.bus.post, self.losses)
        self.calls[call.id] = call
        with for_call(call.id):
            task = tasks.create_task(self._serve(call), name=f"call {call.id}")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, call: HeldCall) -> None:
        """Hold one call from its claim to its end. Its Chunks and what is said of it pass in between."""
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
            if call.opening is None or call.opening.done():
                self._drop(call)
            else:
                # Held until its Stream has come and is closed: so it cannot be claimed and opened again meanwhile.
                call.lose()
                call.opening.add_done_callback(lambda _: self._drop(call))

    async def _renew(self, call: HeldCall) -> None:
        pause_s = self.lapse_ms / 3000
        while not call.lost:
            await asyncio.sleep(pause_s)
            try:
                ours = await self.bus.leases.renew(self.name, call.lease.position)
            except BusError:
                call.quiet_s = 0.0
                continue  # the bus is away: nobody else can claim the call either, and no audio comes
            if ours:
                call.renewed()
                call.quiet_s += pause_s  # not by the clock: while this process was stopped, audio may have come
                if call.quiet_s >= self.no_audio_s and not call.ended.is_set():
                    self._end_forgotten(call)
            else:
                log.warning("the lease is lost: dropping the call")
                call.lose()

    def _end_forgotten(self, call: HeldCall) -> None:
        """Telephony sends audio while a call lasts, also silence. It or the agent says when the call has ended; where
        that is lost, or nobody knows of the call any more, its worker is the last that can let it go."""
        reason = f"no audio came for {self.no_audio_s:.0f} s"
        log.warning("%s: ending the call", reason)
        duration_s = round(max(call.next_chunk.values(), default=0) * CHUNK_S, 3)
        ended = CallEnded(
            call_id=call.id, state=State.FAILED, reason=reason, ended_at=time.time(), duration_s=duration_s
        )
        call.post(ended)
        self.bus.post(CALLS, ended)
        call.ended.set()

    # --- open -------------------------------------------------------------------------------------------------------

    async def _open(self, call: HeldCall) -> bool:
        """Read the story so far, open the model's Stream and accept. False: there is nothing to serve."""
        story = await self._read(call_stream(call.id))
        model = self.engine.model
        known = recollect(story, await self._read(speech_stream(call.id)) if story else [], model.hears_all_again)
        if known.ended:
            await self.bus.leases.release(self.name, call.lease.position)
            return False
        takeover = known.accepted_before
        audio = await self._read(audio_stream(call.id)) if takeover else []
        past = known.past(audio)
        work = partial(self.engine.open, call.id, call.instruction, past, self._poster(call.id))
        context = contextvars.copy_context()  # for the log
        call.open(asyncio.get_running_loop().run_in_executor(None, context.run, work))
        assert call.opening is not None
        await asyncio.shield(call.opening)
        if call.lost:
            return False
        call.answered = set(known.answers)
        accepted = CallAccepted(
            call_id=call.id, worker=self.name, model=model.name, takeover=takeover, transcribes=model.transcribes
        )
        call.post(accepted)
        if takeover:
            call.next_chunk = {p.id: known.hear_from(p.id) for p in call.instruction.participants}
            came = audio[-1].position if audio else FROM_START
            audio += await self._read(audio_stream(call.id), came)  # what came while the model opened the call
            go_on(call, known, audio, self.name)
        if self._speaker:
            for say, skip in known.unsaid() if takeover else ():
                self._speaker.say(say, skip)
            self._speaker.prepare_phrases(call.instruction)
        self._incoming.follow(call, known.position)
        log.info("%s (%s)", "took over" if takeover else "accepted", call.instruction.mode)
        return True

    async def _read(self, stream: str, after: str = FROM_START) -> list[Message]:
        """What a stream holds now, however long the bus is away."""
        told = False
        while not self._stopping:
            try:
                return await self.bus.read(stream, after)
            except BusError as error:
                if not told:
                    log.warning("waiting for %s: %s", stream, error)
                    told = True
                await asyncio.sleep(AWAY_PAUSE_S)
        return []

    # --- post -------------------------------------------------------------------------------------------------------

    def _poster(self, call_id: str) -> Callable[[Event], None]:
        return lambda event: self._outlet.put(call_id, event)

    def _deliver(self, call_id: str, event: Event) -> None:
        """On the event loop: post what a model or the voice said, unless the call is not ours any more."""
        call = self.calls.get(call_id)
        if call is not None and not call.lost:
            call.post(event)

    # --- release ----------------------------------------------------------------------------------------------------

    async def _close(self, call: HeldCall) -> None:
        """The call has ended, or is lost. After a proper end: hear what is left, send it all, release the lease."""
        assert call.stream is not None
        closed = asyncio.Event()
        loop = asyncio.get_running_loop()
        if not call.lost:
            for message in await self._read(audio_stream(call.id), call.audio_position):
                self._incoming.hear(call, message)

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
                await asyncio.sleep(AWAY_PAUSE_S)
            else:
                log.info("released")
                return

    def _drop(self, call: HeldCall) -> None:
        self.calls.pop(call.id, None)
        if call.stream is not None and not call.leaving:
            self.engine.close(call.stream, lambda: None, at_once=True)  # it was lost, or failed after it was opened
        self._incoming.forget(call)
        if self._speaker:
            self._speaker.forget(call.id)

    # --------------------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        while not self._stopping:
            books = self.engine.books
            info: dict[str, str | int | float] = {
                "model": self.engine.model.name,
                "room": self.room(),
                "calls": len(self.calls),
                "load": round(self.engine.model.load(), 3),
                "step_ms_p99": round(books.quantile(0.99), 2),
                "overloaded": int(self.engine.overloaded()),
                "decided": books.decided,
                "missed": books.missed,
                "failed": books.failed,
                "given_up": books.given_up,
                "missing": self.losses.missing_chunks,
                "dropped": self.losses.dropped,
            }
            await self.bus.beat("worker", self.name, info)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._incoming.prepared.wait()
            self._incoming.prepared.clear()


async def _wait_for(future: asyncio.Future[None]) -> None:
    await future
