"""The words of the house as types: the call's states, Participant, Utterance, Decision, Hint, Answer, Instruction.

Plain frozen dataclasses: they travel inside events (calls/events.py) and are rows in the database (calls/store.py).
All times are seconds on the call's own clock (0 = the call was answered) unless the name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from calls.errors import IllegalTransition

DEFAULT_TENANT = "default"


class Mode(StrEnum):
    """What the service is for on this call."""

    ANSWER = "answer"  # a voice agent talks to the caller
    ASSIST = "assist"  # a human agent talks to the caller, the service shows hints
    TRANSCRIBE = "transcribe"  # the service only writes


class Role(StrEnum):
    CALLER = "caller"
    VOICE_AGENT = "voice_agent"
    HUMAN_AGENT = "human_agent"
    SUPERVISOR = "supervisor"


class Choice(StrEnum):
    """What the model chose at one Chunk."""

    SILENT = "silent"
    TRANSCRIBE = "transcribe"
    ASSIST = "assist"
    ANSWER = "answer"


class State(StrEnum):
    """Where a call is between ring and review. HANDING_OVER is the place of a later feature."""

    RINGING = "ringing"
    ANSWERING = "answering"
    ASSISTING = "assisting"
    TRANSCRIBING = "transcribing"
    HANDING_OVER = "handing_over"
    ENDED = "ended"  # hung up by either side after it was answered
    REFUSED = "refused"  # never answered: no room, no common codec, not allowed
    FAILED = "failed"  # was answered, then lost: RTP time-out, a crashed bridge


class Happening(StrEnum):
    """What can happen to a call's state."""

    ANSWERED = "answered"
    REFUSED = "refused"
    HAND_OVER = "hand_over"
    AGENT_JOINED = "agent_joined"
    HUNG_UP = "hung_up"
    LOST = "lost"


LIVE_STATE = {Mode.ANSWER: State.ANSWERING, Mode.ASSIST: State.ASSISTING, Mode.TRANSCRIBE: State.TRANSCRIBING}

_TALKING = (State.ANSWERING, State.ASSISTING, State.TRANSCRIBING, State.HANDING_OVER)

TRANSITIONS: dict[tuple[State, Happening], State] = {
    (State.RINGING, Happening.REFUSED): State.REFUSED,
    (State.RINGING, Happening.HUNG_UP): State.REFUSED,
    (State.RINGING, Happening.LOST): State.FAILED,
    (State.ANSWERING, Happening.HAND_OVER): State.HANDING_OVER,
    (State.HANDING_OVER, Happening.AGENT_JOINED): State.ASSISTING,
    **{(state, Happening.HUNG_UP): State.ENDED for state in _TALKING},
    **{(state, Happening.LOST): State.FAILED for state in _TALKING},
}


def next_state(state: State, happening: Happening, mode: Mode) -> State:
    """The state after `happening`. Raises IllegalTransition, changing nothing, where the table has no entry."""
    if (state, happening) == (State.RINGING, Happening.ANSWERED):
        return LIVE_STATE[mode]
    try:
        return TRANSITIONS[state, happening]
    except KeyError:
        raise IllegalTransition(f"a call that is {state} cannot have '{happening}' happen to it") from None


@dataclass(frozen=True, slots=True)
class Participant:
    """One party on a call, with an audio track of its own. `id` is unique within the call (e.g. "caller")."""

    id: str
    role: Role


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    start_s: float
    end_s: float
    probability: float = 1.0


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of one participant's speech. `revision` rises as better recognisers rewrite it (0 = live)."""

    id: str
    participant_id: str
    start_s: float
    end_s: float
    text: str
    words: tuple[Word, ...] = ()
    confidence: float = 1.0  # 0..1, the recogniser's own
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What the model chose at one Chunk of one participant, with a score in 0..1. `late` = past its deadline.

    `stopped`: before this Chunk the model was told to end a response, which it remembers as broken off if it had not
    ended by then. Who decides the call again must tell it so at the same place.
    """

    participant_id: str
    chunk: int
    choice: Choice
    score: float
    late: bool = False
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Hint:
    """Something shown to the human agent. `trigger_s` is the end of the words that caused it, `at_s` when shown."""

    id: str
    at_s: float
    trigger_s: float
    title: str
    text: str
    source: str
    score: float
    verdict: str = ""  # "", "accepted" or "dismissed"


@dataclass(frozen=True, slots=True)
class Answer:
    """Something said to the caller. `heard_text` is the part that was really played before it ended."""

    id: str
    at_s: float  # the first sample on the wire
    text: str
    heard_text: str
    interrupted: bool
    response_ms: int | None  # end of the caller's speech -> first sample on the wire; None for unprompted speech
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """A piece of the knowledge base: one heading of one Markdown file."""

    id: str
    title: str
    text: str
    source: str  # file#heading
    asks: tuple[str, ...] = ()  # questions a caller might put: they help retrieval and are never shown


@dataclass(frozen=True, slots=True)
class Instruction:
    """What tells the model its role on this call. Fixed for the call, so a model can compute it once and keep it."""

    mode: Mode
    text: str  # the tenant's policy, in words
    participants: tuple[Participant, ...]
    cards: tuple[Card, ...] = ()
    language: str = "en"
    options: dict[str, str] = field(default_factory=dict)
