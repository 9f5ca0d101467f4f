"""Streams in slots: who has heard what, who speaks, and what is done next.

    open     a slot for an ear (one participant of one call), its Instruction computed or copied
    hear     perceive -> decide for a batch of Chunks; a Chunk that is responded to begins a response
    write    a few tokens for every ear that speaks, in what is left of the time
    release  the slot is wiped

Between two Chunks of an ear exactly `words_a_chunk` tokens of its response are written (fewer if it ends): by `write`
in idle time, or else by `hear` before the next Chunk. So what is written depends on the audio and on nothing else.

A model of two tiers decides with its ear, and its decoder is woken only to speak: it then hears the Chunks that it has
not heard yet (unheard.py), as many as it can remember, some of them in one pass. It works in `write`, and in
`hear` only when it is BEHIND Chunks behind the ear: what each Chunk means for it waits until all that was due before
that Chunk is written. So the words are the same at any pace.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from calls.audio import CHUNK_SAMPLES
from model_worker.errors import NoRoom
from model_worker.interaction.config import EAR_TOKENS, InteractionConfig
from model_worker.interaction.ears import Ear, Judged, Known, Said, Text, Track
from model_worker.interaction.padded import Padded
from model_worker.interaction.perception import Perception
from model_worker.interaction.tier import TOGETHER, Tier
from model_worker.interaction.turns import Turns
from model_worker.interaction.unheard import Unheard

log = logging.getLogger(__name__)

BEHIND = 8  # Chunks that the decoder of two tiers may be behind: then it works before more is heard


class Serving:
    """Serves up to `slots` ears. Any thread may call anything: one pass is made at a time.

    `perceive` is the pass of the tower (the audio encoder); it and the tiers have a row number `slots` for padding.
    `ear`: the tier that decides, where it is not the decoder, and `unheard` what the decoder has then not heard yet,
    with room for BEHIND Chunks more than it remembers. `passes`: tokens that one `write` adds to each response at most.
    """

    def __init__(
        self,
        config: InteractionConfig,
        perception: Perception,
        perceive: Padded,
        decoder: Tier,
        ear: Tier | None,
        unheard: Unheard | None,
        slots: int,
        passes: int = 1,
    ) -> None:
        self.config = config
        self.slots = slots
        self._perception = perception
        self._perceive = perceive
        self._decoder = decoder
        self._ear = ear
        self._unheard = unheard
        self._passes = passes
        self._free = list(reversed(range(slots)))
        self._ears: dict[int, Ear] = {}  # by slot, in the order in which they were opened
        self._said: list[Said] = []  # written, and not yet returned: longer than a call of ours only if a pass fails
        self._lock = Turns()
        self._woke = False  # the last piece of work was for ears that wake

    # --- open, release ------------------------------------------------------------------------------------------

    def open(
        self,
        prefix: Sequence[int],
        mode: str = "answer",
        said: Sequence[Sequence[int]] = (),
        known: Known | None = None,
    ) -> Ear:
        """A slot for one participant's ear.

        `prefix` are the tokens of the Instruction with their markers, `mode` ("transcribe", "assist" or "answer") is
        what the ear of a two-tier model is told instead. Of a call that is taken over, `said` are the words of the
        responses before all that will be heard, of which the newest are kept; what is `known` of the Chunks that are
        heard again is neither decided nor chosen anew. Raises NoRoom when all slots are taken or memory runs out,
        ValueError for a prefix that is empty or too long and for another mode; nothing is changed then. Others are
        heard meanwhile: the slot is taken at once and filled in slices.
        """
        with self._lock:
            if not self._free:
                raise NoRoom(f"all {self.slots} slots are taken: start another worker, or give this one more slots.")
            slot = self._free.pop()
        try:
            ear = self._fill(slot, prefix, mode, self._newest(said))
        except BaseException as error:
            with self._lock:
                self._empty(slot)
            if isinstance(error, torch.OutOfMemoryError):
                raise NoRoom("no memory for the Instruction of one more call: give this worker fewer slots.") from error
            raise
        ear.known = known or ear.known
        with self._lock:
            self._ears[slot] = ear
        return ear

    def prepare(self, prefix: Sequence[int]) -> Generator[None]:
        """Compute an Instruction ahead of its call, one slice whenever the next is asked for. It takes no slot.

        One at a time. Raises NoRoom when memory runs out.
        """
        try:
            yield from self._in_turns(self._decoder.prepare(prefix))
        except torch.OutOfMemoryError as error:
            raise NoRoom("no memory for an Instruction that is computed ahead.") from error

    def release(self, ear: Ear) -> None:
        """The ear is heard no more; what it was saying ends, what is due is dropped, and no trace stays. Twice does
        no harm."""
        with self._lock:
            if self._ears.get(ear.slot) is ear:
                del self._ears[ear.slot]
                ear.text, ear.waking = None, 0
                self._empty(ear.slot)

    def stop(self, ear: Ear) -> None:
        """What the ear says ends before the Chunk that it hears next, after the words that are due by then: it
        remembers those. A decoder that is behind comes to it when it comes to that Chunk, and nobody waits for it."""
        with self._lock:
            ear.stopping = True

    @property
    def free(self) -> int:
        """Slots that are not taken."""
        return len(self._free)

    def _fill(self, slot: int, prefix: Sequence[int], mode: str, said: Sequence[Sequence[int]]) -> Ear:
        for _ in self._in_turns(self._decoder.opening(slot, prefix, said)):
            pass
        voice = Track(chunks=len(said), texts=sum(map(len, said)))
        if self._ear is None:
            return Ear(slot, voice, voice, mode)
        with self._lock:
            self._ear.open(slot, [EAR_TOKENS.index(mode)])
        return Ear(slot, Track(), voice, mode, unheard=deque(maxlen=self.config.memory.chunks))

    def _in_turns(self, work: Iterator[None]) -> Generator[None]:
        """Each slice of some work in a turn of its own, so that whoever waits comes in between."""
        done = object()
        while True:
            with self._lock:
                if next(work, done) is done:
                    return
            yield

    def _newest(self, said: Sequence[Sequence[int]]) -> list[list[int]]:
        """The last responses that fit into the memory for text, as they were written."""
        tokens, room = self.config.tokens, self.config.memory.text
        kept: deque[list[int]] = deque()
        for words in reversed(said):
            written = [tokens.text_begin, *words, tokens.text_end]
            room -= len(written)
            if room < 0:
                break
            kept.appendleft(written)
        return list(kept)

    def _empty(self, slot: int) -> None:
        self._decoder.close(slot)
        if self._ear:
            self._ear.close(slot)
        if self._unheard:
            self._unheard.wipe(slot)
        self._perception.reset(slot)
        self._free.append(slot)

    # --- hear: perceive -> decide -> begin ----------------------------------------------------------------------

    @property
    def largest(self) -> int:
        """Chunks that are heard in one pass, at most."""
        return self._perceive.largest

    def hear(self, batch: Sequence[tuple[Ear, int, Tensor]]) -> tuple[list[Judged | None], list[Said]]:
        """The next Chunk of up to `largest` ears: the ear, the Chunk's index, its samples [6400] float32.

        None instead of a decision: the Chunk was refused and nothing is changed by it. It came a second time or too
        late, is no Chunk, or its ear was released. A gap before it is lost audio: see `_accept`. Also returns what was
        still to be written before these Chunks, and which responses end there. If perceiving or deciding fails, none
        of the Chunks is decided and all may come once more; if they do not, they are lost. What was written before it
        failed is returned by whatever is asked for words next.
        """
        with self._lock:
            if len({ear for ear, _, _ in batch}) < len(batch):
                raise ValueError("an ear hears one Chunk at a time")
            if len(batch) > self.largest:
                raise ValueError(f"{self.largest} Chunks are heard in one pass at most, not {len(batch)}")
            taken = [item for item in batch if self._accept(*item)]
            if not taken:
                return [None] * len(batch), self._tell()
            ears = [ear for ear, _, _ in taken]
            perceived = False
            try:
                self._catch_up(ears, BEHIND if self._ear else 0)
                perceived = True
                features = self._perceive([(ear.slot,) for ear in ears], torch.stack([pcm for _, _, pcm in taken]))
                judged = self._decide(taken, features)
            except BaseException:
                for ear, index, _ in taken:
                    ear.due = index
                    if perceived:
                        self._perception.reset(ear.slot)  # it would be heard twice
                raise
            self._said += self._respond(taken, features, judged)
            return [judged.get(ear) for ear, _, _ in batch], self._tell()

    def _accept(self, ear: Ear, index: int, pcm: Tensor) -> bool:
        """Whether this is a Chunk that the ear can hear next.

        Lost Chunks take no place and no time in what the call remembers, as if the next one had followed at once; the
        tower begins anew after them, as behind silence.
        """
        here = self._ears.get(ear.slot) is ear
        if not here or pcm.shape != (CHUNK_SAMPLES,) or (ear.due is not None and index < ear.due):
            log.warning("slot %d: chunk %d refused, %s is due", ear.slot, index, ear.due if here else "none")
            return False
        if ear.due is not None and index > ear.due:
            self._lose(ear, index - ear.due)
        ear.due = index + 1
        return True

    def _lose(self, ear: Ear, chunks: int) -> None:
        ear.lost += chunks
        self._perception.reset(ear.slot)

    def _decide(self, part: Sequence[tuple[Ear, int, Tensor]], features: Tensor) -> dict[Ear, Judged]:
        """Append the Chunks to the memory of the tier that decides. The host waits here, and in `_write`."""
        tier = self._ear or self._decoder
        numbers = [(ear.slot, ear.judge.chunks, ear.judge.control) for ear, _, _ in part]
        scores = tier.hear(numbers, features).tolist()
        judged = {}
        for (ear, index, _), score in zip(part, scores, strict=True):
            again = index <= ear.known.until
            respond = index in ear.known.responses if again else score > self.config.threshold_in(ear.mode)
            ear.judge.heard(tier.markers.control(respond))
            judged[ear] = Judged(ear, index, respond, score)
        return judged

    def _respond(
        self, part: Sequence[tuple[Ear, int, Tensor]], features: Tensor, judged: dict[Ear, Judged]
    ) -> list[Said]:
        """Carry on where silence was decided, begin a response where not. Returns the responses that end."""
        cut = []
        for (ear, index, _), own in zip(part, features, strict=True):
            if self._unheard:
                self._unheard.keep(ear.slot, ear.kept, own)
                ear.kept += 1
            ear.pending.append((index, judged[ear].respond, ear.stopping))
            ear.stopping = False
            cut += self._settle(ear)
        return cut

    def _settle(self, ear: Ear) -> list[Said]:
        """Come to the Chunks before which nothing is due any more."""
        cut = []
        while ear.pending and not ear.behind:
            index, respond, stopped = ear.pending.popleft()
            if self._unheard:
                ear.unheard.append((ear.kept - len(ear.pending) - 1, respond))
            if (respond or stopped) and ear.text and ear.text.token != self.config.tokens.text_end:
                cut.append(Said(ear, ear.text.index, (), ended=True, cut=True))
                ear.text = None
            if respond:
                ear.waking = len(ear.unheard)
                chunk = ear.voice.chunks + ear.waking - 1
                known = deque(ear.known.responses.get(index, ()))
                ear.text = Text(index, chunk, self.config.tokens.text_begin, known=known)
            if ear.text:
                ear.text.quota = self.config.words_a_chunk
        return cut

    # --- write ----------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether `write` has something to do before the next Chunks come."""
        return bool(self._said) or any(ear.behind for ear in tuple(self._ears.values()))

    def write(self) -> list[Said]:
        """One short piece of work for as many ears as one batch holds: a few tokens for those that speak.

        It may have nothing to show: `busy` tells whether there is more to do.
        """
        with self._lock:
            self._said += self._work([ear for ear in self._ears.values() if ear.behind])
            return self._tell()

    def write_due(self, ear: Ear) -> list[Said]:
        """The same for this ear alone. It is `behind` until all is written that is due before its next Chunk: of a
        decoder that is BEHIND its ear, the words of so many Chunks, and what wakes it to them."""
        with self._lock:
            if ear.behind:
                self._said += self._work([ear])
            return self._tell()

    def _catch_up(self, ears: Sequence[Ear], allowed: int = 0) -> None:
        """Write what is due before the next Chunks of these ears, until each has nothing due, or fewer than
        `allowed` Chunks to come to."""
        while behind := [ear for ear in ears if ear.behind and len(ear.pending) >= allowed]:
            self._said += self._work(behind)

    def _tell(self) -> list[Said]:
        said, self._said = self._said, []
        return said

    def _work(self, behind: Sequence[Ear]) -> list[Said]:
        """One pass for ears that wake, or a few tokens for those that write: in turn, the furthest behind first."""
        behind = sorted(behind, key=lambda ear: -len(ear.pending))
        waking = [ear for ear in behind if ear.waking][: self._perceive.largest]
        writing = [ear for ear in behind if not ear.waking][: self._perceive.largest]
        self._woke = bool(waking) and not (writing and self._woke)
        if self._woke:
            self._wake(waking)
            return []
        return self._write(writing) if writing else []

    def _wake(self, ears: Sequence[Ear]) -> None:
        """The tier that speaks hears the oldest Chunks that it has not heard: TOGETHER of each ear that has so many, or
        one of each, whichever is for the first ear."""
        assert self._unheard
        together = TOGETHER if ears[0].waking >= TOGETHER else 1
        ears = [ear for ear in ears if ear.waking >= together][: self._decoder.wakes // together]
        control = self._decoder.markers.control
        calls, kept = [], []
        for ear in ears:
            oldest = list(islice(ear.unheard, together))
            controls = [control(responded) for _, responded in oldest]
            calls.append((ear.slot, ear.voice.chunks, ear.voice.control, *controls[:-1]))
            kept.append([(ear.slot, number) for number, _ in oldest])
        self._decoder.wake(calls, self._unheard.of(kept))
        for ear in ears:  # not before: a pass that fails is made again
            for _ in range(together):
                _, responded = ear.unheard.popleft()
                ear.voice.heard(control(responded))
            ear.waking -= together

    def _write(self, ears: Sequence[Ear]) -> list[Said]:
        calls = [(ear, ear.text) for ear in ears if ear.text]
        passes = min(self._passes, max(text.quota for _, text in calls))
        if any(text.known for _, text in calls):
            passes = 1  # its next token is not what the device chooses
        numbers = [(ear.slot, t.token, ear.voice.texts, t.chunk, t.said, t.quota) for ear, t in calls]
        chosen = self._decoder.write(numbers, passes).tolist()
        said = []
        for (ear, text), row in zip(calls, chosen, strict=True):
            if text.known and text.said < self.config.longest:
                row = [text.known.popleft()]
            said += [self._take(ear, text, row), *self._settle(ear)]
        return [words for words in said if words.tokens or words.ended]

    def _take(self, ear: Ear, text: Text, chosen: Iterable[int]) -> Said:
        """Count what the device wrote, as it counted."""
        end = self.config.tokens.text_end
        tokens: list[int] = []
        ended = False
        for token in chosen:
            if not text.quota:
                break
            written, text.token = text.token, token
            text.said += 1
            text.quota -= 1
            ear.voice.texts += 1
            if written == end:
                ear.text = None
                break
            ended = token == end
            if not ended:
                tokens.append(token)
        return Said(ear, text.index, tuple(tokens), ended)
