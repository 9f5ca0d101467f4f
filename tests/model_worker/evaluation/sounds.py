"""Short synthetic audio, and a model that follows a simple rule."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calls.audio import CHUNK_S, SAMPLE_RATE, Chunk
from calls.events import Decided, ResponseClosed, ResponseDelta, ResponseOpened, Uttered
from calls.model import Answer, Choice, Instruction, Mode, Utterance
from model_worker.stream import Emit, Past, Stream, silent

Pcm = npt.NDArray[np.int16]
LOUD = 1_000


def tone(seconds: float, rate: int = SAMPLE_RATE, hertz: float = 440.0, level: float = 0.3) -> Pcm:
    at = np.arange(round(seconds * rate)) / rate
    return np.rint(np.sin(2 * np.pi * hertz * at) * level * 32767).astype(np.int16)


def quiet(seconds: float) -> Pcm:
    return np.zeros(round(seconds * SAMPLE_RATE), np.int16)


def save(path: Path, pcm: Pcm, rate: int = SAMPLE_RATE, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.tobytes())
    return path


@dataclass(slots=True)
class LoudStream:
    call_id: str
    instruction: Instruction
    emit: Emit
    chunks: list[bytes] = field(default_factory=list)
    was_loud: bool = False
    owed: list[tuple[str, str]] = field(default_factory=list)  # responses that are not written yet
    rough: Utterance | None = None


class LoudModel:
    """Responds at the first Chunk of every loud stretch, with the words of its instruction. Asked to transcribe, it
    decides so at every loud Chunk, and has an utterance at the end of the stretch, which it corrects on closing."""

    name = "loud"
    transcribes = True

    def __init__(self) -> None:
        self.streams: dict[str, LoudStream] = {}
        self.together: list[int] = []  # the size of every batch
        self.closed: list[str] = []

    def prepare(self, instruction: Instruction) -> None:
        return None

    def open(self, call_id: str, instruction: Instruction, emit: Emit, past: Past) -> LoudStream:
        stream = self.streams[call_id] = LoudStream(call_id, instruction, emit)
        return stream

    def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
        self.together.append(len(batch))
        for stream, chunk in batch:
            assert isinstance(stream, LoudStream)
            assert chunk.index == len(stream.chunks)
            stream.chunks.append(chunk.pcm)
            self._decide(stream, chunk)

    def _decide(self, stream: LoudStream, chunk: Chunk) -> None:
        samples = np.frombuffer(chunk.pcm, "<i2").astype(np.float64)
        loud, was_loud = float(np.sqrt(np.mean(samples**2))) > LOUD, stream.was_loud
        stream.was_loud = loud
        mode = stream.instruction.mode
        if mode is Mode.TRANSCRIBE and was_loud and not loud:
            self._write(stream, chunk)
        if not loud or (mode is not Mode.TRANSCRIBE and was_loud):
            stream.emit(silent(chunk))
            return
        choice = Choice(mode.value)
        if mode is not Mode.TRANSCRIBE:
            stream.owed.append((f"r{chunk.index}", stream.instruction.text))
            stream.emit(
                ResponseOpened(
                    call_id=stream.call_id,
                    response_id=f"r{chunk.index}",
                    choice=choice,
                    participant_id=chunk.participant_id,
                    chunk=chunk.index + 1,  # the Chunk that begins now
                    score=1.0,
                    trigger_s=chunk.end_s,
                    heard="",
                    confidence=1.0,
                )
            )
        stream.emit(
            Decided(
                call_id=stream.call_id,
                participant_id=chunk.participant_id,
                chunk=chunk.index,
                choice=choice,
                score=1.0,
            )
        )

    def respond(self) -> bool:
        for stream in self.streams.values():
            if stream.owed:
                response_id, text = stream.owed.pop(0)
                delta = ResponseDelta(call_id=stream.call_id, response_id=response_id, seq=0, text=text[:3])
                stream.emit(delta)
                stream.emit(ResponseClosed(call_id=stream.call_id, response_id=response_id, text=text))
                return True
        return False

    def _write(self, stream: LoudStream, chunk: Chunk) -> None:
        until_s = chunk.start_s
        stream.rough = Utterance(f"u{chunk.index}", chunk.participant_id, until_s - CHUNK_S, until_s, "helo wrld")
        stream.emit(Uttered(call_id=stream.call_id, utterance=stream.rough))

    def hear_answer(self, stream: Stream, answer: Answer) -> None:
        return None

    def cancel(self, stream: Stream, response_id: str) -> None:
        return None

    def close(self, stream: Stream) -> None:
        assert isinstance(stream, LoudStream)
        self.closed.append(stream.call_id)
        if stream.rough is not None:
            better = replace(stream.rough, text="hello world", revision=1)
            stream.emit(Uttered(call_id=stream.call_id, utterance=better))

    def load(self) -> float:
        return 0.0
