"""Every message on the bus, and their one codec.

Events are frozen msgspec Structs. On the bus they are MessagePack with a version byte in front; to browsers the same
types go out as JSON (`to_json`). A field may be added with a default; anything else needs a new VERSION.

Streams (names made by the functions below):
  calls            life cycle of every call: CallOffered, CallStarted, CallEnded. The agent service and the
                   console follow it.
  work             Assignments that model workers claim with a lease (calls/bus/leases.py).
  prepare          Instructions to get ready for, before the first call comes.
  call:ID          everything that happens on one call, in order: the call's story while it is live.
  audio:ID         the Chunks of the call, about the last 60 s of each participant.
  speech:ID        synthesised speech on its way to the caller.
"""

from __future__ import annotations

from typing import Any

import msgspec

from calls.audio import Chunk
from calls.errors import EventError
from calls.model import Answer, Choice, Hint, Instruction, Mode, Participant, State, Utterance

VERSION = 1

CALLS = "calls"
WORK = "work"
PREPARE = "prepare"


def call_stream(call_id: str) -> str:
    return f"call:{call_id}"


def audio_stream(call_id: str) -> str:
    return f"audio:{call_id}"


def speech_stream(call_id: str) -> str:
    return f"speech:{call_id}"


class Event(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """`call_id` names the call; subclasses add the rest. Times ending in `_s` are on the call's clock."""

    call_id: str


# --- life cycle (telephony -> everyone; on `calls` and on `call:ID`) -------------------------------------------


class CallOffered(Event, frozen=True, tag=True, kw_only=True):
    """Somebody rings. Answered only after a worker accepted the call."""

    tenant: str
    mode: Mode
    bridge: str  # "sip", "webrtc" or "mediastreams"
    from_: str
    to: str
    participants: tuple[Participant, ...]
    offered_at: float  # Unix time
    reference: str = ""  # what the other leg of an assist call names to join this one
    instance: str = ""  # the telephony process that has the call, as in its heartbeat


class CallStarted(Event, frozen=True, tag=True, kw_only=True):
    """The call was answered: second 0 of its clock."""

    started_at: float  # Unix time


class CallEnded(Event, frozen=True, tag=True, kw_only=True):
    """The last event of a call. `state` is ENDED, REFUSED or FAILED; `reason` is for people."""

    state: State
    reason: str
    ended_at: float  # Unix time
    duration_s: float


# --- admission and leases (agent -> workers -> telephony) -------------------------------------------------------


class Assignment(Event, frozen=True, tag=True, kw_only=True):
    """On `work`: a call that wants a worker. Claimed with a lease; pending until the call has ended."""

    instruction: Instruction


class Prepare(Event, frozen=True, tag=True, kw_only=True):
    """On `prepare`: calls with such an Instruction will come. A worker indexes the cards and has the fixed phrases
    spoken now, so that the first caller does not wait for it. `call_id` is empty."""

    instruction: Instruction


class CallAccepted(Event, frozen=True, tag=True, kw_only=True):
    """A worker holds the lease and has opened a Stream. `takeover`: it continues another worker's call. `transcribes`:
    its model tells what it hears in words (Partial, Uttered), whatever the mode of the call; one that does not gives
    responses without `heard`."""

    worker: str
    model: str
    takeover: bool = False
    transcribes: bool = True


# --- media facts (telephony) ------------------------------------------------------------------------------------


class AudioChunk(Event, frozen=True, tag=True, kw_only=True):
    """On `audio:ID`. `sent_at` (Unix time) lets the worker tell whether it is late."""

    participant_id: str
    index: int
    pcm: bytes
    lost: int = 0
    sent_at: float = 0.0

    def chunk(self) -> Chunk:
        return Chunk(self.call_id, self.participant_id, self.index, self.pcm, self.lost)


class Dtmf(Event, frozen=True, tag=True, kw_only=True):
    """One key pressed (RFC 4733, SIP INFO or the transport's own message)."""

    participant_id: str
    digit: str
    at_s: float


class HoldChanged(Event, frozen=True, tag=True, kw_only=True):
    participant_id: str
    held: bool
    at_s: float


class BargeIn(Event, frozen=True, tag=True, kw_only=True):
    """The 20 ms path heard the caller over an answer and paused playout. Followed by exactly one of
    PlayoutResumed (a cough, "mhm", noise) or PlayoutEnded(interrupted=True)."""

    answer_id: str
    at_s: float


class PlayoutStarted(Event, frozen=True, tag=True, kw_only=True):
    """The first sample of an answer is on the wire."""

    answer_id: str
    at_s: float


class PlayoutResumed(Event, frozen=True, tag=True, kw_only=True):
    answer_id: str
    at_s: float


class PlayoutEnded(Event, frozen=True, tag=True, kw_only=True):
    """The answer is over: all of it was played, or it was interrupted. `heard_text` ends where the audio ended."""

    answer_id: str
    at_s: float
    heard_text: str
    interrupted: bool


class RecordingSaved(Event, frozen=True, tag=True, kw_only=True):
    """`path` is relative to the recordings folder; caller left, agent right. `complete` is False when the disk
    was full and the recording stops early."""

    path: str
    duration_s: float
    channels: int
    complete: bool = True


class Notice(Event, frozen=True, tag=True, kw_only=True):
    """Something a reviewer must know: a hole in the transcript, a recording that stopped, a new model worker, a
    knowledge base that cannot be searched, an alarm on the caller's side.

    `kind`: "hole", "recording", "takeover", "knowledge", "model" (which failed on this call, and hears it no longer),
    "sound", "sounds" (they are not listened for); "message" is one that the caller left.
    """

    kind: str
    text: str
    at_s: float


# --- what the model perceives, decides and says (worker) ----------------------------------------------------------


class Decided(Event, frozen=True, tag=True, kw_only=True):
    """One Decision, for every Chunk of every participant, in order. `stopped`: see calls.model.Decision."""

    participant_id: str
    chunk: int
    choice: Choice
    score: float
    late: bool = False
    compute_ms: float = 0.0
    stopped: bool = False


class Partial(Event, frozen=True, tag=True, kw_only=True):
    """The running transcript of an utterance that is still being spoken; replaces the one before it."""

    utterance_id: str
    participant_id: str
    start_s: float
    end_s: float
    text: str
    confidence: float = 1.0  # 0..1, the recogniser's own


class Uttered(Event, frozen=True, tag=True, kw_only=True):
    """A finished utterance; the same id again with a higher `revision` replaces it."""

    utterance: Utterance


class ResponseOpened(Event, frozen=True, tag=True, kw_only=True):
    """The model chose to assist or to answer at `chunk`. Text follows as ResponseDelta; policy decides its fate.

    `heard` is the text it responds to and `confidence` the recogniser's (0..1); `trigger_s` is the end of those
    words; `sources` are the Card sources it stands on (empty: it knows nothing about this). A model that writes no
    transcript says so by an empty `heard`: then `trigger_s` is the end of the Chunk, and it needs no sources.
    """

    response_id: str
    choice: Choice
    participant_id: str
    chunk: int
    score: float
    trigger_s: float
    heard: str
    confidence: float
    sources: tuple[str, ...] = ()
    title: str = ""  # of the hint
    emotion: str = "normal"


class ResponseDelta(Event, frozen=True, tag=True, kw_only=True):
    """The next piece of the response's text; `seq` counts from 0."""

    response_id: str
    seq: int
    text: str


class ResponseClosed(Event, frozen=True, tag=True, kw_only=True):
    """The model has finished, or was told to stop."""

    response_id: str
    text: str  # the whole
    cancelled: bool = False


# --- what the agent does about it -----------------------------------------------------------------------------------


class Say(Event, frozen=True, tag=True, kw_only=True):
    """One clause to be spoken. Clauses of an answer come in order of `seq`; `last` closes the answer (its text may
    be empty). `prompted_s` is the end of the caller's speech that this answers (None: unprompted)."""

    answer_id: str
    seq: int
    text: str
    last: bool = False
    style: str = "normal"
    prompted_s: float | None = None


class StopSaying(Event, frozen=True, tag=True, kw_only=True):
    """Drop this answer wherever it is: model, voice, playout."""

    answer_id: str
    reason: str


class CancelResponse(Event, frozen=True, tag=True, kw_only=True):
    """Policy does not want this response: stop generating it."""

    response_id: str
    reason: str


class Speech(Event, frozen=True, tag=True, kw_only=True):
    """On `speech:ID`: audio of one clause (16 kHz PCM), possibly in several pieces; `text` comes with the first."""

    answer_id: str
    seq: int
    piece: int
    pcm: bytes
    text: str = ""
    last: bool = False  # the last piece of the answer


class HintShown(Event, frozen=True, tag=True, kw_only=True):
    hint: Hint


class HintJudged(Event, frozen=True, tag=True, kw_only=True):
    """The human agent's verdict: "accepted" or "dismissed" (console -> agent)."""

    hint_id: str
    verdict: str


class Answered(Event, frozen=True, tag=True, kw_only=True):
    """An answer as it was really heard: what goes into the transcript and back to the model."""

    answer: Answer


class HangUp(Event, frozen=True, tag=True, kw_only=True):
    """The agent asks telephony to end the call."""

    reason: str


AnyEvent = (
    CallOffered | CallStarted | CallEnded | Assignment | Prepare | CallAccepted | AudioChunk | Dtmf | HoldChanged
    | BargeIn | PlayoutStarted | PlayoutResumed | PlayoutEnded | RecordingSaved | Notice | Decided | Partial | Uttered
    | ResponseOpened | ResponseDelta | ResponseClosed | Say | StopSaying | CancelResponse | Speech | HintShown
    | HintJudged | Answered | HangUp
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyEvent] = msgspec.msgpack.Decoder(AnyEvent)
_json = msgspec.json.Encoder()


def encode(event: Event) -> bytes:
    """The event as bytes: one version byte, then MessagePack."""
    return bytes((VERSION,)) + _encoder.encode(event)


def decode(data: bytes) -> AnyEvent:
    """The event in `data`. Raises EventError on another version or malformed bytes."""
    if not data or data[0] != VERSION:
        raise EventError(f"event of version {data[0] if data else 'none'}; this build reads version {VERSION}")
    try:
        return _decoder.decode(memoryview(data)[1:])
    except msgspec.MsgspecError as error:
        raise EventError(f"malformed event: {error}") from error


def to_json(event: Event, position: str = "") -> bytes:
    """The event for a browser: {"type": "...", ..., "position": "..."}."""
    plain: dict[str, Any] = msgspec.to_builtins(event)
    plain["position"] = position
    return _json.encode(plain)
