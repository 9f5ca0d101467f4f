"""The fake Twilio's own parts: its playout buffer with marks and clear, and how it reads TwiML."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.phone import mediastreams, webrtc
from offhook.phone.mediastreams import FRAME_BYTES, Plan, PlayoutBuffer, read_twiml
from offhook.phone.script import HangUp, Script


def test_a_mark_comes_back_when_what_was_before_it_has_been_played() -> None:
    buffer = PlayoutBuffer()
    buffer.mark("at once")
    buffer.media(b"a" * FRAME_BYTES * 2)
    buffer.mark("after two")
    buffer.media(b"b" * 40)
    buffer.mark("after a bit")
    assert buffer.tick() == (b"a" * FRAME_BYTES, ["at once"])
    assert buffer.tick() == (b"a" * FRAME_BYTES, ["after two"])
    assert buffer.tick() == (b"b" * 40, ["after a bit"])
    assert buffer.tick() == (b"", [])


def test_a_clear_returns_every_mark_and_plays_nothing() -> None:
    buffer = PlayoutBuffer()
    buffer.media(b"a" * FRAME_BYTES * 3)
    buffer.mark("1")
    buffer.mark("2")
    buffer.tick()
    assert buffer.clear() == ["1", "2"]
    buffer.media(b"c" * FRAME_BYTES)
    buffer.mark("3")
    assert buffer.tick() == (b"c" * FRAME_BYTES, ["3"])


@given(st.lists(st.integers(0, 400) | st.just("mark") | st.just("tick") | st.just("clear"), max_size=100))
def test_every_mark_comes_back_once_and_in_order(history: list[int | str]) -> None:
    buffer = PlayoutBuffer()
    sent: list[str] = []
    returned: list[str] = []
    for step in history:
        if isinstance(step, int):
            buffer.media(bytes(step))
        elif step == "mark":
            sent.append(str(len(sent)))
            buffer.mark(sent[-1])
        elif step == "tick":
            returned += buffer.tick()[1]
        else:
            returned += buffer.clear()
    while len(returned) < len(sent):
        returned += buffer.tick()[1]
    assert returned == sent


@pytest.mark.parametrize(
    ("verbs", "plan"),
    [
        ('<Reject reason="busy"/>', Plan(486, "busy")),
        ("<Say>Sorry</Say><Hangup/>", Plan(503, "Sorry")),
        ("<Dial>+1</Dial>", Plan(503, "the TwiML starts no stream")),
        (
            '<Connect><Stream url="wss://x/s"><Parameter name="token" value="t"/></Stream></Connect>',
            Plan(200, "", "wss://x/s", False, {"token": "t"}),
        ),
        (
            '<Start><Stream track="both_tracks" url="wss://x/s"/></Start><Dial>+1</Dial>',
            Plan(200, "", "wss://x/s", True, {}),
        ),
    ],
)
def test_twiml(verbs: str, plan: Plan) -> None:
    assert read_twiml(f"<Response>{verbs}</Response>") == plan


async def test_nobody_there() -> None:
    nowhere = "http://127.0.0.1:1"
    script = Script([HangUp()])
    by_twilio = await mediastreams.place_call(url=nowhere, auth_token="t", mode="answer", number="+1", script=script)
    by_browser = await webrtc.place_call(url=nowhere, password="p", script=script)
    for result in (by_twilio, by_browser):
        assert (result.completed, result.status) == (False, 0)
        assert "cannot reach" in result.reason
