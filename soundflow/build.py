"""Building: every item by its number, every shard by its numbers, in as many processes as wanted.

An item depends on the configuration's seed, its split and its number, and on nothing else: not on the order in which
shards are made, nor on how many processes make them, nor on whether an earlier run was killed. A folder remembers what
it was begun with, and goes on only with the same.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from soundflow import shards, whole
from soundflow.channel import draw_channel
from soundflow.compose import compose
from soundflow.config import Config
from soundflow.errors import SoundflowError
from soundflow.items import SPLITS, Item, Split
from soundflow.material import Material
from soundflow.speech import NotUnderstood
from soundflow.tasks import TASKS, Draw

BEGUN = "build.json"
_GOLDEN = 0.6180339887498949
_TRIES = 8  # contents, until one can be spoken so that it is understood

Progress = Callable[[int, int, str], None]
"""(items done, items in all, what was just done)"""


@dataclass(frozen=True)
class Recipe:
    """All that an item is made from."""

    config: Config
    material: Material

    def told(self) -> dict[str, Any]:
        """What must not change while a folder is being filled, as JSON has it."""
        told = {
            "config": self.config.as_dict(),
            "clips": self.material.clips.fingerprint(),
            "synthesise": list(self.material.synthesise),
        }
        return dict(json.loads(json.dumps(told)))


def make_item(recipe: Recipe, split: Split, number: int) -> Item:
    """The item of a number. Raises SoundflowError, also if nothing that it could say is understood."""
    config = recipe.config
    seed = _hash(config.seed, split, number)
    name = task_of(config, split, number)
    for attempt in range(_TRIES):
        rng = np.random.default_rng([seed, attempt])
        content = np.random.default_rng(_hash(config.seed, split, name, int(rng.integers(config.pool))))
        long = rng.random() < config.long_share
        seconds = float(rng.uniform(*(config.long_seconds if long else config.seconds)))
        draw = Draw(name, split, recipe.material, rng, content, seconds)
        try:
            plan = TASKS[name].make(draw)
        except NotUnderstood:
            if attempt == _TRIES - 1:
                raise
            continue
        bed = recipe.material.bed(rng, split, quiet=plan.quiet)
        channel = draw_channel(rng, config.phone_share, config.clean_share)
        return compose(plan, bed, channel, split, seed, rng, f"{split}-{number:06d}")
    raise AssertionError("unreachable")


def task_of(config: Config, split: Split, number: int) -> str:
    """The sub-task of an item's number: by weight, and evenly spread over the numbers."""
    shares = config.shares()
    begin = _hash(config.seed, split) / 2**63
    place = (begin + number * _GOLDEN) % 1.0 * sum(shares.values())
    for name, share in shares.items():
        place -= share
        if place < 0:
            return name
    return next(reversed(shares))


def make_shard(recipe: Recipe, folder: Path, split: Split, shard: int) -> int:
    """Make and write one shard. Returns how many items it has. Raises SoundflowError."""
    first = shard * recipe.config.per_shard
    last = min(first + recipe.config.per_shard, recipe.config.items[split])
    items = [make_item(recipe, split, number) for number in range(first, last)]
    shards.write(folder, split, shard, items)
    return len(items)


def build(recipe: Recipe, folder: Path, *, jobs: int = 1, progress: Progress | None = None) -> None:
    """Fill a folder with all shards that it lacks. Raises SoundflowError; what is finished by then is kept."""
    tell = progress or (lambda done, total, what: None)
    begin(recipe, folder)
    total = sum(recipe.config.items.get(split, 0) for split in SPLITS)
    missing, done = [], 0
    for split in SPLITS:
        for shard in range(recipe.config.shards(split)):
            if shards.finished(shards.shard_path(folder, split, shard)):
                done += min(recipe.config.per_shard, recipe.config.items[split] - shard * recipe.config.per_shard)
            else:
                missing.append((split, shard))
    tell(done, total, "found" if done else "begun")
    if jobs <= 1 or len(missing) <= 1:
        for split, shard in missing:
            done += make_shard(recipe, folder, split, shard)
            tell(done, total, f"{split} {shard}")
        return
    _in_processes(recipe, folder, missing, jobs, lambda made, what: tell(done + made, total, what))


def _in_processes(
    recipe: Recipe, folder: Path, missing: list[tuple[Split, int]], jobs: int, tell: Callable[[int, str], None]
) -> None:
    """The shards of `missing`, in new processes; `tell(items made so far, what)`. The first error ends it."""
    made, todo = 0, list(reversed(missing))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_begin_worker, initargs=(recipe, folder)) as pool:
        running: dict[Future[int], tuple[Split, int]] = {}
        try:
            while todo or running:
                while todo and len(running) < 2 * jobs:
                    split, shard = todo.pop()
                    running[pool.submit(_shard_of_worker, split, shard)] = (split, shard)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    split, shard = running.pop(future)
                    made += future.result()
                    tell(made, f"{split} {shard}")
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_worker: list[tuple[Recipe, Path]] = []
"""What this process makes shards from: sent once when it begins, not with every shard."""


def _begin_worker(recipe: Recipe, folder: Path) -> None:
    _worker[:] = [(recipe, folder)]
    if hasattr(os, "nice"):
        os.nice(5)


def _shard_of_worker(split: Split, shard: int) -> int:
    recipe, folder = _worker[0]
    return make_shard(recipe, folder, split, shard)


def begin(recipe: Recipe, folder: Path) -> None:
    """Make the folder ready, or see that it was begun with the same recipe. Raises SoundflowError."""
    path = folder / BEGUN
    if not path.is_file() and folder.is_dir() and not all(map(whole.is_partial, folder.iterdir())):
        raise SoundflowError(f"{folder} holds something else; build into an empty or a new folder")
    if shards.begin(path, recipe.told()):
        whole.sweep(folder)


def _hash(*parts: object) -> int:
    """63 bits that are the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
