"""What comes from the bus: the held calls' audio, for the engine, and what the agent and telephony say about them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

from calls.bus import FROM_START, Follower, Message
from calls.events import (
    PREPARE,
    Answered,
    AnyEvent,
    AudioChunk,
    CallEnded,
    CancelResponse,
    Prepare,
    Say,
    StopSaying,
    audio_stream,
    call_stream,
)
from calls.log import for_call
from model_worker.engine import Engine
from model_worker.held import HeldCall
from model_worker.scheduler import deadline_of
from model_worker.speaker import Speaker

log = logging.getLogger(__name__)

FULL_PAUSE_S = 0.5


class Incoming:
    """Reads the streams of the calls that are followed; `run` is its task."""

    def __init__(
        self, follower: Follower, calls: Mapping[str, HeldCall], engine: Engine, speaker: Speaker | None
    ) -> None:
        self.prepared = asyncio.Event()  # set when the model was told what will come, so that its room is told anew
        self._follower = follower
        self._calls = calls
        self._engine = engine
        self._speaker = speaker

    def follow(self, call: HeldCall, position: str) -> None:
        """Read the call's events from after `position`, and all of its audio."""
        self._follower.add(call_stream(call.id), position)
        self._follower.add(audio_stream(call.id), FROM_START)

    def forget(self, call: HeldCall) -> None:
        self._follower.drop(call_stream(call.id))
        self._follower.drop(audio_stream(call.id))

    def prepare(self, told: Sequence[Message]) -> None:
        """Get ready for the calls that will come: what is `told` on `prepare` by now, and what will be."""
        for message in told:
            self._take(message)
        self._follower.add(PREPARE, told[-1].position if told else FROM_START)

    async def run(self) -> None:
        """Read until cancelled."""
        async for message in self._follower.messages():
            self._take(message)

    def _take(self, message: Message) -> None:
        with for_call(message.event.call_id):
            try:
                self._act(message)
            except Exception:
                # The call's boundary: what one message leads to in the model must not end the other calls. This
                # call goes on without it; a Chunk that was not heard is a hole, which the next one makes known.
                log.exception("failed at %s %s", type(message.event).__name__, message.position)

    def _act(self, message: Message) -> None:
        if isinstance(message.event, Prepare):
            # What the first call would otherwise wait for.
            self._engine.model.prepare(message.event.instruction)
            if self._speaker:
                self._speaker.prepare_phrases(message.event.instruction)
            self.prepared.set()
        kind, _, call_id = message.stream.partition(":")
        call = self._calls.get(call_id)
        if call is None or call.stream is None or call.lost:
            return
        if kind == "audio":
            self.hear(call, message)
        else:
            self._note(call, message.event)

    def hear(self, call: HeldCall, message: Message) -> None:
        """One Chunk: each index once and in order; a gap is counted and said."""
        event = message.event
        if not isinstance(event, AudioChunk) or call.stream is None:
            return
        call.quiet_s = 0.0
        expected = call.next_chunk.setdefault(event.participant_id, 0)
        if event.index >= expected:
            if not self._engine.hear(call.stream, event.chunk(), deadline_of(event.sent_at, time.time())):
                self._pause(call)
                return
            if event.index > expected:
                call.miss(event.participant_id, expected, event.index)
            call.next_chunk[event.participant_id] = event.index + 1
        call.audio_position = message.position

    def _pause(self, call: HeldCall) -> None:
        """The engine has no room for more of this call: read on from the same place when it has."""
        self._follower.drop(audio_stream(call.id))
        log.warning("the engine is %d chunks behind", self._engine.backlog(call.id))
        asyncio.get_running_loop().call_later(FULL_PAUSE_S, self._unpause, call)

    def _unpause(self, call: HeldCall) -> None:
        if self._calls.get(call.id) is call and not call.lost:
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
                self._engine.model.cancel(call.stream, response_id)
            case Answered(answer=answer) if answer.id not in call.answered:  # an event may come twice
                call.answered.add(answer.id)
                self._engine.model.hear_answer(call.stream, answer)
            case CallEnded():
                call.ended.set()
            case _:
                pass
