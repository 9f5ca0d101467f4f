"""The codec: every event survives it, and nothing malformed gets through."""

from __future__ import annotations

import json
import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls import events
from calls.errors import EventError
from calls.events import AnyEvent, AudioChunk, Uttered, decode, encode, to_json
from calls.model import Utterance, Word


def test_every_event_class_is_decodable() -> None:
    classes = {
        value
        for value in vars(events).values()
        if isinstance(value, type) and issubclass(value, events.Event) and value is not events.Event
    }
    assert classes == set(typing.get_args(AnyEvent))


@given(
    st.text(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.tuples(st.text(), st.floats(0, 9), st.floats(0, 9))),
)
def test_an_utterance_comes_back_as_it_was(text: str, start: float, words: list[tuple[str, float, float]]) -> None:
    said = Utterance("caller-1", "caller", start, start + 1, text, tuple(Word(*word) for word in words))
    event = Uttered(call_id="c", utterance=said)
    assert decode(encode(event)) == event


def test_audio_comes_back_byte_for_byte() -> None:
    event = AudioChunk(call_id="c", participant_id="caller", index=7, pcm=bytes(range(256)) * 50, lost=2)
    assert decode(encode(event)).chunk().pcm == event.pcm


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_an_event_error(data: bytes) -> None:
    try:
        decode(data)
    except EventError:
        pass


def test_another_version_is_refused_with_its_number() -> None:
    data = bytearray(encode(events.HangUp(call_id="c", reason="bye")))
    data[0] = 9
    with pytest.raises(EventError, match="version 9"):
        decode(bytes(data))


def test_json_for_browsers_has_type_and_position() -> None:
    plain = json.loads(to_json(events.HangUp(call_id="c", reason="bye"), "5-1"))
    assert plain == {"type": "HangUp", "call_id": "c", "reason": "bye", "position": "5-1"}
    assert msgspec.json.encode(plain)
