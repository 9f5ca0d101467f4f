"""`offhook soundflow tasks [--samples DIR]`"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from calls.settings import Settings
from soundflow import whole
from soundflow.build import Recipe, make_item
from soundflow.commands.shared import add_home, bar, material, parser
from soundflow.config import load
from soundflow.items import Item
from soundflow.pictures import NoPictures, item_picture
from soundflow.streamaudio import write_wav
from soundflow.tasks import TASKS, find

_TRIES = 12


def main(arguments: Sequence[str], settings: Settings) -> int:
    options = parser(
        "tasks",
        "List the sub-tasks of the seven abilities; write a sample of each to hear and see.",
        "--samples samples",
        "proactive/safety-sound instructions/count --samples samples --seed 2",
    )
    add_home(options)
    options.add_argument("names", nargs="*", help="only these")
    options.add_argument("--samples", type=Path, metavar="DIR", help="write NAME.wav, NAME.json and NAME.png for each")
    options.add_argument("--config", default="test", help="what the samples are made from (%(default)s)")
    options.add_argument("--seed", type=int, default=1, help="another seed, other samples")
    options.add_argument("--json", action="store_true", help="the list for a program")
    given = options.parse_args(arguments)
    chosen = [find(name) for name in given.names] or list(TASKS.values())
    if given.json:
        print(json.dumps([{"name": t.name, "ability": t.ability, "rule": t.rule} for t in chosen], indent=1))
    else:
        ability = ""
        for task in chosen:
            if task.ability != ability:
                ability = task.ability
                print(f"\n{ability}")
            print(f"  {task.name:<33}{task.rule}")
    if given.samples:
        config = replace(load(given.config), seed=given.seed, long_share=0.0)
        recipe = Recipe(config, material(config, given.home, settings))
        given.samples.mkdir(parents=True, exist_ok=True)
        pictures = True
        with bar("samples") as tell:
            for number, task in enumerate(chosen):
                pictures &= write_sample(sample(recipe, task.name), given.samples)
                tell(number + 1, len(chosen), task.name)
        if not pictures:
            print("no pictures of the samples: pip install 'offhook[soundflow]'", file=sys.stderr)
    return 0


def sample(recipe: Recipe, name: str) -> Item:
    """An item of a sub-task in which something is responded to, if one comes soon."""
    config = replace(recipe.config, weights={**dict.fromkeys(TASKS, 0.0), name: 1.0})
    only = Recipe(config, recipe.material)
    for number in range(_TRIES):
        item = make_item(only, "train", number)
        if item.replies():
            break
    return item


def write_sample(item: Item, folder: Path) -> bool:
    """NAME.wav, NAME.json and NAME.png. False: without the picture, for want of matplotlib."""
    stem = item.task.replace("/", "-")
    write_wav(folder / f"{stem}.wav", item.audio)
    told = {**item.meta(), "labels": item.labels().tolist()}
    whole.write(folder / f"{stem}.json", [json.dumps(told, indent=1, ensure_ascii=False).encode()])
    try:
        item_picture(item, folder / f"{stem}.png")
    except NoPictures:
        return False
    return True
