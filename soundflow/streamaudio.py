"""An Item as StreamAudio has it (arXiv 2606.05121, StreamAudio-2M), and back.

    {"id": ..., "scene": ..., "turns": [{"user": ..., "assistant": ..., "emotion": ..., "scene": ..., "audio": PATH}]}

Each turn's audio runs from the end of the turn before it to its own end, so the files joined are the stream; the quiet
tail is a last turn without words. An empty `assistant` means: no need to respond. What that shape cannot say (where in
its file a turn begins, the instruction, the split) stands under "offhook"; where that is missing it is guessed.
"""

from __future__ import annotations

import json
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from calls.audio import CHUNK_SAMPLES, SAMPLE_RATE
from calls.model import Mode
from soundflow import whole
from soundflow.errors import SoundflowError
from soundflow.items import Audio, Item, Split, Turn


def to_streamaudio(item: Item, folder: Path) -> dict[str, Any]:
    """Write the turns' WAV files under `folder`/<id>/ and return the item; the paths in it are relative to `folder`."""
    turns, begin = [], 0
    (folder / item.id).mkdir(parents=True, exist_ok=True)
    for number, turn in enumerate(sorted((turn for turn in item.turns if not turn.bed), key=lambda turn: turn.end_s)):
        end = (turn.last_chunk + 1) * CHUNK_SAMPLES
        path = _write(folder, item.id, number, item.audio[begin:end])
        begin = end
        turns.append(_turn(turn.heard, turn.reply, turn.emotion, item.scene, path))
    turns.append(_turn("", "", "normal", item.scene, _write(folder, item.id, len(turns), item.audio[begin:])))
    return {"id": item.id, "scene": item.scene, "turns": turns, "offhook": item.meta()}


def from_streamaudio(raw: Mapping[str, Any], folder: Path, split: Split = "train") -> Item:
    """Read an item, ours or another's. Raises SoundflowError, which names it, when something is missing or wrong."""
    name = str(raw.get("id", "?"))
    try:
        pieces = [_read(folder / turn["audio"]) if turn["audio"] else np.zeros(0, np.int16) for turn in raw["turns"]]
        if "offhook" in raw:
            return Item.from_meta(raw["offhook"], np.concatenate(pieces))
        return _guess(raw, pieces, split)
    except (KeyError, TypeError, ValueError) as error:
        raise SoundflowError(f"StreamAudio item {name}: {type(error).__name__} {error}") from error


def _guess(raw: Mapping[str, Any], pieces: list[Audio], split: Split) -> Item:
    """Of an item without our own part: a turn fills its file; files are padded to whole Chunks."""
    turns, audio, begin = [], [], 0
    for piece, turn in zip(pieces, raw["turns"], strict=True):
        padded = np.pad(piece, (0, -len(piece) % CHUNK_SAMPLES))
        audio.append(padded)
        end = begin + len(piece)
        if turn["user"] or turn["assistant"]:
            reply = turn["assistant"]
            emotion = turn.get("emotion") or "normal"
            times = (begin / SAMPLE_RATE, end / SAMPLE_RATE)
            turns.append(Turn("streamaudio", *times, bool(reply), turn["user"], "speech", reply, emotion))
        begin += len(padded)
    joined = np.concatenate(audio)
    scene = str(raw.get("scene", ""))
    return Item(str(raw["id"]), "streamaudio", Mode.ANSWER, "", joined, tuple(turns), split, 0, scene)


def _turn(user: str, assistant: str, emotion: str, scene: str, audio: str) -> dict[str, str]:
    return {"user": user, "assistant": assistant, "emotion": emotion, "scene": scene, "audio": audio}


def _write(folder: Path, item: str, number: int, audio: Audio) -> str:
    """A WAV file of a turn; "" if there is nothing to write because two turns end together."""
    if not len(audio):
        return ""
    path = f"{item}/{number:02d}.wav"
    write_wav(folder / path, audio)
    return path


def write_wav(path: Path, audio: Audio) -> None:
    """16 kHz mono. Raises NotWritten."""
    with whole.writing(path) as partial, wave.open(str(partial), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(audio.astype("<i2").tobytes())


def _read(path: Path) -> Audio:
    try:
        with wave.open(str(path)) as file:
            if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (SAMPLE_RATE, 1, 2):
                raise SoundflowError(f"{path} is not 16 kHz, mono, 16 bits")
            return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)
    except (OSError, wave.Error, EOFError) as error:
        raise SoundflowError(f"{path} cannot be read: {error}") from error


def write_jsonl(path: Path, items: list[dict[str, Any]]) -> None:
    whole.write(path, (json.dumps(item, ensure_ascii=False).encode() + b"\n" for item in items))
