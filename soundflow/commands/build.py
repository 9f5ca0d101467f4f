"""`offhook soundflow build --config test|compact|FILE DIR`"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from calls.settings import Settings
from soundflow.build import Recipe, build
from soundflow.card import write_card
from soundflow.commands.shared import add_home, bar, material, natural, parser, positive
from soundflow.config import load
from soundflow.errors import SoundflowError
from soundflow.shards import read
from soundflow.streamaudio import to_streamaudio, write_jsonl


def main(arguments: Sequence[str], settings: Settings) -> int:
    options = parser(
        "build",
        "Make streams with labels. Killed or full, run it again: it goes on where it was.",
        "data/test",
        "--config compact --jobs 8 data/compact",
        "--items 100 --streamaudio 20 data/few",
    )
    add_home(options)
    options.add_argument("folder", type=Path, help="where the shards go: empty, new, or begun before")
    options.add_argument("--config", default="test", help="test, compact, or a TOML file (%(default)s)")
    options.add_argument("--seed", type=int, help="another seed than the configuration's")
    options.add_argument("--items", type=positive, help="so many train items; the other splits in proportion")
    options.add_argument(
        "--jobs", type=positive, default=max(1, (os.cpu_count() or 2) - 1), help="processes (%(default)s)"
    )
    options.add_argument(
        "--streamaudio", type=natural, default=0, metavar="N", help="also N items a split as StreamAudio"
    )
    given = options.parse_args(arguments)
    config = load(given.config)
    if given.seed is not None:
        config = replace(config, seed=given.seed)
    if given.items is not None:
        share = given.items / max(1, config.items.get("train", 1))
        config = replace(config, items={split: max(1, round(n * share)) for split, n in config.items.items()})
    recipe = Recipe(config, material(config, given.home, settings))
    for note in recipe.material.clips.notes:
        print(note)
    with bar(f"building {config.name}") as tell:
        build(recipe, given.folder, jobs=given.jobs, progress=tell)
    card = write_card(given.folder, config.name, recipe.material.clips, config.material)
    for split, counts in card.counts.items():
        print(f"{split:<6}{counts.items:>7} items {counts.seconds / 3600:>8.2f} h {counts.responded:>7} responses")
        if given.streamaudio:
            export(given.folder, split, given.streamaudio)
    if card.undrawn:
        print(f"the data card has no pictures: {card.undrawn}")
    print(f"data card: {card.path}")
    if card.shared:
        raise SoundflowError(
            f"heard in more than one split of {given.folder}: {', '.join(card.shared)}. What is measured on it means "
            "nothing: leave these out of one split, and build into another folder"
        )
    return 0


def export(folder: Path, split: str, most: int) -> None:
    """The first items of a split in StreamAudio's shape, with their audio."""
    target = folder / "streamaudio" / split
    target.mkdir(parents=True, exist_ok=True)
    rows = [to_streamaudio(item, target) for item, _ in zip(read(folder, split), range(most), strict=False)]
    write_jsonl(target / "items.jsonl", rows)
