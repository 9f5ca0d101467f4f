"""The cascade's state for one call, and how it speaks for it."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

from calls.audio import CHUNK_S, SAMPLE_RATE
from calls.events import Notice, ResponseClosed, ResponseDelta, ResponseOpened, Uttered
from calls.log import for_call
from calls.model import Answer, Choice, Instruction, Mode, Role, Utterance, Word
from model_worker.cascade.ear import ANSWERING, LISTENING, Ear, Speech
from model_worker.cascade.finals import Final
from model_worker.cascade.hints import HintFinder, Proposed
from model_worker.cascade.knowledge import Library
from model_worker.cascade.responder import Dialogue, Reply, Writer
from model_worker.cascade.side import Side
from model_worker.stream import Emit, Fate, Past, PastResponse

log = logging.getLogger(__name__)

HINT = "hint-"  # and the id of a card: the id of the response that shows it


@dataclass(slots=True)
class CallStream:
    """A model_worker.stream.Stream."""

    call_id: str
    instruction: Instruction
    emit: Emit
    past: Past
    library: Future[Library] | None
    sides: dict[str, Side] = field(default_factory=dict)
    dialogue: Dialogue = field(default_factory=Dialogue)
    proposed: Proposed = field(default_factory=Proposed)
    responses: set[str] = field(default_factory=set)
    turn: list[Utterance] = field(default_factory=list)  # of the caller's turn that was not answered yet
    going_on: frozenset[str] = frozenset()  # hints: of an answer nobody would find the rest of another's sentence
    _torn: list[PastResponse] = field(default_factory=list)  # those, until they are given to their end
    _stops: dict[str, threading.Event] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.responses.update(response.id for response in self.past.responses)
        self.proposed.ids.update(r.removeprefix(HINT) for r in self.responses if r.startswith(HINT))
        self._torn += [r for r in self.past.responses if r.fate is Fate.TORN and self._rest(r) is not None]
        self.going_on = frozenset(torn.id for torn in self._torn)
        for participant in self.instruction.participants:
            self.side(participant.id)
        for utterance in self.past.utterances:
            if self.role(utterance.participant_id) is Role.CALLER:
                self.dialogue.caller(utterance.text)
        for answer in self.past.answers:
            self.dialogue.agent(answer)
        self.turn += self._unanswered()
        if self.library is not None:
            self.library.add_done_callback(self._indexed)

    def role(self, participant_id: str) -> Role | None:
        return next((p.role for p in self.instruction.participants if p.id == participant_id), None)

    def is_answered(self, participant_id: str) -> bool:
        """This is a caller to whom a voice agent talks."""
        return self.instruction.mode is Mode.ANSWER and self.role(participant_id) is Role.CALLER

    def side(self, participant_id: str) -> Side:
        """The participant's state; made when it is first asked for."""
        if (side := self.sides.get(participant_id)) is None:
            mine = [u for u in self.past.utterances if u.participant_id == participant_id]
            ear = Ear(
                participant_id,
                ANSWERING if self.is_answered(participant_id) else LISTENING,
                deaf_until=round(max((u.end_s for u in mine), default=0.0) * SAMPLE_RATE),
            )
            side = self.sides[participant_id] = Side(
                self.call_id,
                participant_id,
                ear,
                self.emit,
                HintFinder(self.proposed, self.role(participant_id) or Role.CALLER),
                dict(self.past.decided).get(participant_id, -1),
                frozenset(u.id for u in mine),
            )
        return side

    def ready_library(self, mode: Mode) -> Library | None:
        """The cards, once they are indexed, if this call is of `mode`. None also where that failed: the call goes on
        without hints, and without answers out of the cards."""
        if self.instruction.mode is not mode or self.library is None or not self.library.done():
            return None
        return None if self.library.exception() else self.library.result()

    def _indexed(self, library: Future[Library]) -> None:
        """Say once, to the log and to who reviews the call, that the cards could not be indexed. Any thread."""
        if (error := library.exception()) is None:
            return
        log.error("the cards cannot be searched", exc_info=error, extra={"call_id": self.call_id})
        at_s = max((side.ear.heard_until for side in list(self.sides.values())), default=0) / SAMPLE_RATE
        lack = "answers" if self.instruction.mode is Mode.ANSWER else "hints"
        text = f"the knowledge base cannot be searched: no {lack} out of it on this call"
        self.emit(Notice(call_id=self.call_id, kind="knowledge", text=text, at_s=round(at_s, 3)))

    def _unanswered(self) -> list[Utterance]:
        """The caller's last words, where the last worker ended between them and the response to them."""
        said = [u for u in self.past.utterances if self.is_answered(u.participant_id)]
        if not said or not self.past.decided or f"answer-{said[-1].id}" in self.responses:
            return []
        return [] if any(answer.at_s >= said[-1].end_s for answer in self.past.answers) else said[-1:]

    # --- responses ----------------------------------------------------------------------------------------------

    def open_response(
        self,
        response_id: str,
        side: Side,
        choice: Choice,
        score: float,
        heard: str,
        confidence: float,
        trigger_s: float,
        sources: tuple[str, ...],
        title: str = "",
    ) -> bool:
        """Announce a response. False, and nothing is said, where an earlier worker has done so."""
        if response_id in self.responses:
            return False
        self.responses.add(response_id)
        self.emit(
            ResponseOpened(
                call_id=self.call_id,
                response_id=response_id,
                choice=choice,
                participant_id=side.participant_id,
                chunk=int(side.ear.heard_until / SAMPLE_RATE / CHUNK_S),
                score=round(score, 3),
                trigger_s=round(trigger_s, 3),
                heard=heard,
                confidence=round(confidence, 3),
                sources=sources,
                title=title,
            )
        )
        return True

    def say(self, response_id: str, text: str, before: str = "", seq: int = 0) -> None:
        """The whole response at once, or piece number `seq`, the last, of one of which `before` was said already."""
        if text:
            self.emit(ResponseDelta(call_id=self.call_id, response_id=response_id, seq=seq, text=text))
        self.emit(ResponseClosed(call_id=self.call_id, response_id=response_id, text=before + text))

    def finish_torn(self) -> None:
        """Give to their end the hints that an earlier worker has begun."""
        while self._torn:
            begun = self._torn.pop(0)
            self.say(begun.id, self._rest(begun) or "", begun.text, begun.pieces)

    def _rest(self, begun: PastResponse) -> str | None:
        """What is missing of a hint: a card is given as it stands. None: it is no hint, or its card is another now."""
        text = next((card.text for card in self.instruction.cards if f"{HINT}{card.id}" == begun.id), None)
        return text[len(begun.text) :] if text is not None and text.startswith(begun.text) else None

    def write(self, response_id: str, reply: Reply, writer: Writer) -> None:
        """The response sentence by sentence, from the writer's thread."""
        stop = self._stops[response_id] = threading.Event()
        count = 0

        def say(text: str) -> None:
            nonlocal count
            self.emit(ResponseDelta(call_id=self.call_id, response_id=response_id, seq=count, text=text))
            count += 1

        def closed(text: str) -> None:
            self._stops.pop(response_id, None)
            cancelled = stop.is_set()
            self.emit(ResponseClosed(call_id=self.call_id, response_id=response_id, text=text, cancelled=cancelled))

        with for_call(self.call_id):
            writer.write(self.instruction, self.dialogue, reply, say, closed, stop)

    def cancel(self, response_id: str) -> None:
        if (stop := self._stops.get(response_id)) is not None:
            stop.set()
        for begun in [torn for torn in self._torn if torn.id == response_id]:
            self._torn.remove(begun)
            self.emit(ResponseClosed(call_id=self.call_id, response_id=begun.id, text=begun.text, cancelled=True))

    def cancel_all(self) -> None:
        for stop in list(self._stops.values()):
            stop.set()

    def hear_answer(self, answer: Answer) -> None:
        self.dialogue.agent(answer)

    # --- finals -------------------------------------------------------------------------------------------------

    def rewrite(self, side: Side, speech: Speech, live: Utterance, final: Final) -> None:
        """The same utterance again as revision 1, by the better recogniser. On the refiner's thread."""
        if not final.text:
            return
        origin_s = speech.origin / SAMPLE_RATE
        timed = tuple(
            Word(w.text, round(origin_s + w.start_s, 3), round(origin_s + w.end_s, 3), round(w.probability, 3))
            for w in final.words
        )
        confidence = round(final.confidence, 3)
        better = Utterance(
            live.id, live.participant_id, live.start_s, live.end_s, final.text, timed, confidence, revision=1
        )
        self.emit(Uttered(call_id=self.call_id, utterance=better))
        if (library := self.ready_library(Mode.ASSIST)) is not None:
            side.look_again(library, better)
