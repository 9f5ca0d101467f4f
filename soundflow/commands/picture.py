"""`offhook soundflow picture CLIP` and `offhook soundflow picture --item N --split train FOLDER`"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from calls.settings import Settings
from soundflow.clips import decode
from soundflow.commands.shared import length, natural, parser, png
from soundflow.errors import SoundflowError
from soundflow.items import SPLITS
from soundflow.pictures import item_picture, steps_picture
from soundflow.preprocess import steps
from soundflow.shards import read


def main(arguments: Sequence[str], settings: Settings) -> int:
    options = parser(
        "picture",
        "What preprocessing does to a clip, step by step; or a stream with its labels.",
        "dog.ogg",
        "--item 7 --split dev data/test",
    )
    options.add_argument("path", type=Path, help="a recording, or with --item a built folder")
    options.add_argument("--out", type=png, help="the PNG file; NAME.png here if not said")
    options.add_argument("--seconds", type=length, default=3.0, help="of sound to keep (%(default)s)")
    options.add_argument("--item", type=natural, help="the number of an item in a built folder")
    options.add_argument("--split", choices=SPLITS, default="train", help="of the built folder (%(default)s)")
    given = options.parse_args(arguments)
    if given.item is None:
        pcm, notes = decode(given.path)
        for note in notes:
            print(f"{given.path}: {note}")
        made = steps(pcm, given.seconds)
        for step in made:
            print(f"{step.name:<10}{step.note}")
        out = given.out or Path(f"{given.path.stem}.png")
        steps_picture(made, out, given.path.name)
    else:
        item = next(islice(read(given.path, given.split), given.item, None), None)
        if item is None:
            raise SoundflowError(f"{given.path} has no {given.split} item {given.item}")
        out = given.out or Path(f"{item.id}.png")
        item_picture(item, out)
    print(out)
    return 0
