"""The cascade: voice activity, partial recogniser, end of turn, retrieval and reply in a row, for many calls at once.

One step hears one Chunk of each participant. It perceives (voice activity, then words from the transcriber's thread,
for which it waits a moment when that thread is not busy), decides, and responds. What takes longer than a step is done
on other threads: writing, the final transcripts, a language model's replies.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from calls.audio import SAMPLE_RATE, Chunk
from calls.events import Decided
from calls.model import Answer, Choice, Instruction, Mode, Utterance
from model_worker.cascade import turns, words
from model_worker.cascade.call import HINT, CallStream
from model_worker.cascade.ear import Pcm
from model_worker.cascade.finals import Final
from model_worker.cascade.knowledge import Libraries
from model_worker.cascade.responder import Reply, Writer, is_long, reply
from model_worker.cascade.side import Side, Then
from model_worker.cascade.transcriber import Job, Refiner, Transcriber
from model_worker.cascade.vad import VoiceActivity
from model_worker.stream import Emit, Past, Stream

log = logging.getLogger(__name__)

WAIT_S = 0.2  # for words, in a step, with one or two calls; less with more, whose Chunks wait for the step meanwhile
TURN_WAIT_S = 0.3  # for the last words of a turn
PATIENT_S = 60.0
CLOSE_WAIT_S = 5.0  # for the last words of a call
REFINE_DELAY_S = 0.8  # when words come so late, utterances are not written twice
FULL_DELAY_S = 2.5  # when words come so late, the worker takes no more calls

Heard = tuple[CallStream, Side, Chunk]


@dataclass(slots=True)
class Parts:
    """The pretrained parts. `writer` None: replies are only read from the cards."""

    voice_activity: VoiceActivity
    transcriber: Transcriber
    refiner: Refiner[Final]
    prosody: Callable[[Pcm], float]
    libraries: Libraries
    writer: Writer | None = None
    writes_short: bool = False  # the writer is quick and good enough to write every reply, not only from long cards
    get_ready: Callable[[Sequence[str]], None] = lambda texts: None  # tells the voice what will probably be said


class Cascade:
    """Implements model_worker.stream.Model."""

    name = "cascade"
    transcribes = True
    hears_all_again = False

    def __init__(self, parts: Parts, patient: bool = False) -> None:
        """`patient`: wait for the cards, and for words in every step, however long, so that the same audio is decided
        in the same way whatever else this machine does. For tests, and for deciding a recorded call again; never on a
        live call."""
        self.parts = parts
        self._patient = patient
        self._open: set[str] = set()  # calls

    # --- calls come and go ------------------------------------------------------------------------------------

    def prepare(self, instruction: Instruction) -> None:
        if instruction.cards:
            self.parts.libraries.get(instruction.cards)

    def open(self, call_id: str, instruction: Instruction, emit: Emit, past: Past) -> CallStream:
        library = self.parts.libraries.get(instruction.cards) if instruction.cards else None
        writes = self.parts.writes_short or any(is_long(card) for card in instruction.cards)
        if self.parts.writer and writes and instruction.mode is Mode.ANSWER:
            self.parts.writer.warm(instruction)
        if self._patient and library is not None:
            wait([library])
        self._open.add(call_id)
        return CallStream(call_id, instruction, emit, past, library)

    def hear_answer(self, stream: Stream, answer: Answer) -> None:
        _call(stream).hear_answer(answer)

    def cancel(self, stream: Stream, response_id: str) -> None:
        _call(stream).cancel(response_id)

    def close(self, stream: Stream) -> None:
        call = _call(stream)
        self._open.discard(call.call_id)
        call.finish_torn()
        for side in call.sides.values():
            side.close()
        self._write([(call, side) for side in call.sides.values()], CLOSE_WAIT_S, all_of_it=True)
        for side in call.sides.values():
            side.read()
            side.settle()
            side.written()
        call.cancel_all()

    def shut_down(self) -> None:
        """End the threads."""
        self.parts.transcriber.close()
        self.parts.refiner.close()

    def load(self) -> float:
        return min(1.0, self.parts.transcriber.delay_s() / FULL_DELAY_S)

    def respond(self) -> bool:
        """Responses are written on threads of their own."""
        return False

    # --- a step -----------------------------------------------------------------------------------------------

    def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
        for call, side, chunk in self._perceive(batch):
            with _alone(call):
                call.finish_torn()
                choice, score = self._decide(call, side)
                decided = Decided(
                    call_id=call.call_id,
                    participant_id=side.participant_id,
                    chunk=chunk.index,
                    choice=choice,
                    score=round(score, 3),
                )
                call.emit(decided)

    def _perceive(self, batch: Sequence[tuple[Stream, Chunk]]) -> list[Heard]:
        """Hear every Chunk, then have it written. Returns what is to be decided: not what is heard again after a
        takeover, to know where speech stands."""
        heard = self._listen(batch)
        live = [(call, side, chunk) for call, side, chunk in heard if chunk.index > side.decided_until]
        sides = [(call, side) for call, side, _ in live]
        for call, side in sides:
            with _alone(call):
                self._ask(call, side)
        asking = [(call, side) for call, side in sides if self._is_asking(call, side)]
        for call, side in asking:
            with _alone(call):
                side.judge_prosody(self.parts.prosody)  # while the transcriber writes
        if self._patient:
            self._write(sides, PATIENT_S, all_of_it=True)
        elif ending := [(call, side) for call, side in asking if side.may_end()]:
            self._write(ending, TURN_WAIT_S, all_of_it=True)
        elif not self.parts.transcriber.is_busy():
            self._write(sides, WAIT_S / max(1, len(self._open) - 1), all_of_it=False)
        for call, side in sides:
            with _alone(call):
                side.read()
        return live

    def _listen(self, batch: Sequence[tuple[Stream, Chunk]]) -> list[Heard]:
        """Voice activity of the whole batch at once. Leaves out Chunks that were heard before."""
        heard: list[tuple[CallStream, Side, Chunk, Pcm]] = []
        for stream, chunk in batch:
            call = _call(stream)
            with _alone(call):
                side = call.side(chunk.participant_id)
                if (pcm := side.ear.take(chunk)) is not None:
                    heard.append((call, side, chunk, pcm))
        judged = self.parts.voice_activity.feed_many([(side.ear.voice, pcm) for _, side, _, pcm in heard])
        for (_, side, _, pcm), probabilities in zip(heard, judged, strict=True):
            side.hear(pcm, probabilities)
        return [(call, side, chunk) for call, side, chunk, _ in heard]

    def _write(self, sides: Sequence[tuple[CallStream, Side]], wait_s: float, all_of_it: bool) -> None:
        """Ask for words, and wait at most `wait_s` for them. `all_of_it`: where a text was asked for a moment too
        early, ask again until it covers all that was said."""
        deadline = time.monotonic() + wait_s
        while jobs := [job for call, side in sides if (job := self._ask(call, side)) is not None]:
            if not _wait(jobs, deadline) or not all_of_it:
                break

    def _ask(self, call: CallStream, side: Side) -> Job | None:
        side.read()
        turn = self._is_asking(call, side)
        return side.ask(self.parts.transcriber, turn, self._ahead(call) if turn else self._look(call, side))

    def _decide(self, call: CallStream, side: Side) -> tuple[Choice, float]:
        """What to do about this participant now, and do it."""
        if call.is_answered(side.participant_id) and (answered := self._answer(call, side)) is not None:
            return Choice.ANSWER, answered
        self._finish(call, side)
        if side.proposals:
            return Choice.ASSIST, self._hint(call, side)
        if side.line is not None:
            return Choice.TRANSCRIBE, side.ear.probability
        return Choice.SILENT, 1.0 - side.ear.probability

    def _finish(self, call: CallStream, side: Side) -> None:
        """Emit the utterances that are over, and have them written better."""
        for line, utterance in side.written():
            if call.is_answered(side.participant_id):
                call.turn.append(utterance)
            if self._patient or self.parts.transcriber.delay_s() < REFINE_DELAY_S:
                then = partial(call.rewrite, side, line.speech, utterance)
                self.parts.refiner.submit(call.call_id, line.speech.pcm(), then)

    # --- hints ------------------------------------------------------------------------------------------------

    def _look(self, call: CallStream, side: Side) -> Then | None:
        """What the transcriber's thread does with each new text of an assist call."""
        library = call.ready_library(Mode.ASSIST)
        return None if library is None else partial(side.look, library)

    def _hint(self, call: CallStream, side: Side) -> float:
        met = side.proposals.popleft()
        card, response_id = met.found.card, f"{HINT}{met.found.card.id}"
        if call.open_response(
            response_id, side, Choice.ASSIST, met.found.score, met.heard, met.confidence, met.trigger_s,
            (card.source,), card.title,
        ):  # fmt: skip
            call.say(response_id, card.text)
        return met.found.score

    # --- answers ----------------------------------------------------------------------------------------------

    def _is_asking(self, call: CallStream, side: Side) -> bool:
        """This is a caller who has just fallen silent and may want an answer."""
        silent = bool(side.ending) or side.ear.silence_s >= turns.ASK_AFTER_S
        return silent and call.is_answered(side.participant_id)

    def _ahead(self, call: CallStream) -> Then:
        """While it is not yet certain that the turn is over: find the reply, and tell the voice how it begins."""

        def ahead(text: str, confidence: float, until_s: float) -> None:
            if (library := call.ready_library(Mode.ANSWER)) is not None:
                expected = reply(_text(call.turn, text), library, call.dialogue)
                if expected.text and self._writer(expected) is None:
                    self.parts.get_ready(expected.opening)

        return ahead

    def _answer(self, call: CallStream, side: Side) -> float | None:
        """End the caller's turn if it is over, and respond. Returns how sure we are that it is."""
        line = side.line
        if line is not None and (not line.is_written or not line.text):
            return None  # speaking, or not written yet, or only a noise so far
        if line is None:
            self._finish(call, side)
        if line is None and not call.turn:
            return None
        text = _text(call.turn, line.text if line else "")
        judgement = turns.judge(text, side.prosody)
        until = line.speech.voiced_until if line else round(call.turn[-1].end_s * SAMPLE_RATE)
        if (side.ear.heard_until - until) / SAMPLE_RATE < judgement.pause_s or not self._is_ready(call):
            return None
        side.close()
        self._finish(call, side)
        turn, call.turn[:] = tuple(call.turn), []
        if not turn or words.is_noise(text):
            return None
        self._respond(call, side, turn, judgement.score)
        return judgement.score

    def _is_ready(self, call: CallStream) -> bool:
        """The cards of the first call take seconds to index; nothing is answered without them."""
        return call.library is None or call.library.done()

    def _respond(self, call: CallStream, side: Side, turn: Sequence[Utterance], score: float) -> None:
        heard, last = _text(turn), turn[-1]
        library = call.ready_library(Mode.ANSWER)
        found = reply(heard, library, call.dialogue) if library else Reply(heard, 0.0)
        call.dialogue.caller(heard)
        response_id = f"answer-{last.id}"
        if not call.open_response(
            response_id, side, Choice.ANSWER, score, heard, last.confidence, last.end_s, found.sources
        ):
            return
        if (writer := self._writer(found)) is None:
            call.say(response_id, found.text)
        else:
            call.write(response_id, found, writer)

    def _writer(self, found: Reply) -> Writer | None:
        """The writer, where its reply is worth waiting for; None: the card is read."""
        return self.parts.writer if found.text and (self.parts.writes_short or found.is_long) else None


@contextmanager
def _alone(call: CallStream) -> Iterator[None]:
    """The boundary between the calls of a step: one that fails is logged, and the others go on. A Chunk that is not
    decided here the engine decides `silent`."""
    try:
        yield
    except Exception:
        log.exception("failed in a step", extra={"call_id": call.call_id})


def _call(stream: Stream) -> CallStream:
    assert isinstance(stream, CallStream)
    return stream


def _text(turn: Iterable[Utterance], running: str = "") -> str:
    """What was said in a turn so far."""
    return " ".join([*(utterance.text for utterance in turn), running]).strip()


def _wait(jobs: Sequence[Job], deadline: float) -> bool:
    """Until all are done, or the (monotonic) deadline. False if it came first."""
    return all(job.done.wait(max(0.0, deadline - time.monotonic())) for job in jobs)
