"""One participant of one call: an Ear, the text of what it hears, and what still has to be written."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from calls.audio import SAMPLE_RATE
from calls.events import Partial, Uttered
from calls.model import Utterance
from model_worker.cascade import turns, words
from model_worker.cascade.ear import Ear, Pcm, Speech
from model_worker.cascade.hints import HintFinder
from model_worker.cascade.knowledge import Found, Library
from model_worker.cascade.transcriber import Job, Text, Transcriber, Urgency
from model_worker.stream import Emit

log = logging.getLogger(__name__)

Then = Callable[[str, float, float], None]
"""Takes the text of a line, its confidence, and the second up to which it was heard."""

NEW_VOICE = SAMPLE_RATE * 3 // 10  # 0.3 s more of voice before the running text is written again
FIRST_VOICE = SAMPLE_RATE * 2 // 5
# What a recogniser makes of music and noise, measured on hold music and environmental sounds.
LEAST_CONFIDENCE = 0.3
LEAST_CERTAINTY = 0.5  # mean voice probability
MOST_WORDS_A_SECOND = 7.0


@dataclass(slots=True)
class Line:
    """The text of one stretch of speech. `heard_until` is the last voiced sample that the text covers."""

    speech: Speech
    text: str = ""
    confidence: float = 0.0
    heard_until: int = 0
    job: Job | None = None
    job_until: int = 0
    shown: bool = False  # a Partial of it was emitted

    @property
    def is_written(self) -> bool:
        """The text covers all that was said so far."""
        return self.heard_until >= self.speech.voiced_until


@dataclass(frozen=True, slots=True)
class Proposal:
    """A card to hint at, and the words that it met, which ended at `trigger_s`."""

    found: Found
    heard: str
    confidence: float
    trigger_s: float


@dataclass(slots=True)
class Side:
    """Owned by the engine's thread."""

    call_id: str
    participant_id: str
    ear: Ear
    emit: Emit
    hints: HintFinder
    decided_until: int  # Chunks up to this one were decided by an earlier worker
    known: frozenset[str]  # ids of utterances that an earlier worker finished
    line: Line | None = None
    ending: list[Line] = field(default_factory=list)  # over, but not all written yet
    proposals: deque[Proposal] = field(default_factory=deque)  # found since the last step, by the threads that write
    prosody: float = 0.0  # the probability that the turn is complete, by its sound
    _prosody_until: int = -1  # the last voiced sample when that was judged

    def hear(self, pcm: Pcm, probabilities: Sequence[float]) -> None:
        """Segment a Chunk by its voice activity. No words yet."""
        for ended in self.ear.hear(pcm, probabilities):
            self._end(ended)
        speech = self.ear.speech
        if speech is None:
            if self.line is not None:
                self._withdraw(self.line)  # it was only a click
            self.line = None
        elif self.line is None or self.line.speech is not speech:
            self.line = Line(speech)

    def close(self) -> None:
        """The stretch of speech is over, now."""
        speech = self.ear.close()
        if speech is not None:
            self._end(speech)
        elif self.line is not None:
            self._withdraw(self.line)
        self.line = None

    def _end(self, speech: Speech) -> None:
        line = self.line if self.line is not None and self.line.speech.id == speech.id else Line(speech)
        line.speech = speech
        self.ending.append(line)
        self.line = None

    def may_end(self) -> bool:
        """The silence is long enough for a turn to end now."""
        return bool(self.ending) or self.ear.silence_s >= turns.SHORTEST_S

    def judge_prosody(self, judge: Callable[[Pcm], float]) -> None:
        """Once for each silence: does it sound as if the turn is complete?"""
        line = self.line or (self.ending[-1] if self.ending else None)
        if line is not None and line.speech.voiced_until != self._prosody_until:
            self._prosody_until = line.speech.voiced_until
            self.prosody = judge(line.speech.pcm())

    # --- text ------------------------------------------------------------------------------------------------------

    def ask(self, transcriber: Transcriber, turn: bool, then: Then | None = None) -> Job | None:
        """Hand in the one job that is most needed; returns it, or the one under way, if any. `turn`: somebody may be
        waiting for an answer. `then` gets the line's new text on the transcriber's thread."""
        for ending in self.ending:
            if not ending.is_written:
                return ending.job or self._submit(ending, transcriber, Urgency.TURN if turn else Urgency.ENDED, then)
        line = self.line
        if line is None or line.is_written:
            return None
        if line.job is not None:
            return line.job
        if turn:
            return self._submit(line, transcriber, Urgency.TURN, then)
        if not line.heard_until and line.speech.voiced < FIRST_VOICE:
            return None
        if line.heard_until and line.speech.voiced_until - line.heard_until < NEW_VOICE:
            return None
        return self._submit(line, transcriber, Urgency.RUNNING, then)

    def _submit(self, line: Line, transcriber: Transcriber, urgency: Urgency, then: Then | None) -> Job:
        speech, until = line.speech, line.speech.voiced_until

        def tell(result: Text) -> None:
            if then is not None and (text := accepted(result, speech)):
                then(text, result.confidence, until / SAMPLE_RATE)

        line.job_until = until
        line.job = transcriber.submit(self.call_id, speech.pcm(), urgency, tell)
        return line.job

    def look(self, library: Library, text: str, confidence: float, until_s: float) -> None:
        """Does the running text meet a card? On the transcriber's thread."""
        if (found := self.hints.look(text, library)) is not None:
            self.proposals.append(Proposal(found, text, confidence, until_s))

    def look_again(self, library: Library, better: Utterance) -> None:
        """Does the final text meet a card that the running one missed? On the refiner's thread."""
        if (found := self.hints.look_again(better.text, library)) is not None:
            self.proposals.append(Proposal(found, better.text, better.confidence, better.end_s))

    def read(self) -> None:
        """Take the texts that are ready: emit the running one where it changed."""
        lines = [*self.ending, self.line] if self.line else self.ending
        for line in lines:
            if line.job is None or not line.job.done.is_set():
                continue
            result, line.job = line.job.result, None
            line.heard_until = line.job_until
            text = accepted(result, line.speech)
            if text == line.text:
                continue
            line.text = text
            line.confidence = result.confidence if result and text else 0.0
            if line is self.line:
                self._show(line)

    def settle(self) -> None:
        """The call is over and no more words will come: what is there must do."""
        for line in self.ending:
            line.heard_until = line.speech.voiced_until

    def written(self) -> list[tuple[Line, Utterance]]:
        """Utterances that are finished and written: emit them, in order. Noise that gave no words is withdrawn."""
        finished = []
        while self.ending and self.ending[0].is_written:
            line = self.ending.pop(0)
            if not line.text or line.speech.id in self.known:
                self._withdraw(line)
                continue
            utterance = self.utterance(line)
            self.emit(Uttered(call_id=self.call_id, utterance=utterance))
            self.hints.finish(line.text)
            finished.append((line, utterance))
        return finished

    def utterance(self, line: Line) -> Utterance:
        """The line as the live revision of an utterance, with estimated word times."""
        speech = line.speech
        timed = words.timed(line.text, speech.spans, line.confidence)
        return Utterance(
            speech.id, self.participant_id, speech.start_s, speech.end_s, line.text, timed, line.confidence
        )

    def _show(self, line: Line) -> None:
        if line.text or line.shown:
            line.shown = True
            partial = Partial(
                call_id=self.call_id,
                utterance_id=line.speech.id,
                participant_id=self.participant_id,
                start_s=line.speech.start_s,
                end_s=line.heard_until / SAMPLE_RATE,
                text=line.text,
                confidence=line.confidence,
            )
            self.emit(partial)

    def _withdraw(self, line: Line) -> None:
        """What looked like speech was none: a Partial that was shown must not stay."""
        if line.shown:
            line.text = ""
            self._show(line)


def accepted(result: Text | None, speech: Speech) -> str:
    """The recogniser's text, or "" where it is more likely an invention than something said."""
    if result is None or not any(character.isalnum() for character in result.text):
        return ""
    rate = len(result.text.split()) / max(0.25, speech.voiced / SAMPLE_RATE)
    if result.confidence < LEAST_CONFIDENCE or speech.certainty < LEAST_CERTAINTY or rate > MOST_WORDS_A_SECOND:
        log.debug("not taken for speech (%.2f, %.2f, %.1f): %s", result.confidence, speech.certainty, rate, result.text)
        return ""
    return result.text
