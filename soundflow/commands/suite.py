"""`offhook soundflow suite FOLDER MANIFEST`: streams that were built, as `offhook eval` wants them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from calls.audio import CHUNK_S
from calls.model import Mode
from calls.settings import Settings
from soundflow import whole
from soundflow.commands.shared import bar, parser
from soundflow.errors import SoundflowError
from soundflow.items import Item
from soundflow.policy import sound
from soundflow.shards import shards
from soundflow.streamaudio import write_wav

KINDS = {Mode.ASSIST: "instruction", Mode.ANSWER: "chat", Mode.TRANSCRIBE: "recognition"}


def main(arguments: Sequence[str], settings: Settings) -> int:
    options = parser(
        "suite",
        "The streams of one split as a manifest and WAV files for offhook eval --manifest.",
        "data/test test.jsonl",
    )
    options.add_argument("folder", type=Path, help="shards, of build or wake")
    options.add_argument("manifest", type=Path, help="FILE.jsonl; its audio goes into a folder FILE beside it")
    options.add_argument("--split", choices=("test", "dev", "train"), default="test", help="(%(default)s)")
    given = options.parse_args(arguments)
    found = shards(given.folder, given.split)
    if given.manifest.suffix != ".jsonl":
        raise SoundflowError(f"{given.manifest}: the manifest's name must end in .jsonl")
    audio = given.manifest.with_suffix("")
    audio.mkdir(parents=True, exist_ok=True)
    lines, left = [], 0
    with bar(f"{given.split} streams") as tell:
        for number, shard in enumerate(found, start=1):
            for item in shard:
                if told := line(item, f"{audio.name}/{item.id}.wav"):
                    write_wav(audio / f"{item.id}.wav", item.audio)
                    lines.append(json.dumps(told, ensure_ascii=False))
                else:
                    left += 1
            tell(number, len(found), "")
    if not lines:
        raise SoundflowError(f"no stream of {given.folder} has anything in it that could be right or wrong")
    whole.write(given.manifest, [f"{told}\n".encode() for told in lines])
    if left:
        print(f"{left} streams are left out: nothing in them to judge, or Turns that overlap")
    print(f"{given.manifest}: {len(lines)} streams. offhook eval --manifest {given.manifest} --model interaction:DIR")
    return 0


def line(item: Item, audio: str) -> dict[str, Any] | None:
    """One line of the manifest. None for a stream without Turns, and where a manifest could not say what is right:
    nobody knows at some Chunks, or Turns overlap. A bed is not told of: what is expected are the events over it."""
    turns = sorted((turn for turn in item.turns if not turn.bed), key=lambda turn: (turn.begin_s, turn.end_s))
    events: list[dict[str, Any]] = []
    if item.unscored or any(after.begin_s < turn.end_s for turn, after in pairwise(turns)):
        return None
    for turn in turns:
        expect = "respond" if turn.respond else "silent"
        event: dict[str, Any] = {"at_s": turn.begin_s, "end_s": turn.end_s, "expect": expect}
        if turn.respond and not turn.early:
            event["respond_after_s"] = max(turn.begin_s, round(turn.end_s - CHUNK_S, 3))
        if sound(turn.label):
            event["label"] = turn.label
        if turn.respond:
            event["text" if item.mode is Mode.TRANSCRIBE else "reply"] = turn.reply
        events.append(event)
    if not events:
        return None
    told: dict[str, Any] = {"audio": audio, "kind": KINDS[item.mode], "mode": item.mode.value, "task": item.task}
    if item.instruction:
        told["instruction"] = item.instruction
    return {**told, "events": events}
