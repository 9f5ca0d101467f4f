"""What was decided, held against what is heard in a stream."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")

from dataclasses import replace

from soundflow.items import Item, Turn
from soundflow.train.measure import Events, judge
from tests.soundflow.making import made_item

ALARM = Turn("wake/sound", 2.0, 4.0, True, "a smoke alarm", "smoke_alarm", "A smoke alarm.", early=True)
RAIN = Turn("wake/sound", 0.0, 8.0, False, "rain", "rain", bed=True)


def judged(*responses: int, turns: tuple[Turn, ...]) -> Events:
    """Of a stream of 20 Chunks, responded to at these."""
    item: Item = replace(made_item(1, 20), turns=turns)
    return judge([(item, [chunk in responses for chunk in range(20)])], ["wake/sound"])


def test_an_alarm_on_rain_is_rightly_told_of() -> None:
    right = judged(6, turns=(RAIN, ALARM))
    assert (right.hits, right.deserving, right.undeserving, right.false) == (1, 1, 0, 0)


def test_a_response_to_the_rain_itself_is_false() -> None:
    alone = judged(6, turns=(RAIN,))
    assert (alone.false, alone.undeserving) == (1, 0)
    beside = judged(6, 15, turns=(RAIN, ALARM))
    assert (beside.hits, beside.false) == (1, 1)
