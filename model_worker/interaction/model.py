"""The Audio Interaction Model behind the one interface of every model (model_worker/stream.py).

Tokens become events here and nothing else happens: serving.py hears, decides and writes; instruction.py makes the
prefix; saying.py puts tokens together to text.

    mode        ears                    a Chunk that is responded to is   what is written becomes
    answer      the caller              Choice.ANSWER                     a response, to be said
    assist      caller and human agent  Choice.ASSIST                     a response, to be shown
    transcribe  caller and human agent  Choice.TRANSCRIBE                 Partial, then Uttered

The model writes no transcript of what it responds to: `heard` of its responses is empty, and `trigger_s` is the end of
the Chunk at which it decided. All that is emitted follows from the audio, but for one thing from outside: a response
that policy cancels. It ends before the next Chunk, and that Chunk's Decision says `stopped`, so that the call can be
decided again, the same to the token (replay.py).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from calls.audio import CHUNK_S, CHUNK_SAMPLES, Chunk
from calls.events import Decided, Partial, ResponseClosed, ResponseDelta, ResponseOpened, Uttered
from calls.model import Answer, Choice, Instruction, Mode, Participant, Role, Utterance
from model_worker.errors import NoRoom
from model_worker.interaction.earlier import Earlier, recall
from model_worker.interaction.ears import Ear, Judged, Said
from model_worker.interaction.instruction import prefix_of
from model_worker.interaction.saying import Saying
from model_worker.interaction.serving import Serving
from model_worker.stream import Emit, Past, Stream, silent

log = logging.getLogger(__name__)

EARS_A_CALL = 2  # at most


@dataclass(eq=False, slots=True)
class Side:
    """One participant that the model hears."""

    call: CallStream
    participant_id: str
    ear: Ear
    earlier: Earlier
    written_until_s: float  # the end of the last utterance
    saying: Saying | None = None
    coming: deque[Saying] = field(default_factory=deque)  # decided, while words are still due to those before
    stopped: Saying | None = None  # told to end before the Chunk that comes next, and not known to have ended by itself

    @property
    def under_way(self) -> list[Saying]:
        return [self.saying, *self.coming] if self.saying else []


@dataclass(eq=False, slots=True)
class CallStream:
    """A model_worker.stream.Stream."""

    call_id: str
    mode: Mode
    emit: Emit
    sides: dict[str, Side] = field(default_factory=dict)

    @property
    def going_on(self) -> frozenset[str]:
        """Responses of an earlier worker that are written to their end."""
        retold = [one for side in self.sides.values() for one in side.earlier.retold.values()]
        return frozenset(one.given.id for one in retold if one.given and not one.muted)


class Interaction:
    """Implements model_worker.stream.Model."""

    transcribes = False  # on answer and assist calls
    hears_all_again = True

    def __init__(self, serving: Serving, tokenizer: Tokenizer, name: str = "interaction") -> None:
        self.name = name
        self._serving = serving
        self._tokenizer = tokenizer
        self._sides: dict[Ear, Side] = {}
        self._coming: deque[Iterator[None]] = deque()  # prefixes that are computed ahead
        self._served = False  # there has been a call
        # Whoever lets `serving` work holds it until the events are emitted: so they keep their order.
        self._lock = threading.Lock()

    # --- calls come and go ------------------------------------------------------------------------------------

    def prepare(self, instruction: Instruction) -> None:
        """Its prefix is computed by the next `respond`s, a slice each. There is no room for a first call until then: it
        would compute the same prefix once more, and wait for both."""
        self._coming.append(self._compute(instruction))

    def open(self, call_id: str, instruction: Instruction, emit: Emit, past: Past) -> CallStream:
        """Raises NoRoom when there are not enough slots for the call."""
        self._served = True
        call = CallStream(call_id, instruction.mode, emit)
        prefix = self._prefix(instruction)
        try:
            for participant in _heard(instruction):
                self._open_side(call, participant.id, prefix, past)
        except BaseException:
            self._release(call)
            raise
        return call

    def hear_answer(self, stream: Stream, answer: Answer) -> None:
        """Not fed back: the model remembers its own words as it wrote them, for its layout has no place for how much of
        them was heard, and none for words that are not its own (the greeting and other fixed phrases)."""

    def cancel(self, stream: Stream, response_id: str) -> None:
        for side in _call(stream).sides.values():
            for saying in side.under_way:
                saying.stop |= saying.id == response_id

    def close(self, stream: Stream) -> None:
        """Words that are still due are written, then the response closes as cancelled; only a transcript is
        finished."""
        call = _call(stream)
        try:
            for side in call.sides.values():
                if call.mode is Mode.TRANSCRIBE:
                    self._finish(side)
                self._write_out(side)
                with self._lock:
                    self._end(side, cancelled=True)
        finally:
            self._release(call)

    def load(self) -> float:
        free, slots = self._serving.free, self._serving.slots
        starting = bool(self._coming) and not self._served
        return 1.0 if free < EARS_A_CALL or starting else 1.0 - free / slots

    def _prefix(self, instruction: Instruction) -> list[int]:
        config = self._serving.config
        return prefix_of(instruction, self._tokenizer, config.tokens, config.memory.prefix)

    def _open_side(self, call: CallStream, participant_id: str, prefix: Sequence[int], past: Past) -> None:
        earlier = recall(past, call.mode, participant_id, self._serving.config.tokens, self._tokenizer)
        ear = self._serving.open(prefix, call.mode.value, earlier.said, earlier.known)
        side = Side(call, participant_id, ear, earlier, earlier.written_until_s)
        call.sides[participant_id] = self._sides[ear] = side

    def _release(self, call: CallStream) -> None:
        for side in call.sides.values():
            self._serving.release(side.ear)
            self._sides.pop(side.ear, None)

    def _finish(self, side: Side) -> None:
        """The transcript under way is written to its end: words come only with Chunks, so it hears silence."""
        config = self._serving.config
        for _ in range(config.longest // config.words_a_chunk + 1):
            self._write_out(side)
            with self._lock:
                if side.saying is None or side.ear.due is None:
                    return
                _, said = self._serving.hear([(side.ear, side.ear.due, torch.zeros(CHUNK_SAMPLES))])
                self._write(said)

    def _write_out(self, side: Side) -> None:
        """All that is due, a piece at a time: other calls are heard in between."""
        while side.ear.behind:
            with self._lock:
                self._write(self._serving.write_due(side.ear))

    # --- a step -----------------------------------------------------------------------------------------------

    def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
        with self._lock:
            heard: list[tuple[Side, Chunk]] = []
            for stream, chunk in batch:
                call = _call(stream)
                if (side := call.sides.get(chunk.participant_id)) is None:
                    call.emit(silent(chunk))  # nobody whom this call's mode is about
                    continue
                self._stop(side, chunk.index)
                heard.append((side, chunk))
            # What was decided in one pass stands, whatever becomes of the next.
            for start in range(0, len(heard), self._serving.largest):
                self._hear(heard[start : start + self._serving.largest])

    def _hear(self, heard: Sequence[tuple[Side, Chunk]]) -> None:
        judged, said = self._serving.hear([(side.ear, chunk.index, _samples(chunk)) for side, chunk in heard])
        self._write(said)
        for (side, _), one in zip(heard, judged, strict=True):
            if one is not None:
                self._decide(side, one)

    def respond(self) -> bool:
        with self._lock:
            self._get_ready()
            if self._serving.busy:
                self._write(self._serving.write())
            return bool(self._coming) or self._serving.busy

    def _decide(self, side: Side, judged: Judged) -> None:
        """Emit the Decision, unless an earlier worker did, and begin the response."""
        call, mode = side.call, side.call.mode
        sure = self._serving.config.sureness(judged.score, mode.value)
        choice, score = Choice.SILENT, 1.0 - sure
        if judged.respond:
            choice, score = Choice(mode.value), sure
            saying = _saying(side, judged.index, round(sure, 3))
            if side.saying is None:
                side.saying = saying
            else:
                side.coming.append(saying)
        if judged.index > side.earlier.known.until:
            call.emit(
                Decided(
                    call_id=call.call_id,
                    participant_id=side.participant_id,
                    chunk=judged.index,
                    choice=choice,
                    score=round(score, 3),
                    stopped=side.stopped is not None,
                )
            )
        side.stopped = None

    def _stop(self, side: Side, index: int) -> None:
        """The response that policy does not want ends before Chunk `index`: after the words that are due, so that what
        the model remembers does not depend on the moment at which it was told. And before the first Chunk that is new,
        what an earlier worker has left unfinished and nobody wants. Only the last one can: it ends those before it."""
        if not side.under_way:
            return
        last, again = side.under_way[-1], index <= side.earlier.known.until
        if last.stop or (index in side.earlier.stopped if again else last.unwanted):
            last.stop = last.unwanted = False
            self._serving.stop(side.ear)
            side.stopped = last

    def _get_ready(self) -> None:
        """Compute one slice of a prefix, which `serving` keeps."""
        if not self._coming:
            return
        done = object()
        left = False
        try:
            left = next(self._coming[0], done) is not done
        except NoRoom as error:
            log.info("an Instruction is not computed ahead: %s", error)
        finally:
            if not left:
                self._coming.popleft()

    def _compute(self, instruction: Instruction) -> Iterator[None]:
        yield from self._serving.prepare(self._prefix(instruction))

    # --- words --------------------------------------------------------------------------------------------------

    def _write(self, said: Iterable[Said]) -> None:
        """Emit what was written."""
        table = self._serving.config.tokens
        for part in said:
            side = self._sides.get(part.ear)
            if side is None or side.saying is None or side.saying.chunk != part.index:
                continue  # the call was closed, or the response ended from outside
            self._give(side, side.saying, side.saying.feed(part.tokens, table, self._tokenizer))
            if part.ended:
                self._end(side, cancelled=part.cut)

    def _give(self, side: Side, saying: Saying, piece: str) -> None:
        """The next piece of the text. A response is announced with its first one, when its emotion is known."""
        call = side.call
        if not piece or saying.muted:
            return
        if call.mode is Mode.TRANSCRIBE:
            call.emit(
                Partial(
                    call_id=call.call_id,
                    utterance_id=saying.id,
                    participant_id=side.participant_id,
                    start_s=side.written_until_s,
                    end_s=_end_s(saying.chunk),
                    text=saying.text.strip(),
                )
            )
            return
        if not saying.announced:
            saying.announced = True
            call.emit(
                ResponseOpened(
                    call_id=call.call_id,
                    response_id=saying.id,
                    choice=Choice(call.mode.value),
                    participant_id=side.participant_id,
                    chunk=saying.chunk,
                    score=saying.score,
                    trigger_s=_end_s(saying.chunk),
                    heard="",
                    confidence=1.0,
                    emotion=saying.emotion,
                )
            )
        call.emit(ResponseDelta(call_id=call.call_id, response_id=saying.id, seq=saying.pieces - 1, text=piece))

    def _end(self, side: Side, cancelled: bool) -> None:
        """No more is written of what was being said, if anything was. Without a word it was never announced."""
        saying, side.saying = side.saying, side.coming.popleft() if side.coming else None
        if saying is side.stopped and not cancelled:
            side.stopped = None
        if saying is None or saying.muted or not (saying.pieces or saying.announced):
            return
        call = side.call
        if call.mode is not Mode.TRANSCRIBE:
            closed = ResponseClosed(call_id=call.call_id, response_id=saying.id, text=saying.text, cancelled=cancelled)
            call.emit(closed)
        elif text := saying.text.strip():
            # Where the words began is not known: after those that were written before them.
            until_s = _end_s(saying.chunk)
            said = Utterance(saying.id, side.participant_id, side.written_until_s, until_s, text)
            side.written_until_s = until_s
            call.emit(Uttered(call_id=call.call_id, utterance=said))


def _heard(instruction: Instruction) -> list[Participant]:
    """Whom the model hears: see the top of this file."""
    wanted = {Role.CALLER} if instruction.mode is Mode.ANSWER else {Role.CALLER, Role.HUMAN_AGENT}
    heard = [participant for participant in instruction.participants if participant.role in wanted]
    return heard[:EARS_A_CALL]  # more would take the slots of another call


def _saying(side: Side, chunk: int, score: float) -> Saying:
    """The response to a Chunk: a new one, or the one that an earlier worker began there."""
    saying = Saying(f"{side.call.mode}-{side.participant_id}-{chunk}", chunk, score)
    if (retold := side.earlier.retold.get(chunk)) is not None:
        saying.muted, saying.unwanted = retold.muted, retold.unwanted
        if retold.given is not None:
            saying.announced, saying.text, saying.pieces = True, retold.given.text, retold.given.pieces
    return saying


def _samples(chunk: Chunk) -> Tensor:
    """[6400] float32 in -1..1."""
    return torch.from_numpy(np.frombuffer(chunk.pcm, "<i2").astype(np.float32) / np.float32(32768))


def _end_s(chunk: int) -> float:
    return round((chunk + 1) * CHUNK_S, 3)


def _call(stream: Stream) -> CallStream:
    assert isinstance(stream, CallStream)
    return stream
