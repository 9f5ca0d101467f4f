"""The Media Streams bridge over real HTTP and WebSockets: the fake Twilio phone, and peers that do not behave."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
from twilio.request_validator import RequestValidator

from calls import g711
from calls.audio import FRAME_SAMPLES, SAMPLE_BYTES, SAMPLE_RATE
from calls.model import Mode, Role
from offhook.phone.mediastreams import place_call
from offhook.phone.script import HangUp, Pause, Play, Script
from telephony.bridge import Refused
from telephony.mediastreams import bridge as bridge_module
from telephony.mediastreams.bridge import MAX_FAULTS, MediaStreamsBridge, MediaStreamsConfig
from telephony.mediastreams.tokens import TOKEN_S, Admission, Admissions, TokenError
from telephony.mediastreams.webhook import public_url, stream_url
from tests.telephony.tone_gateway import ToneCall, ToneGateway, once_heard, serving, share_of, tone, until

AUTH = "12345678901234567890123456789012"


def bridge(**changes: Any) -> MediaStreamsBridge:
    return MediaStreamsBridge(MediaStreamsConfig(**({"secret": "s3cret", "auth_token": AUTH} | changes)))


def says(hertz: float, seconds: float) -> Script:
    return Script([Play(tone(hertz, seconds)), HangUp()])


async def ask(
    base: str, query: str = "?mode=answer", auth: str = AUTH, signed: str = "", **form: str
) -> tuple[int, str]:
    form = {"CallSid": "CA1", "From": "+1555", "To": "+1800"} | form
    signature = RequestValidator(auth).compute_signature((signed or base) + "/twilio/voice" + query, form)
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{base}/twilio/voice{query}", data=form, headers={"X-Twilio-Signature": signature}) as answer,
    ):
        return answer.status, await answer.text()


def token_in(twiml: str) -> str:
    found = re.search(r'name="token" value="([^"]+)"', twiml)
    assert found
    return found[1]


def start_message(token: str, call: str = "CA1", tracks: tuple[str, ...] = ("inbound",)) -> dict[str, Any]:
    return {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": "MZ1",
        "start": {
            "accountSid": "AC1",
            "streamSid": "MZ1",
            "callSid": call,
            "tracks": list(tracks),
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"token": token},
        },
    }


def media_message(timestamp_ms: int, payload: bytes = b"\xff" * 160, track: str = "inbound") -> dict[str, Any]:
    sound = base64.b64encode(payload).decode()
    media = {"track": track, "chunk": "1", "timestamp": str(timestamp_ms), "payload": sound}
    return {"event": "media", "streamSid": "MZ1", "media": media}


@asynccontextmanager
async def streaming(
    base: str, path: str = "/twilio/stream", query: str = "?mode=answer"
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """An admitted stream, started."""
    _, twiml = await ask(base, query)
    async with aiohttp.ClientSession() as http, http.ws_connect(base + path, max_msg_size=0) as socket:
        await socket.send_json({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        await socket.send_json(start_message(token_in(twiml)))
        yield socket


async def close_code(socket: aiohttp.ClientWebSocketResponse) -> int | None:
    async with asyncio.timeout(15):
        async for _ in socket:
            pass
    return socket.close_code


# Whole calls


async def test_a_two_way_call_is_heard_on_both_sides() -> None:
    gateway = ToneGateway(hertz=600)
    async with serving(gateway, bridge()) as base:
        result = await place_call(url=base, auth_token=AUTH, mode="answer", number="+1555", script=says(1000, 2.5))
        call = gateway.calls[0]
        await call.over.wait()
    assert result.completed
    assert result.call_id == call.call_id
    assert share_of(result.heard[SAMPLE_RATE:], 600) > 0.7
    assert share_of(bytes(call.heard["caller"][SAMPLE_RATE:]), 1000) > 0.7
    assert call.closed == [("hung up", False)]
    assert call.acknowledged > 10
    assert (call.offer.bridge, call.offer.from_, call.offer.mode) == ("mediastreams", "+1555", Mode.ANSWER)
    assert call.offer.roles == (Role.CALLER,)


@pytest.mark.parametrize("mode", ["assist", "transcribe"])
async def test_a_fork_brings_both_parties_apart(mode: str) -> None:
    gateway = ToneGateway()
    async with serving(gateway, bridge()) as base:
        result = await place_call(
            url=base, auth_token=AUTH, mode=mode, number="+1555", script=says(500, 2.0), agent=says(1500, 2.5)
        )
        call = gateway.calls[0]
        await call.over.wait()
    assert result.completed
    assert share_of(once_heard(call.heard["caller"]), 500) > 0.7
    assert share_of(once_heard(call.heard["human_agent"]), 1500) > 0.7
    assert call.closed == [("hung up", False)] * 2
    assert call.offer.roles == (Role.CALLER, Role.HUMAN_AGENT)
    assert set(result.heard) == {0}


async def test_the_service_hangs_up() -> None:
    gateway = ToneGateway()
    async with serving(gateway, bridge()) as base:
        script = Script([Pause(20), HangUp()])
        calling = asyncio.create_task(
            place_call(url=base, auth_token=AUTH, mode="answer", number="+1555", script=script)
        )
        await until(lambda: gateway.calls and gateway.calls[0].ticks > 10)
        call = gateway.calls[0]
        await call.legs["caller"].hang_up("goodbye")
        await call.legs["caller"].hang_up("goodbye again")
        result = await calling
    assert result.completed
    assert result.reason == "the service hung up"
    assert call.closed == []


async def test_flush_empties_the_far_buffer_and_only_played_marks_count() -> None:
    gateway = ToneGateway()
    async with serving(gateway, bridge()) as base, streaming(base) as socket:
        await until(lambda: gateway.calls and gateway.calls[0].ticks >= 40)
        call = gateway.calls[0]
        call.talking = False
        leg = call.legs["caller"]
        assert leg.unplayed() >= 40 * FRAME_SAMPLES - FRAME_SAMPLES  # nothing was acknowledged
        names = []
        while len(names) < 5:
            message = await socket.receive_json()
            if message["event"] == "mark":
                names.append(message["mark"]["name"])
        for name in names[:4]:  # the first sound, and three times 100 ms: 16 Frames were played
            await socket.send_json({"event": "mark", "streamSid": "MZ1", "mark": {"name": name}})
        await until(lambda: call.acknowledged == 4)
        before = leg.unplayed()
        dropped = leg.flush()
        assert dropped == before > 0
        assert dropped % FRAME_SAMPLES == 0
        assert leg.unplayed() == 0
        assert leg.flush() == 0
        while (await socket.receive_json())["event"] != "clear":
            pass
        await socket.send_json({"event": "mark", "streamSid": "MZ1", "mark": {"name": names[4]}})
        await socket.send_json({"event": "dtmf", "streamSid": "MZ1", "dtmf": {"track": "inbound_track", "digit": "5"}})
        await until(lambda: call.digits == ["5"])
        assert call.acknowledged == 4  # what a clear gives back says nothing
        await socket.send_json({"event": "stop", "streamSid": "MZ1"})
        await call.over.wait()


# The webhook


async def test_a_wrong_signature_is_refused() -> None:
    gateway = ToneGateway()
    async with serving(gateway, bridge()) as base:
        assert (await ask(base, auth="another token"))[0] == 403
        assert (await ask(base, signed="https://elsewhere.example.com"))[0] == 403
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{base}/twilio/voice", data={"CallSid": "CA1"}) as answer,
        ):
            assert answer.status == 403
    async with serving(gateway, bridge(auth_token="")) as base:
        assert (await ask(base, auth=""))[0] == 403  # no token set: nobody can sign
    assert gateway.calls == []


async def test_behind_a_proxy_the_public_url_is_what_was_signed() -> None:
    gateway = ToneGateway()
    async with serving(gateway, bridge(public_url="https://voice.example.com")) as base:
        assert (await ask(base))[0] == 403
        status, twiml = await ask(base, signed="https://voice.example.com")
        assert status == 200
        assert 'url="wss://voice.example.com/twilio/stream"' in twiml
        result = await place_call(
            url=base,
            auth_token=AUTH,
            mode="answer",
            number="+1555",
            script=says(1000, 0.3),
            public_url="https://voice.example.com",
        )
        assert result.completed


def test_urls() -> None:
    assert public_url("https://a.example/base/", "http://10.0.0.1:8001/twilio/voice?mode=assist") == (
        "https://a.example/base/twilio/voice?mode=assist"
    )
    assert public_url("", "http://localhost:8001/twilio/voice") == "http://localhost:8001/twilio/voice"
    assert stream_url("https://a.example/base/twilio/voice?mode=assist") == "wss://a.example/base/twilio/stream"


async def test_what_happens_next_is_in_the_twiml() -> None:
    gateway = ToneGateway()
    routes = {"+1801": "transcribe"}
    async with serving(gateway, bridge(routes=routes, default_mode="assist")) as base:
        answer = (await ask(base, "?mode=answer"))[1]
        assert "<Connect><Stream" in answer
        assert "both_tracks" not in answer
        dial = (await ask(base, "?dial=%2B15550100"))[1]
        assert '<Start><Stream track="both_tracks"' in dial
        assert "<Dial><Number>+15550100</Number></Dial>" in dial
        assert "<Sip>sip:desk@example.com</Sip>" in (await ask(base, "?dial=sip:desk@example.com"))[1]
        assert (
            "<Redirect>https://flow.example.com/</Redirect>" in (await ask(base, "?next=https://flow.example.com/"))[1]
        )
        assert "<Pause" in (await ask(base, "", To="+1801"))[1]
        assert [call.offer.mode for call in gateway.calls] == [
            Mode.ANSWER,
            Mode.ASSIST,
            Mode.ASSIST,
            Mode.ASSIST,
            Mode.TRANSCRIBE,
        ]
        assert all(call.abandoned for call in gateway.calls[:-1])  # the same CallSid asked again
        assert (await ask(base, "?mode=sing"))[0] == 400
        assert (await ask(base, CallSid=""))[0] == 400
        assert (await ask(base, Huge="x" * 100_000))[0] == 413


async def test_a_refused_call_is_turned_away_but_a_refused_fork_goes_on_without_us() -> None:
    gateway = ToneGateway()
    async with serving(gateway, bridge()) as base:
        gateway.refuse = Refused("full", busy=True)
        assert '<Reject reason="busy"' in (await ask(base))[1]
        result = await place_call(url=base, auth_token=AUTH, mode="answer", number="+1", script=says(500, 1))
        assert (result.completed, result.status, result.reason) == (False, 486, "busy")
        gateway.refuse = Refused("no worker")
        assert "<Hangup" in (await ask(base))[1]
        forked = (await ask(base, "?mode=assist&dial=%2B1"))[1]
        assert "<Dial>" in forked
        assert "Stream" not in forked


async def test_a_stream_that_never_comes_gives_its_room_back() -> None:
    gateway = ToneGateway()
    async with serving(gateway, bridge(stream_wait_s=0.05)) as base:
        _, twiml = await ask(base)
        await gateway.calls[0].over.wait()
        assert gateway.calls[0].abandoned == ["its media stream never came"]
        async with aiohttp.ClientSession() as http, http.ws_connect(base + "/twilio/stream") as socket:
            await socket.send_json(start_message(token_in(twiml)))
            assert await close_code(socket) == 1008


async def test_waiting_calls_are_given_up_when_the_service_stops() -> None:
    gateway = ToneGateway()
    async with serving(gateway, bridge()) as base:
        await ask(base)
    assert gateway.calls[0].abandoned


# Tokens


class Handle(ToneCall):
    def __init__(self) -> None:
        pass


def test_a_token_is_good_once_for_its_call_for_a_minute() -> None:
    now = [1000.0]
    admissions = Admissions("secret", clock=lambda: now[0])
    admission = Admission(Handle(), "CA1", (Role.CALLER,))
    token = admissions.add(admission)
    for bad in ("", "x", "a.b.c", token[:-1] + "x", "é" + token, token.replace(".", ""), "\ud800"):
        with pytest.raises(TokenError):
            admissions.take(bad, "CA1")
    with pytest.raises(TokenError, match="another call"):
        admissions.take(token, "CA2")
    with pytest.raises(TokenError, match="signed"):
        Admissions("other secret").take(token, "CA1")
    now[0] += TOKEN_S
    with pytest.raises(TokenError, match="too old"):
        admissions.take(token, "CA1")
    now[0] -= 1
    assert admissions.take(token, "CA1") is admission
    with pytest.raises(TokenError, match="used"):
        admissions.take(token, "CA1")
    assert not admissions.forget(admission)
    with pytest.raises(ValueError, match="secret"):
        Admissions("")


@pytest.mark.parametrize(
    "first",
    [
        start_message(""),
        start_message("forged.9999999999.00000000000000000000000000000000"),
        media_message(0),
        {"event": "start", "streamSid": "MZ1"},
        [],
    ],
)
async def test_without_a_token_the_stream_is_closed(first: Any) -> None:
    gateway = ToneGateway()
    async with serving(gateway, bridge()) as base, aiohttp.ClientSession() as http:
        async with http.ws_connect(base + "/twilio/stream") as socket:
            await socket.send_json(first)
            assert await close_code(socket) == 1008
        async with http.ws_connect(base + "/twilio/stream") as socket:
            await socket.send_bytes(b"\x00\x01")
            assert await close_code(socket) == 1008


async def test_sockets_that_say_nothing_do_not_keep_a_call_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_module, "MAX_STRANGERS", 3)
    gateway = ToneGateway()
    async with serving(gateway, bridge()) as base, aiohttp.ClientSession() as http, AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(http.ws_connect(base + "/twilio/stream")) for _ in range(4)]
        assert await close_code(idle[0]) == 1008
        async with streaming(base) as socket:
            await until(lambda: bool(gateway.calls) and gateway.calls[0].ticks > 2)
            assert await close_code(idle[1]) == 1008
            await socket.send_json({"event": "stop", "streamSid": "MZ1"})
            await gateway.calls[0].over.wait()
        assert [socket.closed for socket in idle] == [True, True, False, False]


async def test_a_token_cannot_be_used_twice() -> None:
    gateway = ToneGateway()
    async with serving(gateway, bridge()) as base, aiohttp.ClientSession() as http:
        _, twiml = await ask(base)
        async with (
            http.ws_connect(base + "/twilio/stream") as first,
            http.ws_connect(base + "/twilio/stream") as second,
        ):
            await first.send_json(start_message(token_in(twiml)))
            await until(lambda: gateway.calls[0].ticks > 2)
            await second.send_json(start_message(token_in(twiml)))
            assert await close_code(second) == 1008
            assert gateway.calls[0].closed == []


# Peers that do not behave


async def test_torn_and_foreign_messages_are_survived() -> None:
    gateway = ToneGateway(hertz=600)
    async with serving(gateway, bridge()) as base, streaming(base) as socket:
        await until(lambda: gateway.calls and gateway.calls[0].ticks > 2)
        call = gateway.calls[0]
        broken = [
            '{"event":"media","str',
            "",
            "null",
            json.dumps({"event": "what"}),
            json.dumps(start_message("again")),
        ]
        foreign = media_message(0) | {"streamSid": "MZ9"}
        for text in [*broken, json.dumps(foreign), json.dumps(media_message(20, track="outbound"))]:
            await socket.send_str(text)
        await socket.send_bytes(b"\xff\xfe")
        await socket.send_json({"event": "dtmf", "streamSid": "MZ1", "dtmf": {"digit": "9"}})
        await until(lambda: call.digits == ["9"])
        assert call.closed == []


async def test_a_peer_that_only_sends_rubbish_is_closed_and_no_other() -> None:
    gateway = ToneGateway()
    async with serving(gateway, bridge()) as base, streaming(base) as socket, aiohttp.ClientSession() as http:
        _, twiml = await ask(base, CallSid="CA2")
        async with http.ws_connect(base + "/twilio/stream") as other:
            await other.send_json(start_message(token_in(twiml), call="CA2"))
            for _ in range(MAX_FAULTS):
                await socket.send_str("{")
            assert await close_code(socket) == 1002
            await until(lambda: len(gateway.calls) == 2 and gateway.calls[1].ticks > 5)
            assert gateway.calls[0].closed == [("too many broken messages", True)]
            assert gateway.calls[1].closed == []


async def test_a_huge_message_closes_only_its_stream() -> None:
    gateway = ToneGateway()
    async with serving(gateway, bridge()) as base, streaming(base) as socket:
        await until(lambda: gateway.calls and gateway.calls[0].ticks > 2)
        await socket.send_str("x" * 200_000)
        assert await close_code(socket) == 1009
        await gateway.calls[0].over.wait()
        assert gateway.calls[0].closed[0][1]  # lost


async def test_a_stream_torn_without_a_stop_is_lost() -> None:
    gateway = ToneGateway()
    async with serving(gateway, bridge()) as base:
        async with streaming(base) as socket:
            await until(lambda: gateway.calls and gateway.calls[0].ticks > 2)
            transport = socket._response.connection.transport  # type: ignore[union-attr]
            transport.abort()  # type: ignore[union-attr]
        await gateway.calls[0].over.wait()
        assert gateway.calls[0].closed[0][1]


async def test_a_stream_from_which_nothing_comes_is_lost() -> None:
    gateway = ToneGateway()
    async with serving(gateway, bridge(silence_timeout_s=0.3)) as base, streaming(base) as socket:
        await close_code(socket)
        assert gateway.calls[0].closed == [("nothing came from the media stream", True)]


async def test_media_out_of_order_is_put_in_order_and_odd_sizes_are_cut() -> None:
    gateway = ToneGateway()
    async with serving(gateway, bridge()) as base, streaming(base) as socket:
        call_tone = g711.encode(_narrow(tone(1000, 1.0)))
        stretches = [(at, call_tone[at * 8 : at * 8 + 480]) for at in range(0, 1000, 60)]  # 60 ms each
        for late, early in zip(stretches[1::2], stretches[0::2], strict=False):
            for at, payload in (late, early, early):
                await socket.send_json(media_message(5 + at, payload))
            await asyncio.sleep(0.12)
        await socket.send_json({"event": "stop", "streamSid": "MZ1"})
        await until(lambda: gateway.calls and gateway.calls[0].over.is_set())
        heard = bytes(gateway.calls[0].heard["caller"])
    assert share_of(heard[len(heard) // 4 : len(heard) * 3 // 4], 1000) > 0.7


def _narrow(pcm: bytes) -> Any:
    import numpy as np

    from calls.resample import Resampler

    samples = np.frombuffer(pcm, np.int16)
    return Resampler(SAMPLE_RATE, 8000)(samples[: len(samples) // (SAMPLE_BYTES * 20) * (SAMPLE_BYTES * 20)])


async def test_health() -> None:
    async with serving(ToneGateway(), bridge()) as base, aiohttp.ClientSession() as http:
        async with http.get(base + "/healthz") as answer:
            assert await answer.json() == {"ok": True, "bridges": {"mediastreams": True}}
        async with http.get(base + "/elsewhere") as answer:
            assert answer.status == 404
