"""What a configuration may say, and what is said of one that may not. See test_build for those that come with it."""

from __future__ import annotations

import copy
import math
import tomllib
from dataclasses import fields, replace
from typing import Any

import pytest

from soundflow import config
from soundflow.config import Config, parse
from soundflow.errors import SoundflowError


@pytest.fixture
def raw() -> dict[str, Any]:
    return tomllib.loads((config.FOLDER / "test.toml").read_text())


def changed(raw: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    """With another value; `key` is `seed` or `channel/phone_share`."""
    made = copy.deepcopy(raw)
    table, _, name = key.rpartition("/")
    (made[table] if table else made)[name] = value
    return made


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("name", 5, "name is 5; it must be a name"),
        ("seed", "a", "seed is 'a'; it must be a whole number"),
        ("seed", 1.5, "seed is 1.5; "),
        ("seed", True, "seed is True; "),
        ("per_shard", "a", "per_shard is 'a'; it must be a whole number from 1 on"),
        ("per_shard", 0, "per_shard is 0; "),
        ("pool", 2.5, "pool is 2.5; it must be a whole number from 1 on"),
        ("seconds", [8], "seconds is [8]; it must be two numbers of seconds from 2 on, the smaller first"),
        ("seconds", 8, "seconds is 8; "),
        ("seconds", ["a", "b"], "seconds is ['a', 'b']; "),
        ("long_seconds", [1, 5], "long_seconds is [1, 5]; "),
        ("long_seconds", [5, math.inf], "long_seconds is [5, inf]; "),
        ("long_share", -1, "long_share is -1; it must be a number from 0 to 1"),
        ("long_share", math.nan, "long_share is nan; "),
        ("material", "esc10", "material is 'esc10'; it must be a list of names"),
        ("material", [10], "material is [10]; "),
        ("items", 5, "items is 5; it must be a table"),
        ("items/train", "x", "items.train is 'x'; it must be a whole number from 0 on"),
        ("items/train", -1, "items.train is -1; "),
        ("items/trial", 1, "no split trial; there are train, dev, test"),
        ("voices", 5, "voices is 5; it must be a table"),
        ("voices/train", "espeak:en-us+m1", "voices.train is 'espeak:en-us+m1'; it must be a list of voices"),
        ("voices/dev", [], "voices.dev is []; it must be a list of voices, one at least"),
        ("voices/test", [5], "voices.test is [5]; "),
        ("voices/check", 1, "check is 1; it must be true or false"),
        ("voices/trial", [], "voices: trial means nothing here"),
        ("channel", [], "channel is []; it must be a table"),
        ("channel/phone_share", 5, "phone_share is 5; it must be a number from 0 to 1"),
        ("channel/clean_share", "a", "clean_share is 'a'; "),
        ("channel/check", True, "channel: check means nothing here"),
        ("weights", 5, "weights is 5; it must be a table"),
        ("weights/recognition", -12, "weights.recognition is -12; it must be a number from 0 on"),
        ("weights/recognition", "a", "weights.recognition is 'a'; "),
        ("phone_share", 0.5, "mine.toml: phone_share means nothing here"),
    ],
)
def test_a_wrong_value_is_told_with_its_key(raw: dict[str, Any], key: str, value: object, said: str) -> None:
    with pytest.raises(SoundflowError) as error:
        parse(changed(raw, key, value), "mine.toml")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["seed", "items", "voices", "voices/dev", "channel", "channel/clean_share"])
def test_a_key_that_is_missing_is_told(raw: dict[str, Any], key: str) -> None:
    table, _, name = key.rpartition("/")
    del (raw[table] if table else raw)[name]
    where = f"mine.toml: {table}" if table else "mine.toml"
    with pytest.raises(SoundflowError, match=rf"^{where}: {name} is missing$"):
        parse(raw, "mine.toml")


def test_what_may_be_left_out(raw: dict[str, Any]) -> None:
    del raw["weights"], raw["voices"]["check"]
    made = parse(raw, "mine.toml")
    assert not made.check
    assert set(made.shares().values()) == {1.0}


def test_whole_numbers_are_numbers(raw: dict[str, Any]) -> None:
    made = parse(changed(changed(raw, "seconds", [8, 16]), "channel/phone_share", 1), "mine.toml")
    assert made == replace(config.load("test"), phone_share=1.0)


def test_a_changed_configuration_is_checked_too() -> None:
    with pytest.raises(SoundflowError, match=r"config test: pool is 0; it must be a whole number from 1 on"):
        replace(config.load("test"), pool=0)


def test_every_key_has_a_rule() -> None:
    assert set(config._RULES) == {field.name for field in fields(Config)}
