"""The cascade: voice activity, partial recogniser, end of turn, retrieval and reply in a row, for many calls at once.

One step hears one Chunk of each participant. It perceives (voice activity, then words from the transcriber's thread,
for which it waits a moment when that thread is not busy), decides, and responds. What takes longer than a step is done
on other threads: writing, the final transcripts, a language model's replies.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from calls.audio import CHUNK_S, SAMPLE_RATE, Chunk
from calls.events import Decided, ResponseClosed, ResponseDelta, ResponseOpened, Uttered
from calls.model import Answer, Choice, Instruction, Mode, Role, Utterance, Word
from model_worker.cascade import turns, words
from model_worker.cascade.ear import ANSWERING, LISTENING, Ear, Pcm, Speech
from model_worker.cascade.finals import Final
from model_worker.cascade.hints import HintFinder, Proposed
from model_worker.cascade.knowledge import Libraries, Library
from model_worker.cascade.responder import Dialogue, Reply, Writer, is_long, reply
from model_worker.cascade.side import Proposal, Side, Then
from model_worker.cascade.transcriber import Job, Refiner, Transcriber
from model_worker.cascade.vad import VoiceActivity
from model_worker.stream import Emit, Past, Stream

log = logging.getLogger(__name__)

WAIT_S = 0.2  # for words, in a step, while the transcriber is not busy
TURN_WAIT_S = 0.3  # for the last words of a turn
FULL_DELAY_S = 2.5  # when words come so late, the worker takes no more calls


@dataclass(slots=True)
class Parts:
    """The pretrained parts. `writer` None: replies are only read from the cards."""

    voice_activity: VoiceActivity
    transcriber: Transcriber
    refiner: Refiner
    prosody: Callable[[Pcm], float]
    libraries: Libraries
    writer: Writer | None = None
    writes_short: bool = False  # the writer is quick and good enough to write every reply, not only from long cards
    get_ready: Callable[[str], None] = lambda text: None  # tells the voice what will probably be said


@dataclass(slots=True)
class CallStream:
    """The cascade's state for one call."""

    call_id: str
    instruction: Instruction
    emit: Emit
    past: Past
    library: Future[Library] | None
    sides: dict[str, Side] = field(default_factory=dict)
    dialogue: Dialogue = field(default_factory=Dialogue)
    proposed: Proposed = field(default_factory=Proposed)
    responses: set[str] = field(default_factory=set)
    stops: dict[str, threading.Event] = field(default_factory=dict)
    turn: list[str] = field(default_factory=list)  # utterances of the caller's turn that is not over
    unanswered: Utterance | None = None  # a turn that ended just before the last worker did

    def role(self, participant_id: str) -> Role | None:
        return next((p.role for p in self.instruction.participants if p.id == participant_id), None)

    def ready_library(self) -> Library | None:
        """The cards, once they are indexed."""
        return self.library.result() if self.library is not None and self.library.done() else None


