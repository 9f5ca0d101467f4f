"""Streams that a model gets wrong: which are kept, and how long they are looked for."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")
pytest.importorskip(
    "transformers", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test"
)

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from model_worker.catalogue import Catalogue
from model_worker.interaction.config import TEST_TIERS
from soundflow.hard import NEARLY, Judge, draw, false, missed
from soundflow.items import Item, Turn
from soundflow.train.prepare import starting
from tests.soundflow.making import made_item

ALARM = Turn("wake/sound", 2.0, 4.0, True, "a siren", "siren", "a siren", early=True)
MUSIC = Turn("wake/nothing", 0.0, 8.0, False, "hold_music", "hold_music", "")


def item(seed: int, *turns: Turn) -> Item:
    return replace(made_item(seed, 20), id=f"item-{seed}", task="wake", turns=turns)


def test_what_is_missed_and_what_is_false_in_a_stream() -> None:
    silent = [False] * 20
    wakes = [False] * 6 + [True] + [False] * 13
    assert [missed(item(1, ALARM), silent), missed(item(1, ALARM), wakes)] == [1, 0]
    assert [false(item(1, ALARM), silent), false(item(1, ALARM), wakes)] == [0, 0]
    assert [false(item(1, MUSIC), wakes), false(item(1), wakes)] == [1, 1]
    assert [false(item(1, MUSIC), silent), false(item(1), silent), missed(item(1, MUSIC), silent)] == [0, 0, 0]


def test_a_model_that_never_responds_finds_alarms_hard_and_one_that_always_does_finds_all_hard() -> None:
    weights = starting(TEST_TIERS, Catalogue(Path("/nowhere")), 1)
    streams = [item(1, ALARM), item(2, MUSIC), item(3), item(4, ALARM)]
    never = replace(weights, config=replace(TEST_TIERS, threshold=1.01 / NEARLY))
    always = replace(weights, config=replace(TEST_TIERS, threshold=0.0))
    assert [one.id for one in Judge(never).hard(streams)] == ["item-1", "item-4"]
    assert Judge(always).hard(streams) == streams


def test_it_is_looked_for_so_long_and_not_longer() -> None:
    made: list[int] = []

    def make(seed: int) -> Item:
        made.append(seed)
        return item(seed)

    def odd(items: Sequence[Item]) -> list[Item]:
        return [one for one in items if one.seed % 2]

    assert [one.seed for one in draw(make, 10, 3, 100, odd)] == [11, 13, 15]
    made.clear()
    assert list(draw(make, 10, 2, 70, lambda items: [])) == []
    assert made == list(range(10, 80))
