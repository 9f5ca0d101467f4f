"""One call while it is live. Start reading at `Session.tick`: it is the walk of a Frame through telephony.

Every 20 ms the ticker calls it. It reads a Frame from every leg and collects them into Chunks for the model, judges
whether the caller interrupts, writes a Frame to every leg (the answer being said, or the other party), and keeps both
sides for the recording. Media time is the number of ticks since the first leg joined. Clocks are read only for the
Unix times that some events carry.

What the other services say arrives in `receive`; what they must know is posted to `call:ID`,
`audio:ID` and, for the call's life cycle, `calls`. Legs
report by the callbacks that `join` sets. All of it on the event loop, none of it blocking.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from calls.audio import FRAME_SAMPLES, SAMPLE_RATE, SILENT_FRAME, Chunk, Frame, seconds
from calls.events import (
    CALLS,
    AudioChunk,
    BargeIn,
    CallAccepted,
    CallEnded,
    CallOffered,
    CallStarted,
    Dtmf,
    Event,
    HangUp,
    HoldChanged,
    Notice,
    RecordingSaved,
    Say,
    Speech,
    StopSaying,
    audio_stream,
    call_stream,
)
from calls.log import for_call
from calls.model import DEFAULT_TENANT, Happening, Mode, Participant, Role, State, next_state
from telephony.barge_in import Interruption, Verdict
from telephony.bridge import Leg, LegEvents, Offer
from telephony.framer import Concealer, Framer
from telephony.playout import Playout
from telephony.recorder import CHANNELS, Recorder, Recording
from telephony.ticker import Ticker
from telephony.voice_activity import SileroNet

log = logging.getLogger(__name__)

AGENT_COMES = 60 * SAMPLE_RATE  # an assist call whose human agent has not come by then is ended
FAREWELL = 15 * SAMPLE_RATE  # a hang-up waits so long at most for what is still to be said
ANSWERED_WITHIN_S = 90.0  # an admitted call that its bridge neither answers nor abandons is given up
HANG_UP_S = 2.0  # a leg that does not hang up in so long is left alone

Post = Callable[[str, Event], None]


@dataclass(slots=True)
class Track:
    """What one human participant says: a leg once it has joined, a Frame every tick in any case."""

    participant: Participant
    framer: Framer
    leg: Leg | None = None
    held: bool = False
    concealer: Concealer = field(default_factory=Concealer)
    heard: Frame = SILENT_FRAME  # this tick's

    def hear(self) -> Chunk | None:
        """Read this tick's Frame into `heard`; the Chunk that it completes, if it does."""
        read = self.leg.read() if self.leg else SILENT_FRAME
        if self.held:
            read = SILENT_FRAME  # music on hold is not for the model; nothing at all is no loss
        self.heard = self.concealer.fill(read)
        return self.framer.push(self.heard, lost=read is None)

    def say(self, frame: Frame) -> None:
        """Write this tick's Frame to the party."""
        if self.leg is not None:
            self.leg.write(SILENT_FRAME if self.held else frame)

    def hold(self, held: bool) -> None:
        self.held = held
        self.concealer = Concealer()  # what comes next is not the continuation of what was


@dataclass(frozen=True, slots=True)
class Farewell:
    """The agent service asked to hang up, once all is said."""

    reason: str
    latest: int  # in samples of the call's clock


@dataclass(frozen=True, slots=True)
class Parts:
    """What all calls of the process share."""

    post: Post
    ticker: Ticker
    recorder: Recorder
    net: SileroNet
    interrupt_after_ms: int
    instance: str = ""  # the name of this process