class Cascade:
    """Implements model_worker.stream.Model."""

    name = "cascade"

    def __init__(self, parts: Parts, patient: bool = False) -> None:
        """`patient`: wait for words in every step, however long, so that the same audio is decided in the same way
        whatever else this machine does. For tests, and for deciding a recorded call again; never on a live call."""
        self.parts = parts
        self._patient = patient

    # --- calls come and go ------------------------------------------------------------------------------------

    def open(self, call_id: str, instruction: Instruction, emit: Emit, past: Past) -> CallStream:
        library = self.parts.libraries.get(instruction.cards) if instruction.cards else None
        stream = CallStream(call_id, instruction, emit, past, library)
        stream.responses.update(past.responses)
        stream.proposed.ids.update(r.removeprefix("hint-") for r in past.responses if r.startswith("hint-"))
        for participant in instruction.participants:
            self._side(stream, participant.id)
        for utterance in past.utterances:
            if stream.role(utterance.participant_id) is Role.CALLER:
                stream.dialogue.caller(utterance.text)
        for answer in past.answers:
            stream.dialogue.agent(answer)
        stream.unanswered = self._unanswered(stream)
        if self.parts.writer and instruction.mode is Mode.ANSWER and self._writes(instruction):
            self.parts.writer.warm(instruction)
        return stream

    def _side(self, stream: CallStream, participant_id: str) -> Side:
        if (side := stream.sides.get(participant_id)) is not None:
            return side
        past, role = stream.past, stream.role(participant_id)
        mine = [u for u in past.utterances if u.participant_id == participant_id]
        answered = stream.instruction.mode is Mode.ANSWER and role is Role.CALLER
        ear = Ear(
            participant_id,
            ANSWERING if answered else LISTENING,
            deaf_until=round(max((u.end_s for u in mine), default=0.0) * SAMPLE_RATE),
        )
        stream.sides[participant_id] = side = Side(
            stream.call_id,
            participant_id,
            role,
            ear,
            stream.emit,
            HintFinder(stream.proposed),
            dict(past.decided).get(participant_id, -1),
            frozenset(u.id for u in mine),
        )
        return side

    def _unanswered(self, stream: CallStream) -> Utterance | None:
        if stream.instruction.mode is not Mode.ANSWER or not stream.past.decided:
            return None
        said = [u for u in stream.past.utterances if stream.role(u.participant_id) is Role.CALLER]
        if not said or f"answer-{said[-1].id}" in stream.responses:
            return None
        return said[-1] if all(answer.at_s < said[-1].end_s for answer in stream.past.answers) else None

    def hear_answer(self, stream: Stream, answer: Answer) -> None:
        assert isinstance(stream, CallStream)
        stream.dialogue.agent(answer)

    def cancel(self, stream: Stream, response_id: str) -> None:
        assert isinstance(stream, CallStream)
        if (stop := stream.stops.get(response_id)) is not None:
            stop.set()

    def close(self, stream: Stream) -> None:
        assert isinstance(stream, CallStream)
        jobs = []
        for side in stream.sides.values():
            side.close()
            jobs += [job for line in side.ending if (job := line.job or side.ask(self.parts.transcriber, turn=False))]
        _wait(jobs, 5.0)
        for side in stream.sides.values():
            side.read()
            self._finish(stream, side, refine=False)
        for stop in stream.stops.values():
            stop.set()

    def shut_down(self) -> None:
        """End the threads."""
        self.parts.transcriber.close()
        self.parts.refiner.close()

    def load(self) -> float:
        return min(1.0, self.parts.transcriber.delay_s() / FULL_DELAY_S)

    # --- a step -----------------------------------------------------------------------------------------------

    def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
        live = self._perceive(batch)
        for stream, side, chunk in live:
            choice, score = self._decide(stream, side)
            stream.emit(
                Decided(
                    call_id=stream.call_id,
                    participant_id=side.participant_id,
                    chunk=chunk.index,
                    choice=choice,
                    score=round(score, 3),
                )
            )

    def _perceive(self, batch: Sequence[tuple[Stream, Chunk]]) -> list[tuple[CallStream, Side, Chunk]]:
        """Hear every Chunk; ask for words, and wait a moment for them. Returns the pairs that are to be decided."""
        live: list[tuple[CallStream, Side, Chunk]] = []
        jobs: list[Job] = []
        wait_s = WAIT_S
        for stream, side, chunk in self._listen(batch):
            if chunk.index <= side.decided_until:
                continue  # heard again after a takeover, to know where speech stands
            live.append((stream, side, chunk))
            side.read()
            turn = self._is_asking(stream, side)
            if job := side.ask(self.parts.transcriber, turn, self._ahead(stream) if turn else self._look(stream, side)):
                jobs.append(job)
            if turn:
                self._judge_prosody(side)
                if side.ear.silence_s >= turns.SHORTEST_S:
                    jobs += [side.line.job] if side.line and side.line.job and side.line.job not in jobs else []
                    wait_s = TURN_WAIT_S
        if self._patient:
            _wait(jobs, 60.0)
        elif wait_s == TURN_WAIT_S or not self.parts.transcriber.is_busy():
            _wait(jobs, wait_s)
        for _, side, _ in live:
            side.read()
        return live

    def _listen(self, batch: Sequence[tuple[Stream, Chunk]]) -> list[tuple[CallStream, Side, Chunk]]:
        """Voice activity of the whole batch at once. Leaves out Chunks that were heard before."""
        heard: list[tuple[CallStream, Side, Chunk, Pcm]] = []
        for stream, chunk in batch:
            assert isinstance(stream, CallStream)
            side = self._side(stream, chunk.participant_id)
            if (pcm := side.ear.take(chunk)) is not None:
                heard.append((stream, side, chunk, pcm))
        judged = self.parts.voice_activity.feed_many([(side.ear.voice, pcm) for _, side, _, pcm in heard])
        for (_, side, _, pcm), probabilities in zip(heard, judged, strict=True):
            side.hear(pcm, probabilities)
        return [(stream, side, chunk) for stream, side, chunk, _ in heard]

    def _decide(self, stream: CallStream, side: Side) -> tuple[Choice, float]:
        """What to do about this participant now, and do it."""
        if (answered := self._answer(stream, side)) is not None:
            return Choice.ANSWER, answered
        self._finish(stream, side, refine=True)
        if side.proposals:
            return Choice.ASSIST, self._hint(stream, side, side.proposals.popleft())
        if side.line is not None:
            return Choice.TRANSCRIBE, side.ear.probability
        return Choice.SILENT, 1.0 - side.ear.probability

    # --- utterances -------------------------------------------------------------------------------------------

    def _finish(self, stream: CallStream, side: Side, refine: bool) -> list[Utterance]:
        """Emit what is finished, and have it written better."""
        finished = side.written()
        for line, utterance in finished:
            if side.role is Role.CALLER and stream.instruction.mode is Mode.ANSWER:
                stream.turn.append(utterance.text)
            if refine:
                self.parts.refiner.submit(line.speech.pcm(), "", _better(stream, side, line.speech, utterance))
        return [utterance for _, utterance in finished]

    # --- hints ------------------------------------------------------------------------------------------------

    def _hint(self, stream: CallStream, side: Side, proposal: Proposal) -> float:
        card, score = proposal.found.card, proposal.found.score
        response_id = f"hint-{card.id}"
        opened = self._open(
            stream, side, response_id, Choice.ASSIST, score, proposal.heard, proposal.confidence,
            trigger_s=proposal.trigger_s, sources=(card.source,), title=card.title,
        )  # fmt: skip
        if opened:
            self._say(stream, response_id, card.text)
        return score

    def _look(self, stream: CallStream, side: Side) -> Then | None:
        """What the transcriber's thread does with each new text of an assist call."""
        library = stream.ready_library() if stream.instruction.mode is Mode.ASSIST else None
        return None if library is None else partial(side.look, library)

    # --- answers ----------------------------------------------------------------------------------------------

    def _is_asking(self, stream: CallStream, side: Side) -> bool:
        """This is a caller who has just fallen silent and may want an answer."""
        answering = stream.instruction.mode is Mode.ANSWER and side.role is Role.CALLER
        return answering and (bool(side.ending) or side.ear.silence_s >= turns.ASK_AFTER_S)

    def _judge_prosody(self, side: Side) -> None:
        line = side.line or (side.ending[-1] if side.ending else None)
        if line is not None and side.prosody[0] != line.speech.voiced_until:
            side.prosody = (line.speech.voiced_until, self.parts.prosody(line.speech.pcm()))

    def _ahead(self, stream: CallStream) -> Then:
        """While it is not yet certain that the turn is over: find the reply, and tell the voice how it begins."""

        def ahead(text: str, confidence: float, until_s: float) -> None:
            library = stream.ready_library()
            if library is not None:
                expected = reply(" ".join([*stream.turn, text]), library, stream.dialogue)
                if expected.text and self._writer(expected) is None:
                    self.parts.get_ready(expected.first_clause)

        return ahead

    def _answer(self, stream: CallStream, side: Side) -> float | None:
        """End the caller's turn if it is over, and reply. Returns how sure we are that it is."""
        if stream.instruction.mode is not Mode.ANSWER or side.role is not Role.CALLER:
            return None
        if stream.unanswered is not None and side.line is None:
            utterance, stream.unanswered = stream.unanswered, None
            self._reply(stream, side, utterance.id, utterance.text, utterance.confidence, utterance.end_s, 0.5)
            return 0.5
        line = side.line
        if line is None or not line.is_written or not line.text:
            return self._answer_rest(stream, side)
        judgement = turns.judge(" ".join([*stream.turn, line.text]), side.prosody[1])
        if side.ear.silence_s < judgement.pause_s:
            return None
        side.close()
        return self._end_turn(stream, side, judgement.score)

    def _answer_rest(self, stream: CallStream, side: Side) -> float | None:
        """A turn whose last utterance ended by itself: after the longest pause, or cut in mid-speech."""
        if side.line is not None or not side.ending:
            return None
        last = side.ending[-1]
        silent_s = (side.ear.heard_until - last.speech.voiced_until) / SAMPLE_RATE
        if not last.is_written or silent_s < turns.LONGEST_S:
            return None
        return self._end_turn(stream, side, 0.5)

    def _end_turn(self, stream: CallStream, side: Side, score: float) -> float | None:
        finished = self._finish(stream, side, refine=True)
        heard = " ".join(stream.turn)
        stream.turn.clear()
        if not finished or words.is_noise(heard):
            return None
        last = finished[-1]
        self._reply(stream, side, last.id, heard, last.confidence, last.end_s, score)
        return score

    def _reply(
        self, stream: CallStream, side: Side, turn_id: str, heard: str, confidence: float, end_s: float, score: float
    ) -> None:
        library = stream.ready_library()
        found = reply(heard, library, stream.dialogue) if library else Reply(heard, 0.0)
        stream.dialogue.caller(heard)
        response_id = f"answer-{turn_id}"
        opened = self._open(
            stream, side, response_id, Choice.ANSWER, score, heard, confidence, trigger_s=end_s, sources=found.sources
        )
        if not opened:
            return
        if (writer := self._writer(found)) is None:
            self._say(stream, response_id, found.text)
        else:
            self._write(stream, response_id, found, writer)

    def _writer(self, found: Reply) -> Writer | None:
        """The writer, where its reply is worth waiting for; None: the card is read."""
        return self.parts.writer if found.text and (self.parts.writes_short or found.is_long) else None

    def _writes(self, instruction: Instruction) -> bool:
        return self.parts.writes_short or any(is_long(card) for card in instruction.cards)

    # --- responses --------------------------------------------------------------------------------------------

    def _open(
        self,
        stream: CallStream,
        side: Side,
        response_id: str,
        choice: Choice,
        score: float,
        heard: str,
        confidence: float,
        *,
        trigger_s: float,
        sources: tuple[str, ...],
        title: str = "",
    ) -> bool:
        if response_id in stream.responses:
            return False
        stream.responses.add(response_id)
        stream.emit(
            ResponseOpened(
                call_id=stream.call_id,
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

    def _say(self, stream: CallStream, response_id: str, text: str) -> None:
        """The whole response at once."""
        if text:
            stream.emit(ResponseDelta(call_id=stream.call_id, response_id=response_id, seq=0, text=text))
        stream.emit(ResponseClosed(call_id=stream.call_id, response_id=response_id, text=text))

    def _write(self, stream: CallStream, response_id: str, found: Reply, writer: Writer) -> None:
        """The response sentence by sentence, from the writer's thread."""
        stop = stream.stops[response_id] = threading.Event()
        count = 0

        def say(text: str) -> None:
            nonlocal count
            stream.emit(ResponseDelta(call_id=stream.call_id, response_id=response_id, seq=count, text=text))
            count += 1

        def closed(text: str) -> None:
            stream.stops.pop(response_id, None)
            cancelled = stop.is_set()
            stream.emit(ResponseClosed(call_id=stream.call_id, response_id=response_id, text=text, cancelled=cancelled))

        writer.write(stream.instruction, stream.dialogue, found, say, closed, stop)


def _better(stream: CallStream, side: Side, speech: Speech, live: Utterance) -> Callable[[object], None]:
    """What the refiner does with a final transcript: the same utterance again, as revision 1."""

    def emit(final: object) -> None:
        assert isinstance(final, Final)
        if not final.text:
            return
        origin_s = speech.origin / SAMPLE_RATE
        timed = tuple(
            Word(w.text, round(origin_s + w.start_s, 3), round(origin_s + w.end_s, 3), round(w.probability, 3))
            for w in final.words
        )
        better = Utterance(
            live.id, live.participant_id, live.start_s, live.end_s, final.text, timed, round(final.confidence, 3), 1
        )
        stream.emit(Uttered(call_id=stream.call_id, utterance=better))
        library = stream.ready_library() if stream.instruction.mode is Mode.ASSIST else None
        if library is not None:
            side.look_again(library, better)

    return emit


def _wait(jobs: Sequence[Job], seconds: float) -> None:
    """Until all are done, at most so long."""
    deadline = time.monotonic() + seconds
    for job in jobs:
        job.done.wait(max(0.0, deadline - time.monotonic()))
