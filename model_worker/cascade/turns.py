"""When has the caller finished? A judgement of words, prosody and silence together; pure.

A finished question ends sooner than a statement, and a number that is being spelled waits. The pause asked for is
counted from the last voiced sample, so a turn may end in the middle of a Chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_worker.cascade import words

ASK_AFTER_S = 0.06  # so much silence, and the turn is looked at: what follows costs nothing if it goes on
SHORTEST_S = 0.2  # no turn ends before this
LONGEST_S = 1.4
FINISHED = 0.7  # prosody from which a comma, or a preposition at the end, is not believed


@dataclass(frozen=True, slots=True)
class Judgement:
    """`pause_s`: the silence after which the turn is over; `score`: how sure of it we are, 0..1."""

    pause_s: float
    score: float


def judge(text: str, prosody: float) -> Judgement:
    """`text` is the turn so far, `prosody` the probability that it sounds complete (turn_end.py)."""
    sounds_finished = prosody >= FINISHED
    complete = words.completeness(text, sounds_finished)
    score = (complete + prosody) / 2
    if words.is_spelling(text):
        return Judgement(LONGEST_S, score)
    if words.is_closing(text):
        return Judgement(0.3, max(score, 0.8))
    if words.is_dangling(text, sounds_finished):
        return Judgement(1.2, score)
    if complete >= 0.9 and prosody >= 0.5:
        return Judgement(SHORTEST_S, score)
    if score >= 0.7:
        return Judgement(0.3, score)
    if score >= 0.5:
        return Judgement(0.55, score)
    return Judgement(0.9, score)
