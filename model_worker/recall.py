"""What a worker must know to go on with a call: the call's own story, folded. A pure function of events.

A worker reads `call:ID` and `speech:ID` when it claims a call. Nobody was there for a new call, so all of this is
empty; after a takeover it says what was written, decided, said and left unsaid, and from which Chunk on the audio must
be heard again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from calls.audio import CHUNK_S
from calls.bus import FROM_START, Message
from calls.events import (
    Answered,
    CallAccepted,
    CallEnded,
    Decided,
    PlayoutEnded,
    ResponseClosed,
    ResponseDelta,
    ResponseOpened,
    Say,
    Speech,
    StopSaying,
    Uttered,
)
from calls.model import Answer, Utterance
from model_worker.stream import Past


@dataclass(slots=True)
class Recollection:
    """A call's story so far."""

    position: str = FROM_START  # of the last event read
    accepted_before: bool = False
    ended: bool = False
    utterances: dict[str, Utterance] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    decided: dict[str, int] = field(default_factory=dict)  # participant -> last Chunk
    responses: dict[str, str | None] = field(default_factory=dict)  # id -> text so far while open, None when closed
    clauses: dict[tuple[str, int], Say] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)  # answers that need no more speech
    pieces: dict[tuple[str, int], int] = field(default_factory=dict)  # (answer, clause) -> pieces already synthesised
    spoken: set[str] = field(default_factory=set)  # answers of which all speech was synthesised

    def past(self) -> Past:
        return Past(
            utterances=tuple(sorted(self.utterances.values(), key=lambda u: u.start_s)),
            answers=tuple(self.answers.values()),
            decided=tuple(self.decided.items()),
            responses=tuple(self.responses),
        )

    def hear_from(self, participant_id: str) -> int:
        """The first Chunk to hear (again): the one in which the participant's last finished utterance ended."""
        ends = (u.end_s for u in self.utterances.values() if u.participant_id == participant_id)
        return math.floor(max(ends, default=0.0) / CHUNK_S)

    def unsaid(self) -> list[tuple[Say, int]]:
        """Clauses whose speech is missing or may be torn, with how many pieces of each are there, in order."""
        waiting = []
        for (answer_id, seq), say in self.clauses.items():
            later = any(other == answer_id and n > seq for other, n in self.pieces)
            if answer_id not in self.over and answer_id not in self.spoken and not later:
                waiting.append((say, self.pieces.get((answer_id, seq), 0)))
        return waiting

    def torn_responses(self) -> list[tuple[str, str]]:
        """Responses that an earlier worker began and will not finish, with the text so far."""
        return [(response_id, text) for response_id, text in self.responses.items() if text is not None]


def recollect(story: Iterable[Message], speech: Iterable[Message]) -> Recollection:
    """Fold a call's events and its speech. Events that come twice change nothing."""
    known = Recollection()
    for message in story:
        known.position = message.position
        _fold(known, message)
    for message in speech:
        if isinstance(event := message.event, Speech):
            clause = (event.answer_id, event.seq)
            known.pieces[clause] = max(known.pieces.get(clause, 0), event.piece + 1)
            if event.last:
                known.spoken.add(event.answer_id)
    return known


def _fold(known: Recollection, message: Message) -> None:
    match message.event:
        case CallAccepted():
            known.accepted_before = True
        case CallEnded():
            known.ended = True
        case Uttered(utterance=utterance):
            last = known.utterances.get(utterance.id)
            if last is None or last.revision < utterance.revision:
                known.utterances[utterance.id] = utterance
        case Answered(answer=answer):
            known.answers[answer.id] = answer
            known.over.add(answer.id)
        case Decided(participant_id=participant_id, chunk=chunk):
            known.decided[participant_id] = max(known.decided.get(participant_id, -1), chunk)
        case ResponseOpened(response_id=response_id):
            known.responses.setdefault(response_id, "")
        case ResponseDelta(response_id=response_id, text=text):
            so_far = known.responses.get(response_id)
            known.responses[response_id] = None if so_far is None else so_far + text
        case ResponseClosed(response_id=response_id):
            known.responses[response_id] = None
        case Say(answer_id=answer_id, seq=seq) as say:
            known.clauses.setdefault((answer_id, seq), say)
        case StopSaying(answer_id=answer_id) | PlayoutEnded(answer_id=answer_id):
            known.over.add(answer_id)
        case _:
            pass