class Session:
    """One call, from the offer to CallEnded."""

    def __init__(self, call_id: str, offer: Offer, mode: Mode, parts: Parts) -> None:
        self.id = call_id
        self.mode = mode
        self.reference = offer.reference
        self.state = State.RINGING
        self.accepted = asyncio.Event()
        self._offer = offer
        self._parts = parts
        self._tracks = {role: self._track(role) for role in humans(offer.roles, mode)}
        self._playout = Playout(call_id)
        self._barge_in = Interruption(parts.net, parts.interrupt_after_ms)
        self._recording: Recording | None = None
        self._now = 0  # the call's clock: samples since the first leg joined
        self._farewell: Farewell | None = None
        self._reason = ""
        self._over = asyncio.Event()

    def _track(self, role: Role) -> Track:
        participant = Participant(role.value, role)
        return Track(participant, Framer(self.id, participant.id))

    @property
    def participants(self) -> tuple[Participant, ...]:
        people = tuple(track.participant for track in self._tracks.values())
        if self.mode is Mode.ANSWER:
            people += (Participant(Role.VOICE_AGENT.value, Role.VOICE_AGENT),)
        return people

    @property
    def _caller(self) -> Track:
        return self._tracks[Role.CALLER]

    @property
    def over(self) -> bool:
        return self._over.is_set()

    def wants(self, role: Role) -> bool:
        """This party belongs to the call and is not there yet."""
        return not self.over and role in self._tracks and self._tracks[role].leg is None

    # --- life: offered, joined, run to its end ----------------------------------------------------------------------

    def offer(self) -> None:
        """Tell everybody that somebody rings."""
        self._announce(
            CallOffered(
                call_id=self.id,
                tenant=DEFAULT_TENANT,
                mode=self.mode,
                bridge=self._offer.bridge,
                from_=self._offer.from_,
                to=self._offer.to,
                participants=self.participants,
                offered_at=time.time(),
                reference=self.reference,
                instance=self._parts.instance,
            )
        )

    def join(self, role: Role, leg: Leg, events: LegEvents) -> None:
        """A party's audio begins; the first one is second 0 of the call's clock. Raises ValueError if the call does
        not wait for it."""
        if not self.wants(role):
            raise ValueError(f"call {self.id} does not wait for its {role}")
        track = self._tracks[role]
        track.leg = leg
        events.dtmf = lambda digit: self._pressed(track, digit)
        events.held = lambda held: self._hold(track, held)
        events.closed = lambda reason, lost: self.end(Happening.LOST if lost else Happening.HUNG_UP, reason)
        if self.state is State.RINGING:
            self.state = next_state(self.state, Happening.ANSWERED, self.mode)
            started_at = time.time()
            self._recording = self._parts.recorder.open(self.id, started_at, self._recording_stopped)
            self._announce(CallStarted(call_id=self.id, started_at=started_at))
            self._parts.ticker.add(self)

    async def run(self) -> None:
        """From the offer to CallEnded. Cancelled, it still says how the call ended."""
        with for_call(self.id):
            unanswered = asyncio.get_running_loop().call_later(ANSWERED_WITHIN_S, self._unanswered)
            try:
                await self._over.wait()
            except asyncio.CancelledError:
                self.end(Happening.LOST, "the service stopped")
                raise
            finally:
                unanswered.cancel()
                await self._close()

    def end(self, happening: Happening, reason: str) -> None:
        """The call is over; `run` does the rest. Only the first reason counts."""
        if self.over:
            return
        self.state = next_state(self.state, happening, self.mode)
        self._reason = reason
        self._parts.ticker.drop(self)
        self._over.set()

    async def _close(self) -> None:
        """What is still owed to the bus, in order, and CallEnded as the last."""
        unplayed = self._caller.leg.unplayed() if self._caller.leg else 0
        self._post(*self._playout.stop_all(self._now, unplayed))
        self._perceived(track.framer.rest() for track in self._tracks.values())
        await self._hang_up_legs()
        if self._recording is not None:
            saved = await self._recording.close()
            self._post(
                RecordingSaved(
                    call_id=self.id,
                    path=saved.path,
                    duration_s=saved.duration_s,
                    channels=CHANNELS,
                    complete=saved.complete,
                )
            )
        log.info("%s after %.1f s: %s", self.state, seconds(self._now), self._reason)
        self._announce(
            CallEnded(
                call_id=self.id,
                state=self.state,
                reason=self._reason,
                ended_at=time.time(),
                duration_s=seconds(self._now),
            )
        )

    async def _hang_up_legs(self) -> None:
        async with asyncio.TaskGroup() as group:
            for track in self._tracks.values():
                if track.leg is not None:
                    group.create_task(self._hang_up(track.leg))

    async def _hang_up(self, leg: Leg) -> None:
        try:
            async with asyncio.timeout(HANG_UP_S):
                await leg.hang_up(self._reason)
        except TimeoutError:
            log.warning("%s did not hang up within %.0f s", leg.participant.id, HANG_UP_S)
        except Exception:  # the boundary of one transport: the call's last events must go out
            log.exception("%s: hanging up failed", leg.participant.id)

    # --- 20 ms of the call ------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Hear every party, judge whether the caller interrupts, speak to every party, keep both sides."""
        self._perceived([track.hear() for track in self._tracks.values()])
        interrupted = self._judge()
        said = self._speak(interrupted)
        if self._recording is not None:
            self._recording.write(self._caller.heard, said)
        self._now += FRAME_SAMPLES
        self._expire()

    def _perceived(self, chunks: Iterable[Chunk | None]) -> None:
        """Chunks that are full go to the model, of every party whether it has joined or not."""
        for chunk in chunks:
            if chunk is not None:
                event = AudioChunk(
                    call_id=self.id,
                    participant_id=chunk.participant_id,
                    index=chunk.index,
                    pcm=chunk.pcm,
                    lost=chunk.lost,
                    sent_at=time.time(),
                )
                self._parts.post(audio_stream(self.id), event)

    def _judge(self) -> bool:
        """The caller speaks over an answer: pause it at once, and find out whether it was meant. True: it was."""
        if self.state is not State.ANSWERING or self._caller.leg is None:
            return False
        answer_id = self._playout.current
        coming = not self._playout.idle
        verdict = self._barge_in.hear(self._caller.heard, answer_id is not None, coming, answer_id or "")
        match verdict:
            case Verdict.PAUSE if answer_id:
                self._playout.pause(self._flush(self._caller.leg))
                self._post(BargeIn(call_id=self.id, answer_id=answer_id, at_s=seconds(self._now)))
            case Verdict.RESUME:
                self._post(*self._playout.resume(self._now))
            case Verdict.INTERRUPT if answer_id:
                self._post(*self._playout.stop(answer_id, self._now, unplayed=0))
        return verdict is Verdict.INTERRUPT

    def _speak(self, interrupted: bool) -> Frame:
        """Write to every leg. Returns what the recording has on its right. `interrupted`: just now; the next answer,
        if one is here already, waits a Frame, so that whoever looks sees that this one has ended."""
        caller, agent = self._caller, self._tracks.get(Role.HUMAN_AGENT)
        match self.state:
            case State.ANSWERING if caller.leg and not caller.held:
                if interrupted:
                    frame, events = self._playout.silence(), list[Event]()
                else:
                    frame, events = self._playout.next_frame(self._now, caller.leg.unplayed())
                caller.say(frame)
                self._barge_in.said(frame)
                self._post(*events)
                return frame
            case State.ASSISTING if agent:
                caller.say(agent.heard)
                agent.say(caller.heard)
            case _:
                for track in self._tracks.values():
                    track.say(SILENT_FRAME)
        return agent.heard if agent else SILENT_FRAME

    def _expire(self) -> None:
        """What the call waits for only so long."""
        if self._farewell and (self._playout.idle or self._now >= self._farewell.latest):
            self.end(Happening.HUNG_UP, self._farewell.reason)
        elif self._now >= AGENT_COMES and self.wants(Role.HUMAN_AGENT) and self.state is State.ASSISTING:
            self.end(Happening.HUNG_UP, "no agent came")

    def _flush(self, leg: Leg) -> int:
        """Take back what the leg has not played, also out of the recording. Returns how many samples."""
        flushed = leg.flush()
        if self._recording is not None:
            self._recording.unsay(flushed)
        return flushed

    # --- what others report -----------------------------------------------------------------------------------------

    def receive(self, event: Event) -> None:
        """An event of this call from the bus. The same one may come twice."""
        match event:
            case CallAccepted():
                self.accepted.set()
            case Say():
                self._playout.expect(event.answer_id)
            case Speech():
                self._playout.push(event)
            case StopSaying():
                self._stop_saying(event.answer_id)
            case HangUp() if self.state is State.RINGING:
                self.end(Happening.HUNG_UP, event.reason)
            case HangUp() if self._farewell is None:
                self._farewell = Farewell(event.reason, latest=self._now + FAREWELL)

    def _stop_saying(self, answer_id: str) -> None:
        playing = answer_id == self._playout.current and not self._playout.paused
        flushed = self._flush(self._caller.leg) if playing and self._caller.leg else 0
        self._post(*self._playout.stop(answer_id, self._now, flushed))

    def crashed(self, error: Exception) -> None:
        """A tick raised `error` (already logged)."""
        self.end(Happening.LOST, f"internal error: {type(error).__name__}")

    def _pressed(self, track: Track, digit: str) -> None:
        if not self.over:
            participant_id = track.participant.id
            self._post(Dtmf(call_id=self.id, participant_id=participant_id, digit=digit, at_s=seconds(self._now)))

    def _hold(self, track: Track, held: bool) -> None:
        if not self.over and held != track.held:
            track.hold(held)
            participant_id = track.participant.id
            self._post(HoldChanged(call_id=self.id, participant_id=participant_id, held=held, at_s=seconds(self._now)))

    def _recording_stopped(self, reason: str) -> None:
        log.error("recording stopped: %s", reason, extra={"call_id": self.id})
        text = f"the recording stops here: {reason}"
        self._post(Notice(call_id=self.id, kind="recording", text=text, at_s=seconds(self._now)))

    def _unanswered(self) -> None:
        if self.state is State.RINGING:
            self.end(Happening.HUNG_UP, "it was never answered")

    # --- the bus ----------------------------------------------------------------------------------------------------

    def _post(self, *events: Event) -> None:
        """For whoever follows this call."""
        for event in events:
            self._parts.post(call_stream(self.id), event)

    def _announce(self, event: Event) -> None:
        """Its life cycle, for every service: on this call's stream and on `calls`."""
        self._post(event)
        self._parts.post(CALLS, event)


def humans(roles: Iterable[Role], mode: Mode) -> tuple[Role, ...]:
    """Whose audio the call has: the parties of the offer, and the human agent of an assist call, who comes later."""
    wanted = {Role.CALLER, *roles} | ({Role.HUMAN_AGENT} if mode is Mode.ASSIST else set())
    return tuple(role for role in Role if role in wanted)
