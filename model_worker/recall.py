"""What a worker must know to go on with a call: the call's own story, folded. A pure function of events.

A worker reads `call:ID` and `speech:ID` when it claims a call. Nobody was there for a new call, so all of this is
empty; after a takeover it says what was written, decided, said and left unsaid, and from which Chunk on the audio must
be heard again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from calls.audio import CHUNK_S
from calls.bus import FROM_START, Message
from calls.events import (
    Answered,
    AudioChunk,
    CallAccepted,
    CallEnded,
    CancelResponse,
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
from calls.model import Answer, Choice, Utterance
from model_worker.stream import At, Fate, Past, PastResponse

FRESH_S = 6.0  # a response whose worker has been gone for longer is not gone on with: who has asked asks again


@dataclass(slots=True)
class Recollection:
    """A call's story so far."""

    all_again: bool = False  # the model wants all audio that is left, not only what is unwritten
    position: str = FROM_START  # of the last event read
    accepted_before: bool = False
    ended: bool = False
    utterances: dict[str, Utterance] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    decided: dict[str, int] = field(default_factory=dict)  # participant -> last Chunk
    responses: dict[str, PastResponse] = field(default_factory=dict)
    unwanted: set[str] = field(default_factory=set)  # responses that policy has cancelled
    responded: set[At] = field(default_factory=set)
    stopped: set[At] = field(default_factory=set)
    clauses: dict[tuple[str, int], Say] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)  # answers that need no more speech
    pieces: dict[tuple[str, int], int] = field(default_factory=dict)  # (answer, clause) -> pieces already synthesised
    spoken: set[str] = field(default_factory=set)  # answers of which all speech was synthesised

    def past(self, audio: Sequence[Message] = ()) -> Past:
        """`audio` is what is still on the bus to be heard again."""
        first: dict[str, int] = {}
        fresh: dict[str, int] = {}
        for message in audio:
            if isinstance(chunk := message.event, AudioChunk):
                first.setdefault(chunk.participant_id, chunk.index)
                fresh[chunk.participant_id] = chunk.index - round(FRESH_S / CHUNK_S)
        return Past(
            utterances=tuple(sorted(self.utterances.values(), key=lambda u: u.start_s)),
            answers=tuple(self.answers.values()),
            decided=tuple(self.decided.items()),
            responses=tuple(self._outdated(response, fresh) for response in self.responses.values()),
            responded=tuple(self.responded),
            stopped=tuple(self.stopped),
            again=tuple((who, max(index, self.hear_from(who))) for who, index in first.items()),
            fresh=tuple(fresh.items()),
        )

    def _outdated(self, response: PastResponse, fresh: Mapping[str, int]) -> PastResponse:
        """Whether anybody waits for the rest of a response."""
        who = response.participant_id
        late = response.fate is Fate.TORN and self.decided.get(who, -1) < fresh.get(who, 0)
        unwanted = response.fate is not Fate.FINISHED and response.id in self.unwanted
        return replace(response, fate=Fate.UNWANTED) if late or unwanted else response

    def hear_from(self, participant_id: str) -> int:
        """The first Chunk to hear (again): the one in which the participant's last finished utterance ended, unless the
        model wants all."""
        if self.all_again:
            return 0
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
        return [(one.id, one.text) for one in self.responses.values() if one.fate is Fate.TORN]


def recollect(story: Iterable[Message], speech: Iterable[Message], all_again: bool = False) -> Recollection:
    """Fold a call's events and its speech. Events that come twice change nothing. `all_again`: of the model."""
    known = Recollection(all_again=all_again)
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
        case Decided(participant_id=participant_id, chunk=chunk) as decided:
            known.decided[participant_id] = max(known.decided.get(participant_id, -1), chunk)
            if decided.choice is not Choice.SILENT:
                known.responded.add((participant_id, chunk))
            if decided.stopped:
                known.stopped.add((participant_id, chunk))
        case ResponseOpened(response_id=response_id) as opened:
            begun = PastResponse(response_id, opened.participant_id, opened.chunk, opened.emotion)
            known.responses.setdefault(response_id, begun)
        case ResponseDelta(response_id=response_id, text=text) as delta:
            so_far = known.responses.get(response_id)
            if so_far is not None and so_far.fate is Fate.TORN and delta.seq == so_far.pieces:
                known.responses[response_id] = replace(so_far, text=so_far.text + text, pieces=delta.seq + 1)
        case ResponseClosed(response_id=response_id) as closed:
            if (whole := known.responses.get(response_id)) is not None:
                fate = Fate.CUT if closed.cancelled else Fate.FINISHED
                known.responses[response_id] = replace(whole, text=closed.text, fate=fate)
        case CancelResponse(response_id=response_id):
            known.unwanted.add(response_id)
        case Say(answer_id=answer_id, seq=seq) as say:
            known.clauses.setdefault((answer_id, seq), say)
        case StopSaying(answer_id=answer_id) | PlayoutEnded(answer_id=answer_id):
            known.over.add(answer_id)
        case _:
            pass
