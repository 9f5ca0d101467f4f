"""What an earlier worker's model did on a call that is taken over, as this worker's model is told it.

Of the Chunks that are heard again the Decisions are taken from the call's story, and of the responses the words as far
as they are known: so that the model remembers what it did and said, each once, and not what it would do now. Of what
was said before those Chunks there are only the words.

What was not given to the end is: a response that was being written goes on, one that was decided and not begun is
written now. Both only if that was a moment ago (Past.fresh).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from calls.audio import CHUNK_S
from calls.model import Mode
from model_worker.interaction.ears import Known
from model_worker.interaction.instruction import words_of
from model_worker.interaction.tokens import EMOTIONS, Tokens
from model_worker.stream import At, Fate, Past, PastResponse


@dataclass(frozen=True, slots=True)
class Retold:
    """A response to a Chunk that is heard again."""

    muted: bool  # it is dealt with: no word of it is given out again
    unwanted: bool  # it ends before the first Chunk that is new, if it has not ended
    given: PastResponse | None  # what was given out of it


@dataclass(frozen=True, slots=True)
class Earlier:
    """About one participant. Empty for a new call."""

    said: list[list[int]] = field(default_factory=list)  # before what is heard again: words of each response
    known: Known = field(default_factory=Known)
    retold: dict[int, Retold] = field(default_factory=dict)  # by Chunk
    stopped: frozenset[int] = frozenset()  # Chunks before which policy ended a response
    written_until_s: float = 0.0  # the end of the last utterance


def recall(past: Past, mode: Mode, participant_id: str, table: Tokens, tokenizer: Tokenizer) -> Earlier:
    """What is to be known of one participant of a call of this mode."""

    def mine(places: Iterable[At]) -> list[int]:
        return [chunk for who, chunk in places if who == participant_id]

    until = max(mine(past.decided), default=-1)
    first = min(mine(past.again), default=until + 1)
    fresh = min(mine(past.fresh), default=until + 1)
    spoken = [u for u in past.utterances if u.participant_id == participant_id]
    written_until_s = max((u.end_s for u in spoken), default=0.0)
    if mode is Mode.TRANSCRIBE:
        fresh = _chunk(written_until_s) + 1  # what is not written is never too late
        # Whether it ended or was cut is not kept: the model may choose again what follows its words.
        known = [PastResponse(u.id, participant_id, _chunk(u.end_s), text=u.text, fate=Fate.CUT) for u in spoken]
    else:
        known = [response for response in past.responses if response.participant_id == participant_id]
    begun = {response.chunk: response for response in known}

    retold, tokens = {}, {}
    for chunk in {*mine(past.responded), *begun}:
        if chunk < first:
            continue
        given = begun.get(chunk)
        if given is None:
            late = chunk < fresh  # or without a word from the beginning
            retold[chunk] = Retold(late, False, None)
            tokens[chunk] = [table.text_end] if late else []
        else:
            retold[chunk] = Retold(given.fate is not Fate.TORN, given.fate is Fate.UNWANTED, given)
            end = [table.text_end] if given.fate is Fate.FINISHED else []
            tokens[chunk] = _words(given, table, tokenizer) + end
    said = [_words(response, table, tokenizer) for chunk, response in begun.items() if chunk < first and response.text]
    return Earlier(said, Known(until, tokens), retold, frozenset(mine(past.stopped)), written_until_s)


def _words(response: PastResponse, table: Tokens, tokenizer: Tokenizer) -> list[int]:
    """With the emotion in front. That of a transcript is not kept."""
    emotion = response.emotion if response.emotion in EMOTIONS else "normal"
    return [getattr(table, emotion), *words_of(response.text, tokenizer)]


def _chunk(end_s: float) -> int:
    """The Chunk that ends then."""
    return round(end_s / CHUNK_S) - 1
