"""`python -m model_worker.replay`: decides a recorded call again, with the model that the settings name.

The caller of `offhook replay` writes one line of JSON to its standard input:

    {"instruction": {...},                    calls.model.Instruction
     "recording": "call.wav",                 16 kHz, caller left, human agent right, from second 0 of the call's clock
     "stopped": [["caller", 17], ...]}        Decision.stopped: before them the model was told to end its response

and reads lines of JSON from its standard output: {"model": "...", "chunks": 450}, then one for every Chunk of every
participant that the model hears: {"participant": "caller", "chunk": 0, "choice": "silent", "score": 0.98}.

The Chunks are the very samples that the model had: telephony writes the same Frames to both. Not in a recording are
which Chunks a worker never got, and the recording of an answered call has the voice agent on its right, whom no model
hears.
"""

from __future__ import annotations

import json
import os
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from calls.audio import CHUNK_BYTES, CHUNK_SAMPLES, SAMPLE_BYTES, SAMPLE_RATE, Chunk
from calls.errors import OffhookError
from calls.events import Decided, Event, ResponseClosed, ResponseOpened
from calls.log import setup
from calls.model import Instruction, Role
from calls.settings import Settings
from model_worker.chosen import bound_threads, load_to_decide_again

if TYPE_CHECKING:
    from model_worker.stream import Model

CHANNELS = (Role.CALLER, Role.HUMAN_AGENT)  # left, right
CALL = "replay"


class ReplayError(OffhookError):
    """The call cannot be decided again."""


class Tracks:
    """A recording, Chunk by Chunk, as telephony cut it while it was live."""

    def __init__(self, path: Path) -> None:
        """Raises ReplayError."""
        try:
            with wave.open(str(path)) as file:
                shape = (file.getnchannels(), file.getframerate(), file.getsampwidth())
                if shape != (len(CHANNELS), SAMPLE_RATE, SAMPLE_BYTES):
                    raise ReplayError(f"{path} is no recording of offhook: 16 kHz, 16 bits, two channels")
                frames = file.readframes(file.getnframes())
        except (OSError, EOFError, wave.Error) as error:
            raise ReplayError(f"{path} cannot be read: {error}") from error
        whole = frames[: len(frames) // (2 * SAMPLE_BYTES) * 2 * SAMPLE_BYTES]
        self._pcm = np.frombuffer(whole, "<i2").reshape(-1, len(CHANNELS))

    def __len__(self) -> int:
        """Chunks. The last one is filled up with silence."""
        return -(-len(self._pcm) // CHUNK_SAMPLES)

    def chunk(self, role: Role, index: int) -> bytes:
        part = self._pcm[index * CHUNK_SAMPLES : (index + 1) * CHUNK_SAMPLES, CHANNELS.index(role)]
        return part.tobytes().ljust(CHUNK_BYTES, b"\0")


def decide_again(
    model: Model, instruction: Instruction, tracks: Tracks, stopped: set[tuple[str, int]]
) -> Iterator[Decided]:
    """Every Decision, in the order of the Chunks."""
    from model_worker.stream import Past

    decided: list[Decided] = []
    speaking: dict[str, str] = {}  # response under way -> participant

    def emit(event: Event) -> None:
        match event:
            case Decided():
                decided.append(event)
            case ResponseOpened():
                speaking[event.response_id] = event.participant_id
            case ResponseClosed():
                speaking.pop(event.response_id, None)

    stream = model.open(CALL, instruction, emit, Past())
    heard = [p for p in instruction.participants if p.role in CHANNELS]
    for index in range(len(tracks)):
        for response_id, participant_id in list(speaking.items()):
            if (participant_id, index) in stopped:
                model.cancel(stream, response_id)
        model.step([(stream, Chunk(CALL, p.id, index, tracks.chunk(p.role, index))) for p in heard])
        while model.respond():
            pass
        yield from decided
        decided.clear()
    model.close(stream)


def main() -> int:
    setup("WARNING", "replay")
    bound_threads()
    try:
        asked = json.loads(sys.stdin.readline())
        instruction = msgspec.convert(asked["instruction"], Instruction)
        tracks = Tracks(Path(asked["recording"]))
        model = load_to_decide_again(Settings(), os.environ)
        _say(model=model.name, chunks=len(tracks))
        stopped = {(str(participant), int(chunk)) for participant, chunk in asked["stopped"]}
        for one in decide_again(model, instruction, tracks, stopped):
            _say(participant=one.participant_id, chunk=one.chunk, choice=one.choice.value, score=round(one.score, 3))
    except OffhookError as error:
        print(f"replay: {error}", file=sys.stderr)
        return 1
    except (ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
        print(f"replay: not what is wanted on standard input: {error!r}", file=sys.stderr)
        return 2
    return 0


def _say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    # The models' threads need not be waited for.
    status = main()
    sys.stdout.flush()
    os._exit(status)
