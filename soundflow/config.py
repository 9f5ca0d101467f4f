"""What to build: a TOML file of this package's `configs`, or one's own."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from soundflow.errors import SoundflowError
from soundflow.items import SPLITS, Split
from soundflow.speech import Cast
from soundflow.tasks import TASKS

FOLDER = Path(__file__).with_name("configs")


@dataclass(frozen=True)
class Config:
    """See configs/test.toml for what each means."""

    name: str
    seed: int
    per_shard: int
    seconds: tuple[float, float]
    long_share: float
    long_seconds: tuple[float, float]
    pool: int
    material: tuple[str, ...]
    items: Mapping[str, int]
    cast: Cast
    check: bool
    phone_share: float
    clean_share: float
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        for name, (low, high) in (("seconds", self.seconds), ("long_seconds", self.long_seconds)):
            if not 2.0 <= low <= high:
                raise SoundflowError(f"config {self.name}: {name} must be two numbers from 2 on, the smaller first")
        if self.per_shard < 1 or self.pool < 1 or any(self.items.get(split, 0) < 0 for split in SPLITS):
            raise SoundflowError(f"config {self.name}: per_shard and pool are at least 1, items never negative")
        if unknown := sorted(set(self.items) - set(SPLITS)):
            raise SoundflowError(f"config {self.name}: no split {', '.join(unknown)}; there are {', '.join(SPLITS)}")
        known = {*TASKS, *(task.ability for task in TASKS.values())}
        if unknown := sorted(set(self.weights) - known):
            raise SoundflowError(f"config {self.name}: no sub-task or ability {', '.join(unknown)}")
        if sum(self.shares().values()) <= 0:
            raise SoundflowError(f"config {self.name}: every sub-task has the weight 0")

    def shares(self) -> dict[str, float]:
        """Sub-task -> weight: its own, or its ability's, or 1."""
        return {
            name: float(self.weights.get(name, self.weights.get(task.ability, 1.0))) for name, task in TASKS.items()
        }

    def shards(self, split: Split) -> int:
        return -(-self.items.get(split, 0) // self.per_shard)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def load(name: str) -> Config:
    """By name (`test`, `compact`) or by path. Raises SoundflowError."""
    path = FOLDER / f"{name}.toml" if (FOLDER / f"{name}.toml").is_file() else Path(name)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.toml")))
        raise SoundflowError(f"no config {name!r}: there are {known}, or give a path ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SoundflowError(f"{path}: {error}") from error
    return parse(raw, str(path))


def parse(raw: Mapping[str, Any], where: str) -> Config:
    """Raises SoundflowError, which names the key that is missing or too much."""
    given = dict(raw)
    known = {*(field.name for field in fields(Config)), "voices", "channel"}
    if unknown := sorted(set(given) - known):
        raise SoundflowError(f"{where}: {', '.join(unknown)} means nothing here")
    try:
        voices, channel = dict(given.pop("voices")), dict(given.pop("channel"))
        made = Config(
            seconds=_pair(given.pop("seconds")),
            long_seconds=_pair(given.pop("long_seconds")),
            material=tuple(given.pop("material")),
            cast=Cast(*(tuple(voices.pop(split)) for split in SPLITS)),
            check=bool(voices.pop("check", False)),
            phone_share=float(channel.pop("phone_share")),
            clean_share=float(channel.pop("clean_share")),
            weights=dict(given.pop("weights", {})),
            **given,
        )
    except KeyError as error:
        raise SoundflowError(f"{where}: {error} is missing") from error
    except (TypeError, ValueError) as error:
        raise SoundflowError(f"{where}: {error}") from error
    if left := [*voices, *channel]:
        raise SoundflowError(f"{where}: {', '.join(left)} means nothing here")
    return made


def _pair(values: Any) -> tuple[float, float]:
    low, high = values
    return float(low), float(high)
