"""What to build: a TOML file of this package's `configs`, or one's own."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from soundflow.errors import SoundflowError
from soundflow.items import SPLITS, Split
from soundflow.speech import Cast
from soundflow.tasks import TASKS

FOLDER = Path(__file__).with_name("configs")
_TOP = (
    *("name", "seed", "per_shard", "seconds", "long_share", "long_seconds", "pool", "material"),
    *("items", "voices", "channel"),
)


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value may be: in words, and as a test."""

    words: str
    allows: Callable[[Any], bool]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return _whole(value) or (isinstance(value, float) and math.isfinite(value))


def _span(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_number, value)) and 2 <= value[0] <= value[1]


def _words(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, str) for one in value)


_TABLE = Rule("a table", lambda value: isinstance(value, Mapping))
_SHARE = Rule("a number from 0 to 1", lambda value: _number(value) and 0 <= value <= 1)
_SPAN = Rule("two numbers of seconds from 2 on, the smaller first", _span)
_FROM_1 = Rule("a whole number from 1 on", lambda value: _whole(value) and value >= 1)
_RULES = {
    "name": Rule("a name", lambda value: isinstance(value, str) and value != ""),
    "seed": Rule("a whole number", _whole),
    "per_shard": _FROM_1,
    "seconds": _SPAN,
    "long_share": _SHARE,
    "long_seconds": _SPAN,
    "pool": _FROM_1,
    "material": Rule("a list of names", _words),
    "items": _TABLE,
    "cast": Rule("a Cast", lambda value: isinstance(value, Cast)),
    "check": Rule("true or false", lambda value: isinstance(value, bool)),
    "phone_share": _SHARE,
    "clean_share": _SHARE,
    "weights": _TABLE,
}
_IN_TABLE = {
    "items": Rule("a whole number from 0 on", lambda value: _whole(value) and value >= 0),
    "weights": Rule("a number from 0 on", lambda value: _number(value) and value >= 0),
}


@dataclass(frozen=True)
class Config:
    """See configs/test.toml for what each means, and _RULES for what it may be. Raises SoundflowError."""

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
        for key, rule in _RULES.items():
            self._check(key, getattr(self, key), rule)
        for table, rule in _IN_TABLE.items():
            for key, value in getattr(self, table).items():
                self._check(f"{table}.{key}", value, rule)
        if unknown := sorted(set(self.items) - set(SPLITS)):
            raise SoundflowError(f"config {self.name}: no split {', '.join(unknown)}; there are {', '.join(SPLITS)}")
        known = {*TASKS, *(task.ability for task in TASKS.values())}
        if unknown := sorted(set(self.weights) - known):
            raise SoundflowError(f"config {self.name}: no sub-task or ability {', '.join(unknown)}")
        if sum(self.shares().values()) <= 0:
            raise SoundflowError(f"config {self.name}: every sub-task has the weight 0")

    def _check(self, key: str, value: Any, rule: Rule) -> None:
        if not rule.allows(value):
            raise SoundflowError(f"config {self.name}: {key} is {_as_given(value)}; it must be {rule.words}")

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
    """Raises SoundflowError, which names the key that is missing, that means nothing, or whose value is not allowed."""
    top = _keys(raw, where, _TOP, ["weights"])
    voices = _keys(top.pop("voices"), f"{where}: voices", SPLITS, ["check"])
    channel = _keys(top.pop("channel"), f"{where}: channel", ["phone_share", "clean_share"])
    cast = Cast(*(voices.pop(split) for split in SPLITS))
    return Config(**{"weights": {}, "check": False, **top, **voices, **channel, "cast": cast})


def _keys(given: Any, where: str, wanted: Collection[str], others: Collection[str] = ()) -> dict[str, Any]:
    """A table with all that is wanted and nothing but the others besides, lists as tuples. Raises SoundflowError."""
    if not isinstance(given, Mapping):
        raise SoundflowError(f"{where} is {_as_given(given)}; it must be a table")
    if unknown := sorted({*given} - {*wanted, *others}):
        raise SoundflowError(f"{where}: {', '.join(unknown)} means nothing here")
    if missing := sorted({*wanted} - {*given}):
        raise SoundflowError(f"{where}: {', '.join(missing)} is missing")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


def _as_given(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)
