"""Two models joined: words by the first, sounds by the second. `OFFHOOK_MODEL=cascade+interaction:small`.

    what is said                                  who says it                to whom
    --------------------------------------------  -------------------------  ---------------------------------------
    transcript, answers, hints out of the cards   the first, as without the  as without the second
                                                  second, to the letter
    a sound on the caller's side,  assist         the second finds it, this  the human agent: a hint of the Sound's
                                                  module writes it           own words, `sounds.py`
                                   answer,        the same, only where it    the supervisor: a notice. Nothing is
                                   transcribe     is a matter of safety      said to the caller
    digits, "somebody is speaking" and all else   the second                 nobody

Every Decision is the first model's, but for one: at the Chunk at which a sound's hint is given it is `assist`. That is
never a Chunk at which the first proposes something itself. Which claims of a sound are believed is in claims.py.

Only callers are listened to. A human agent hears their own room, and a hint about it would be one about themselves.

Nothing is said aloud about a sound. "Are you safe?" asked of a caller who is costs more trust than it is worth, as long
as an ear of this size now and then takes a breath for a sneeze. A supervisor who reads the notice can listen and judge.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec

from calls.audio import CHUNK_S, Chunk
from calls.events import Decided, Event, Notice, Partial, ResponseClosed, ResponseDelta, ResponseOpened, Uttered
from calls.model import Answer, Choice, Instruction, Mode, Role
from model_worker.beside import Beside, Listening
from model_worker.claims import Claim, Claims
from model_worker.sounds import named
from model_worker.stream import Emit, Model, Past, Stream

HINT = "sound"  # what the ids of a sound's responses begin with
PATIENT_S = 60.0


@dataclass(eq=False)
class Line:
    """A model_worker.stream.Stream: one call, as both hear it."""

    call_id: str
    mode: Mode
    emit: Emit
    callers: dict[str, Claims]
    words: Stream = field(init=False)
    listening: Listening | None = None
    _claimed: dict[str, ResponseOpened] = field(default_factory=dict)  # by the second model, not yet written
    _lock: threading.Lock = field(default_factory=threading.Lock)  # guards all Claims

    @property
    def going_on(self) -> frozenset[str]:
        """Torn responses that the first model writes to their end. A sound's hint is never torn."""
        return self.words.going_on

    def from_sounds(self, event: Event) -> None:
        """Of what the second model says only what is amiss with it goes any further. On its thread."""
        match event:
            case ResponseOpened():
                self._claimed[event.response_id] = event
            case ResponseClosed():
                opened = self._claimed.pop(event.response_id, None)
                if opened is not None and (sound := named(event.text)) is not None:
                    claim = Claim(sound, round((opened.chunk + 1) * CHUNK_S, 3), opened.score)
                    with self._lock:
                        self.callers[opened.participant_id].claim(claim)
            case Notice():
                self.emit(event)

    def from_words(self, event: Event) -> None:
        """What the first model says goes on at once. Any thread."""
        match event:
            case Decided(participant_id=participant_id) if participant_id in self.callers:
                event = self._decide(event, self.callers[participant_id])
            case Partial(participant_id=participant_id) if participant_id in self.callers:
                with self._lock:
                    self.callers[participant_id].words(event.utterance_id, event.start_s, event.end_s, event.text)
            case Uttered(utterance=said) if said.participant_id in self.callers:
                with self._lock:
                    self.callers[said.participant_id].words(said.id, said.start_s, said.end_s, said.text)
        self.emit(event)

    def _decide(self, decided: Decided, claims: Claims) -> Decided:
        """The Decision, and a sound told of where there is one to tell of."""
        if decided.choice in (Choice.ASSIST, Choice.ANSWER):
            return decided
        with self._lock:
            told = claims.due((decided.chunk + 1) * CHUNK_S, speaking=decided.choice is Choice.TRANSCRIBE)
        if told is None:
            return decided
        if self.mode is Mode.ASSIST:
            self._hint(decided, told)
            return msgspec.structs.replace(decided, choice=Choice.ASSIST, score=told.score)
        if told.sound.safety:
            text = f"{told.sound.name.capitalize()} in the background"
            self.emit(Notice(call_id=self.call_id, kind=HINT, text=text, at_s=told.at_s))
        return decided

    def _hint(self, decided: Decided, told: Claim) -> None:
        """A response whose words are known. Its source tells the policy, and whoever reads it, what it stands on."""
        sound, response_id = told.sound, f"{HINT}-{decided.participant_id}-{decided.chunk}"
        opened = ResponseOpened(
            call_id=self.call_id,
            response_id=response_id,
            choice=Choice.ASSIST,
            participant_id=decided.participant_id,
            chunk=decided.chunk,
            score=told.score,
            trigger_s=told.at_s,
            heard="",
            confidence=1.0,
            sources=(f"sound: {sound.name}",),
            title=sound.name.capitalize(),
            emotion=sound.emotion,
        )
        self.emit(opened)
        self.emit(ResponseDelta(call_id=self.call_id, response_id=response_id, seq=0, text=sound.hint()))
        self.emit(ResponseClosed(call_id=self.call_id, response_id=response_id, text=sound.hint()))


class Joined:
    """Implements model_worker.stream.Model."""

    hears_all_again = False  # what was decided before is not decided again, and an ear has no words to remember

    def __init__(self, words: Model, sounds: Model, patient: bool = False) -> None:
        """`patient`: wait at every step for what the second model hears, so that the same audio is decided in the same
        way whatever else this machine does. Never on a live call."""
        self.name = f"{words.name}+{sounds.name}"
        self.transcribes = words.transcribes
        self.words = words
        self.beside = Beside(sounds)
        self._patient = patient

    def prepare(self, instruction: Instruction) -> None:
        self.words.prepare(instruction)

    def open(self, call_id: str, instruction: Instruction, emit: Emit, past: Past) -> Line:
        callers = tuple(person for person in instruction.participants if person.role is Role.CALLER)
        line = Line(call_id, instruction.mode, emit, {person.id: Claims() for person in callers})
        line.words = self.words.open(call_id, instruction, line.from_words, past)
        if callers:
            # Whatever the call's mode: it is in `assist` that the second model responds to sounds and to little else.
            told = replace(instruction, mode=Mode.ASSIST, participants=callers, cards=())
            line.listening = self.beside.open(call_id, told, line.from_sounds, Past(decided=past.decided))
        return line

    def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
        lines = [(_line(stream), chunk) for stream, chunk in batch]
        for line, chunk in lines:
            if line.listening is not None and chunk.participant_id in line.callers:
                self.beside.hear(line.listening, chunk)
        if self._patient:
            self.beside.wait(PATIENT_S)
        self.words.step([(line.words, chunk) for line, chunk in lines])

    def respond(self) -> bool:
        return self.words.respond()

    def hear_answer(self, stream: Stream, answer: Answer) -> None:
        self.words.hear_answer(_line(stream).words, answer)

    def cancel(self, stream: Stream, response_id: str) -> None:
        """A sound's hint is written at once: there is nothing to stop."""
        self.words.cancel(_line(stream).words, response_id)

    def close(self, stream: Stream) -> None:
        line = _line(stream)
        if line.listening is not None:
            self.beside.close(line.listening)
        self.words.close(line.words)

    def load(self) -> float:
        """Room for words is room for a call."""
        return self.words.load()

    def shut_down(self) -> None:
        """End the second model's thread."""
        self.beside.shut_down()


def _line(stream: Stream) -> Line:
    assert isinstance(stream, Line)
    return stream
