"""Media Streams messages and mark accounting: the documented examples of both dialects, then anything at all."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls.audio import FRAME_SAMPLES
from telephony.mediastreams.marks import MARK_EVERY, PATIENCE, TRAILING, MarkLedger
from telephony.mediastreams.protocol import (
    MAX_MESSAGE_BYTES,
    TELNYX,
    TWILIO,
    Clear,
    Connected,
    Dialect,
    Dtmf,
    Fault,
    Mark,
    Media,
    ProtocolError,
    Start,
    Stop,
    build,
    parse,
)

# The shapes of https://www.twilio.com/docs/voice/media-streams/websocket-messages
TWILIO_START: dict[str, Any] = {
    "event": "start",
    "sequenceNumber": "1",
    "start": {
        "accountSid": "AC1",
        "streamSid": "MZ1",
        "callSid": "CA1",
        "tracks": ["inbound", "outbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": "t"},
    },
    "streamSid": "MZ1",
}
TWILIO_MEDIA: dict[str, Any] = {
    "event": "media",
    "sequenceNumber": "3",
    "media": {"track": "outbound", "chunk": "2", "timestamp": "25", "payload": "/////w=="},
    "streamSid": "MZ1",
}
# The shapes of https://developers.telnyx.com/docs/voice/programmable-voice/media-streaming
TELNYX_START: dict[str, Any] = {
    "event": "start",
    "sequence_number": "1",
    "start": {
        "user_id": "3e6f995f-85f7-4705-9741-53b116d28237",
        "call_control_id": "v2:T02ll",
        "custom_parameters": {"token": "t"},
        "media_format": {"encoding": "PCMA", "sample_rate": 8000, "channels": 1},
    },
    "stream_id": "32de0dea",
}


def test_twilio_messages() -> None:
    start = parse(json.dumps(TWILIO_START))
    assert start == Start("MZ1", "CA1", ("inbound", "outbound"), "mulaw", {"token": "t"}, "AC1")
    assert parse(json.dumps(TWILIO_MEDIA)) == Media("MZ1", b"\xff" * 4, "outbound", 25, 2)
    assert parse('{"event":"connected","protocol":"Call","version":"1.0.0"}') == Connected("1.0.0")
    dtmf = '{"event":"dtmf","streamSid":"MZ1","sequenceNumber":"5","dtmf":{"track":"inbound_track","digit":"#"}}'
    assert parse(dtmf) == Dtmf("MZ1", "#")
    mark = '{"event":"mark","sequenceNumber":"4","streamSid":"MZ1","mark":{"name":"0.1"}}'
    assert parse(mark) == Mark("MZ1", "0.1")
    stop = '{"event":"stop","sequenceNumber":"5","streamSid":"MZ1","stop":{"accountSid":"AC1","callSid":"CA1"}}'
    assert parse(stop) == Stop("MZ1", "CA1")


def test_telnyx_messages() -> None:
    assert parse(json.dumps(TELNYX_START), TELNYX) == Start(
        "32de0dea", "v2:T02ll", (), "alaw", {"token": "t"}, "3e6f995f-85f7-4705-9741-53b116d28237"
    )
    media = (
        '{"event":"media","sequence_number":"4","stream_id":"32de0dea",'
        '"media":{"track":"inbound","chunk":"2","timestamp":"20","payload":"1dU="}}'
    )
    assert parse(media, TELNYX) == Media("32de0dea", b"\xd5\xd5", "inbound", 20, 2)
    dtmf = '{"event":"dtmf","stream_id":"32de0dea","occurred_at":"2026","sequence_number":"5","dtmf":{"digit":"1"}}'
    assert parse(dtmf, TELNYX) == Dtmf("32de0dea", "1")
    stop = '{"event":"stop","sequence_number":"5","stream_id":"32de0dea","stop":{"call_control_id":"v2:T02ll"}}'
    assert parse(stop, TELNYX) == Stop("32de0dea", "v2:T02ll")
    fault = '{"event":"error","stream_id":"32de0dea","payload":{"code":100003,"title":"malformed_frame"}}'
    assert parse(fault, TELNYX) == Fault('{"code": 100003, "title": "malformed_frame"}')


@pytest.mark.parametrize(("dialect", "name"), [(TWILIO, "streamSid"), (TELNYX, "stream_id")])
def test_what_is_sent(dialect: Dialect, name: str) -> None:
    assert json.loads(build(Media("S", b"\x00\xff"), dialect)) == {
        "event": "media",
        name: "S",
        "media": {"payload": base64.b64encode(b"\x00\xff").decode()},
    }
    assert json.loads(build(Mark("S", "1.2"), dialect)) == {"event": "mark", name: "S", "mark": {"name": "1.2"}}
    assert json.loads(build(Clear("S"), dialect)) == {"event": "clear", name: "S"}


def changed(message: dict[str, Any], *path: str, to: Any) -> str:
    copy = json.loads(json.dumps(message))
    place = copy
    for name in path[:-1]:
        place = place[name]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return json.dumps(copy)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not JSON"),
        ('{"event":"media"', "not JSON"),
        ("[" * 100_000, "limit"),
        ("[" * 60_000, "not JSON"),
        ("[]", "object"),
        ('{"event":7}', "'event'"),
        ('{"event":"\\ud800"}', "unknown event"),
        ('{"event":"transfer"}', "unknown event"),
        (changed(TWILIO_MEDIA, "media", to="x"), "'media'"),
        (changed(TWILIO_MEDIA, "media", "payload", to=None), "'payload'"),
        (changed(TWILIO_MEDIA, "media", "payload", to="%%%"), "base64"),
        (changed(TWILIO_MEDIA, "media", "payload", to=""), "empty"),
        (changed(TWILIO_MEDIA, "media", "timestamp", to=None), "'timestamp'"),
        (changed(TWILIO_MEDIA, "media", "timestamp", to="-5"), "'timestamp'"),
        (changed(TWILIO_MEDIA, "media", "timestamp", to=True), "'timestamp'"),
        (changed(TWILIO_MEDIA, "media", "track", to="sideways"), "track"),
        (changed(TWILIO_MEDIA, "streamSid", to=None), "'streamSid'"),
        (changed(TWILIO_START, "start", "mediaFormat", "encoding", to="audio/opus"), "encoding"),
        (changed(TWILIO_START, "start", "mediaFormat", "sampleRate", to=16000), "8000"),
        (changed(TWILIO_START, "start", "customParameters", to={"token": 7}), "strings"),
        (changed(TWILIO_START, "start", "callSid", to=["CA1"]), "'callSid'"),
        (changed(TWILIO_MEDIA, "media", "payload", to="A" * MAX_MESSAGE_BYTES), "limit"),
    ],
)
def test_broken_messages_say_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        parse(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(st.text(max_size=300) | st.binary(max_size=300) | json_values.map(json.dumps), st.sampled_from([TWILIO, TELNYX]))
def test_anything_parses_or_is_a_protocol_error(text: str | bytes, dialect: Dialect) -> None:
    with contextlib.suppress(ProtocolError):
        parse(text, dialect)


@given(
    st.sampled_from([TWILIO_START, TWILIO_MEDIA, {"event": "dtmf", "streamSid": "S", "dtmf": {"digit": "1"}}]),
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
    json_values,
)
def test_any_field_replaced_parses_or_is_a_protocol_error(message: dict[str, Any], path: list[int], value: Any) -> None:
    copy = json.loads(json.dumps(message))
    place: Any = copy
    for step in path:
        name = sorted(place)[step % len(place)]
        if isinstance(place[name], dict) and place[name]:
            place = place[name]
        else:
            place[name] = value
            break
    with contextlib.suppress(ProtocolError):
        parse(json.dumps(copy))


# Marks


def speak(ledger: MarkLedger, frames: int) -> list[str]:
    """Frames of speech; returns the marks that were sent."""
    return [mark for sent, mark in (ledger.frame(silent=False) for _ in range(frames)) if sent and mark]


def test_the_first_sound_and_every_tenth_of_a_second_are_marked() -> None:
    ledger = MarkLedger()
    assert ledger.frame(silent=True) == (False, None)
    sent, first = ledger.frame(silent=False)
    assert sent
    assert first
    assert len(speak(ledger, 10 * MARK_EVERY)) == 10


def test_unplayed_is_what_no_mark_has_confirmed() -> None:
    ledger = MarkLedger()
    marks = speak(ledger, 1 + 2 * MARK_EVERY)
    assert ledger.unplayed() == (1 + 2 * MARK_EVERY) * FRAME_SAMPLES
    assert ledger.returned(marks[0])
    assert ledger.unplayed() == 2 * MARK_EVERY * FRAME_SAMPLES
    assert ledger.returned(marks[2])  # one was skipped: it is confirmed with it
    assert ledger.unplayed() == 0
    assert not ledger.returned(marks[1])
    assert not ledger.returned("not ours")


def test_marks_returned_by_a_clear_do_not_count() -> None:
    ledger = MarkLedger()
    marks = speak(ledger, 1 + 4 * MARK_EVERY)
    ledger.returned(marks[1])
    assert ledger.clear() == 3 * MARK_EVERY * FRAME_SAMPLES
    assert ledger.unplayed() == 0
    speak(ledger, 3)
    assert [ledger.returned(mark) for mark in marks] == [False] * len(marks)
    assert ledger.unplayed() == 3 * FRAME_SAMPLES


def test_silence_is_sent_for_a_while_and_then_the_line_rests() -> None:
    ledger = MarkLedger()
    speak(ledger, 3)
    tail = [ledger.frame(silent=True) for _ in range(TRAILING + 5)]
    assert [sent for sent, _ in tail] == [True] * TRAILING + [False] * 5
    last = tail[TRAILING - 1][1]
    assert last is not None
    assert ledger.unplayed() == (3 + TRAILING + 5) * FRAME_SAMPLES
    assert ledger.returned(last)
    assert ledger.unplayed() == 0
    ledger.frame(silent=True)
    assert ledger.unplayed() == 0
    assert ledger.clear() == 0


def test_a_peer_that_returns_no_marks_is_believed_in_the_end() -> None:
    ledger = MarkLedger()
    speak(ledger, 10)
    ticks = 10 + TRAILING + PATIENCE // FRAME_SAMPLES + TRAILING + 10
    for _ in range(ticks):
        ledger.frame(silent=True)
    assert ledger.unplayed() == 0


@given(st.lists(st.sampled_from(["speak", "hush", "return", "old", "clear"]), max_size=300))
def test_any_history_adds_up(history: list[str]) -> None:
    ledger = MarkLedger()
    marks: list[str] = []
    written = dropped = 0
    for happening in history:
        before = ledger.unplayed()
        match happening:
            case "speak" | "hush":
                sent, mark = ledger.frame(silent=happening == "hush")
                written += FRAME_SAMPLES
                assert sent or mark is None
                if mark:
                    marks.append(mark)
            case "return" if marks:
                ledger.returned(marks[-1])
                assert ledger.unplayed() <= before
            case "old" if marks:
                ledger.returned(marks[0])
                assert ledger.unplayed() <= before
            case "clear":
                dropped += ledger.clear()
                assert ledger.unplayed() == 0
        assert 0 <= ledger.unplayed() <= written
    assert dropped <= written
