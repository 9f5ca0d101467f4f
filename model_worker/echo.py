"""A model that does nothing: it decides `silent` for every Chunk. For the benchmarks of the media plane and the bus,
and for tests of the worker; it also shows how little a Model has to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calls.audio import Chunk
from calls.model import Answer, Instruction
from model_worker.stream import Emit, Past, Stream, silent


@dataclass(slots=True)
class EchoStream:
    call_id: str
    emit: Emit
    going_on: frozenset[str] = frozenset()


class EchoModel:
    """Hears everything and says nothing."""

    name = "echo"
    transcribes = False
    hears_all_again = False

    def prepare(self, instruction: Instruction) -> None:
        return None

    def open(self, call_id: str, instruction: Instruction, emit: Emit, past: Past) -> EchoStream:
        return EchoStream(call_id, emit)

    def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
        for stream, chunk in batch:
            assert isinstance(stream, EchoStream)
            stream.emit(silent(chunk))

    def respond(self) -> bool:
        return False

    def hear_answer(self, stream: Stream, answer: Answer) -> None:
        return None

    def cancel(self, stream: Stream, response_id: str) -> None:
        return None

    def close(self, stream: Stream) -> None:
        return None

    def load(self) -> float:
        return 0.0
