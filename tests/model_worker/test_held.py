"""What a held call says, and when."""

from __future__ import annotations

import pytest

from calls.events import Event, Notice, Say, Speech
from model_worker import held as held_module
from tests.model_worker.working import held, say


def seqs(sent: list[Event]) -> list[int]:
    return [event.seq for event in sent if isinstance(event, Say)]


def test_speech_has_a_stream_of_its_own() -> None:
    sent: list[Event] = []
    streams: list[str] = []
    call = held(sent, streams)
    call.post(say(0, "x"))
    call.post(Speech(call_id="c1", answer_id="a1", seq=0, piece=0, pcm=b""))
    assert streams == ["call:c1", "speech:c1"]


def test_nothing_is_said_while_the_lease_is_uncertain_and_nothing_overtakes_what_waits() -> None:
    sent: list[Event] = []
    call = held(sent)
    call.renewed_at -= 61.0  # as if it could not be renewed for long
    call.post(say(0, "x"))
    call.renewed_at += 61.0
    call.post(say(1, "x"))
    assert sent == []
    call.renewed()
    call.post(say(2, "x"))
    assert seqs(sent) == [0, 1, 2]


def test_what_is_dropped_while_the_lease_is_uncertain_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_module, "UNCERTAIN_EVENTS", 2)
    sent: list[Event] = []
    call = held(sent)
    call.renewed_at -= 61.0
    for seq in range(5):
        call.post(say(seq, "x"))
    assert call.losses.dropped == 3
    call.renewed()
    assert seqs(sent) == [3, 4]
    assert isinstance(sent[-1], Notice)
    assert sent[-1].text.startswith("3 events of the model are lost")
    call.renewed()
    assert len(sent) == 3, "said once"


def test_a_gap_is_counted_and_said() -> None:
    sent: list[Event] = []
    call = held(sent)
    call.miss("caller", 3, 5)
    assert sent == [
        Notice(
            call_id="c1",
            kind="hole",
            text="no audio of caller from 1.2 s to 2.0 s: not in the transcript",
            at_s=pytest.approx(1.2),
        )
    ]
    assert call.losses.missing_chunks == 2
