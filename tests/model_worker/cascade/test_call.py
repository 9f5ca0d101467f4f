"""A call's state in the cascade: what is taken over of another worker's call."""

from __future__ import annotations

from dataclasses import replace

import pytest

from calls.events import Event, ResponseClosed, ResponseDelta
from calls.model import Card, Instruction, Mode, Participant, Role
from model_worker.cascade.call import CallStream
from model_worker.stream import Fate, Past, PastResponse

CARD = Card("hours", "Hours", "We open at eight.", "info.md#hours")
TOLD = Instruction(Mode.ASSIST, "Help.", (Participant("caller", Role.CALLER),), (CARD,))
TORN = PastResponse("hint-hours", "caller", 7)


@pytest.mark.parametrize(
    ("begun", "rest"),
    [(TORN, CARD.text), (replace(TORN, text="We open", pieces=1), " at eight."), (replace(TORN, text=CARD.text), "")],
)
def test_a_hint_that_was_torn_is_given_to_its_end(begun: PastResponse, rest: str) -> None:
    events: list[Event] = []
    call = CallStream("c", TOLD, events.append, Past(responses=(begun,)), None)
    assert call.going_on == {"hint-hours"}
    assert not call.proposed.claim("hours")  # it is not given a second time
    assert events == []
    call.finish_torn()
    call.finish_torn()
    pieces = [ResponseDelta(call_id="c", response_id="hint-hours", seq=begun.pieces, text=rest)] if rest else []
    assert events == [*pieces, ResponseClosed(call_id="c", response_id="hint-hours", text=CARD.text)]


@pytest.mark.parametrize(
    "begun",
    [
        replace(TORN, fate=Fate.UNWANTED),
        replace(TORN, fate=Fate.FINISHED, text=CARD.text),
        replace(TORN, text="We shut"),  # the card is another now
        replace(TORN, id="hint-prices"),
        replace(TORN, id="answer-caller-3"),
    ],
)
def test_all_else_that_was_begun_is_let_be(begun: PastResponse) -> None:
    events: list[Event] = []
    call = CallStream("c", TOLD, events.append, Past(responses=(begun,)), None)
    assert call.going_on == frozenset()
    call.finish_torn()
    assert events == []


def test_a_torn_hint_that_is_cancelled_meanwhile_is_not_given() -> None:
    events: list[Event] = []
    begun = replace(TORN, text="We open", pieces=1)
    call = CallStream("c", TOLD, events.append, Past(responses=(begun,)), None)
    call.cancel("hint-prices")
    call.cancel("hint-hours")
    call.finish_torn()
    assert events == [ResponseClosed(call_id="c", response_id="hint-hours", text="We open", cancelled=True)]
