"""Going on with a call that another worker has left: say who goes on and what is lost for good, and close what was torn
and is not written to its end."""

from __future__ import annotations

from collections.abc import Sequence

from calls.audio import CHUNK_S
from calls.bus import Message
from calls.events import AudioChunk, Notice, ResponseClosed
from model_worker.held import HeldCall
from model_worker.recall import Recollection


def go_on(call: HeldCall, known: Recollection, audio: Sequence[Message], worker: str) -> None:
    """`known` is the call's story so far, `audio` what is still on the bus to be heard again."""
    chunks = [message.event for message in audio if isinstance(message.event, AudioChunk)]
    _say_takeover(call, known, chunks, worker)
    first: dict[str, int] = {}
    for chunk in chunks:
        first.setdefault(chunk.participant_id, chunk.index)
    for participant_id, index in first.items():
        hear_from = known.hear_from(participant_id)
        expected = max(known.decided.get(participant_id, -1) + 1, hear_from)
        call.next_chunk[participant_id] = max(index, hear_from)
        if index > expected:
            call.miss(participant_id, expected, index)
    going_on = call.stream.going_on if call.stream else frozenset()
    for response_id, text in known.torn_responses():
        if response_id not in going_on:
            call.post(ResponseClosed(call_id=call.id, response_id=response_id, text=text, cancelled=True))


def _say_takeover(call: HeldCall, known: Recollection, chunks: Sequence[AudioChunk], worker: str) -> None:
    """A supervisor should see that a worker was lost, and what of the call its successor heard again."""
    wanted = [chunk.index for chunk in chunks if chunk.index >= known.hear_from(chunk.participant_id)]
    again = f"heard again from {min(wanted) * CHUNK_S:.1f} s" if wanted else "nothing to hear again"
    at_s = (max(known.decided.values(), default=-1) + 1) * CHUNK_S
    text = f"model worker {worker} took the call over, {again}"
    call.post(Notice(call_id=call.id, kind="takeover", text=text, at_s=at_s))
