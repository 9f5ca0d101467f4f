"""Calls whose telephony process died without a last word: end them, so that nobody waits for them for ever.

A process that starts looks once through the stream of all calls. A call is an orphan when it has not ended and the
process that had it shows no heartbeat. What was recorded of it plays (recorder.py), and is reported as incomplete.
"""

from __future__ import annotations

import asyncio
import logging
import time
import wave
from pathlib import Path

from calls.bus import Bus, Message
from calls.errors import BusError
from calls.events import CALLS, CallEnded, CallOffered, CallStarted, RecordingSaved, call_stream
from calls.model import State
from telephony.recorder import CHANNELS, place

log = logging.getLogger(__name__)

SERVICE = "telephony"  # the name of our heartbeat
WAIT_S = 4.0  # longer than a heartbeat lives: the process before us is silent by then
AGAIN_S = 2.0
REASON = "the telephony service was lost"


async def bury(bus: Bus, recordings: Path, wait_s: float = WAIT_S) -> None:
    """Post the last events of every orphan. Tries again while the bus is away."""
    await asyncio.sleep(wait_s)
    while True:
        try:
            alive = set((await bus.services()).get(SERVICE, {}))
            lost = orphans(await bus.read(CALLS), alive)
            break
        except BusError as error:
            log.warning("looking for lost calls: %s", error)
            await asyncio.sleep(AGAIN_S)
    for offered, started in lost:
        _end(bus, recordings, offered, started)


def orphans(messages: list[Message], alive: set[str]) -> list[tuple[CallOffered, CallStarted | None]]:
    """The calls in `messages` (of the stream `calls`) that nobody has any more."""
    offered: dict[str, CallOffered] = {}
    started: dict[str, CallStarted] = {}
    for message in messages:
        match message.event:
            case CallOffered() as event if event.instance and event.instance not in alive:
                offered[event.call_id] = event
            case CallStarted() as event:
                started[event.call_id] = event
            case CallEnded() as event:
                offered.pop(event.call_id, None)
    return [(event, started.get(call_id)) for call_id, event in offered.items()]


def _end(bus: Bus, recordings: Path, offered: CallOffered, started: CallStarted | None) -> None:
    call_id, duration_s = offered.call_id, 0.0
    if started is not None:
        path = place(call_id, started.started_at)
        try:
            with wave.open(str(recordings / path)) as file:
                duration_s = file.getnframes() / file.getframerate()
        except (OSError, EOFError, wave.Error):
            log.info("no recording of this call", extra={"call_id": call_id})
        else:
            saved = RecordingSaved(call_id=call_id, path=path, duration_s=duration_s, channels=CHANNELS, complete=False)
            bus.post(call_stream(call_id), saved)
    ended = CallEnded(call_id=call_id, state=State.FAILED, reason=REASON, ended_at=time.time(), duration_s=duration_s)
    for stream in (call_stream(call_id), CALLS):
        bus.post(stream, ended)
    log.warning("ended a call that %s left", offered.instance, extra={"call_id": call_id})
