"""Decisions packed for the database: two bytes a Chunk.

Byte 0: the choice in its low 3 bits (0 = nothing was decided, 1.. = Choice in its own order), bit 6 = stopped, bit 7 =
late.
Byte 1: the score, 0..255 for 0..1. Chunk n of minute m stands at offset 2 * (n - 150 * m).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from calls.model import Choice, Decision

CHUNKS_A_MINUTE = 150
_CODES = {choice: code for code, choice in enumerate(Choice, start=1)}
_CHOICES = {code: choice for choice, code in _CODES.items()}
_STOPPED, _LATE = 0x40, 0x80


def pack(minute: int, decisions: Iterable[Decision]) -> bytes:
    """One minute of one participant's decisions, cut after the last; of other minutes: ValueError."""
    trace = bytearray(2 * CHUNKS_A_MINUTE)
    end = 0
    for decision in decisions:
        place = decision.chunk - minute * CHUNKS_A_MINUTE
        if not 0 <= place < CHUNKS_A_MINUTE:
            raise ValueError(f"chunk {decision.chunk} is not in minute {minute}")
        flags = (_LATE if decision.late else 0) | (_STOPPED if decision.stopped else 0)
        trace[2 * place] = _CODES[decision.choice] | flags
        trace[2 * place + 1] = round(255 * min(max(decision.score, 0.0), 1.0))
        end = max(end, 2 * place + 2)
    return bytes(trace[:end])


def unpack(participant_id: str, minute: int, trace: bytes) -> Iterator[Decision]:
    """The decisions in a packed minute; Chunks for which nothing was decided are left out."""
    for place in range(len(trace) // 2):
        code, score = trace[2 * place], trace[2 * place + 1]
        choice = _CHOICES.get(code & 0x07)
        if choice is not None:
            chunk, late, stopped = minute * CHUNKS_A_MINUTE + place, bool(code & _LATE), bool(code & _STOPPED)
            yield Decision(participant_id, chunk, choice, score / 255, late, stopped)
