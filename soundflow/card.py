"""The data card of a built folder: what is in it, how it is balanced, whose it is, with pictures."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soundflow import pictures, whole
from soundflow.clips import Clips
from soundflow.items import EITHER, RESPOND, SILENT, SPLITS, Item
from soundflow.shards import read, shard_path
from soundflow.sources import SOURCES
from soundflow.tasks import TASKS

CARD = "README.md"


@dataclass
class Counts:
    """Of one split."""

    items: int = 0
    seconds: float = 0.0
    chunks: Counter[int] = field(default_factory=Counter)  # by label
    turns: int = 0
    responded: int = 0
    silent_items: int = 0  # in which nothing is responded to
    words: int = 0  # of replies
    tasks: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    channels: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    lengths: list[float] = field(default_factory=list)
    begins: list[float] = field(default_factory=list)  # of what is responded to, from the stream's beginning
    sources: set[str] = field(default_factory=set)

    def add(self, item: Item) -> None:
        self.items += 1
        self.seconds += item.seconds
        self.lengths.append(item.seconds)
        for label in (RESPOND, SILENT, EITHER):
            self.chunks[label] += int((item.labels() == label).sum())
        self.turns += sum(not turn.bed for turn in item.turns)
        replies = item.replies()
        self.responded += len(replies)
        self.silent_items += not replies
        self.words += sum(len(text.split()) for _, text in replies.values())
        self.tasks[item.task] += 1
        self.channels[item.channel] += 1
        self.modes[str(item.mode)] += 1
        for turn in item.turns:
            self.labels[f"{turn.label} ({'bed' if turn.bed else 'respond' if turn.respond else 'silent'})"] += 1
            self.sources.update(turn.sources)
            if turn.respond:
                self.begins.append(turn.begin_s)


def count(folder: Path) -> dict[str, Counts]:
    """Of every split that is there. Raises ShardError."""
    made: dict[str, Counts] = {}
    for split in SPLITS:
        if shard_path(folder, split, 0).is_file():
            counts = made[split] = Counts()
            for item in read(folder, split):
                counts.add(item)
    return made


def shared_sources(counts: Mapping[str, Counts], clips: Clips) -> set[str]:
    """Recordings, speakers and voices that are heard in more than one split: there must be none."""
    origin = {clip.id: clip.source for clip in clips.clips}
    seen: dict[str, set[str]] = defaultdict(set)
    for split, counted in counts.items():
        for source in counted.sources:
            if source in origin:
                seen[f"clip {origin[source]}"].add(split)
            elif ":" in source:
                seen[f"voice {source}"].add(split)
    return {source for source, splits in seen.items() if len(splits) > 1}


@dataclass(frozen=True)
class Card:
    """What was written and what it says. `undrawn`: why there are no pictures; "" if there are."""

    path: Path
    counts: Mapping[str, Counts]
    shared: Sequence[str]  # sources that are heard in more than one split
    undrawn: str


def write_card(folder: Path, name: str, clips: Clips, material: Sequence[str]) -> Card:
    """README.md, card.json and pictures, in the folder. Raises ShardError, NotWritten."""
    counts = count(folder)
    undrawn = ""
    try:
        _draw(folder / "pictures", name, counts)
    except pictures.NoPictures as error:
        undrawn = str(error)
    shared = sorted(shared_sources(counts, clips))
    whole.write(folder / "card.json", [json.dumps(_numbers(counts, shared), indent=1).encode()])
    path = folder / CARD
    whole.write(path, [_text(name, counts, clips, material, shared, undrawn).encode()])
    return Card(path, counts, shared, undrawn)


def _draw(plots: Path, name: str, counts: Mapping[str, Counts]) -> None:
    for split, counted in counts.items():
        ordered = {task: float(counted.tasks[task]) for task in TASKS}
        pictures.bars(ordered, plots / f"{split}-tasks.png", f"{name}, {split}: items a sub-task", "items")
        common = {label: float(n) for label, n in counted.labels.most_common(40)}
        pictures.bars(common, plots / f"{split}-labels.png", f"{name}, {split}: what is heard", "turns")
        pictures.histogram(counted.lengths, plots / f"{split}-lengths.png", f"{name}, {split}: streams", "seconds")
        pictures.histogram(
            counted.begins, plots / f"{split}-begins.png", f"{name}, {split}: when what deserves a response begins", "s"
        )


def _numbers(counts: Mapping[str, Counts], shared: Sequence[str]) -> dict[str, Any]:
    return {
        "splits": {
            split: {
                "items": c.items,
                "hours": round(c.seconds / 3600, 3),
                "chunks": {"respond": c.chunks[RESPOND], "silent": c.chunks[SILENT], "either": c.chunks[EITHER]},
                "turns": c.turns,
                "responded": c.responded,
                "silent_items": c.silent_items,
                "reply_words": c.words,
                "tasks": dict(c.tasks),
                "labels": dict(c.labels),
                "channels": dict(c.channels),
                "modes": dict(c.modes),
                "sources": len(c.sources),
            }
            for split, c in counts.items()
        },
        "shared_sources": list(shared),
    }


def _text(
    name: str,
    counts: Mapping[str, Counts],
    clips: Clips,
    material: Sequence[str],
    shared: Sequence[str],
    undrawn: str,
) -> str:
    titles = ("split", "items", "hours", "Chunks to respond", "silent", "either", "items all silent", "sources")
    rows = []
    for split, c in counts.items():
        chunks = (c.chunks[RESPOND], c.chunks[SILENT], c.chunks[EITHER])
        rows.append((split, c.items, f"{c.seconds / 3600:.2f}", *chunks, c.silent_items, len(c.sources)))
    tasks = [(t.name, t.rule, *(c.tasks[t.name] for c in counts.values())) for t in TASKS.values()]
    used = [SOURCES[source] for source in material]
    owned = [f"- {source.name}: {source.about}. {source.licence}. {source.url}" for source in used]
    owned.append("- synthesised sounds, tones and the texts: this project, Apache-2.0")
    owned.append("- voices: as `offhook models list` says; espeak-ng is a separate program (GPL-3.0-or-later)")
    images = [f"![{split} {kind}](pictures/{split}-{kind}.png)" for split in counts for kind in _KINDS]
    leaks = "No recording, speaker or voice is in two splits." if not shared else f"IN TWO SPLITS: {', '.join(shared)}"
    notes = [f"- {note}" for note in clips.notes] or ["- none"]
    parts = [f"# Data card: {name}", _table(titles, rows), leaks, "## Sub-tasks"]
    parts += [_table(("sub-task", "rule", *counts), tasks), "## Whose it is", "\n".join(owned)]
    parts += [
        "## Recordings that were not as expected",
        "\n".join(notes),
        "## Pictures",
        undrawn or "\n\n".join(images),
    ]
    return "\n\n".join(parts) + "\n"


def _table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


_KINDS = ("tasks", "labels", "lengths", "begins")
