"""The WebRTC bridge with real peers: aiortc as the fake phone, over clean and bad lines; and offers that are none."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from calls.errors import OffhookError
from calls.model import Mode, Role
from offhook.phone.script import HangUp, Pause, Play, Script
from offhook.phone.webrtc import Browser, place_call
from telephony.bridge import Refused
from telephony.webrtc import BadOffer, BrowserCall, BrowserMouth, BrowserOffer, WebRtcBridge, parse_ice_servers
from tests.telephony.tone_gateway import ToneCall, ToneGateway, once_heard, serving, share_of, tone, tone_frame, until

SECRET = "the house's own"


def says(hertz: float, seconds: float) -> Script:
    return Script([Play(tone(hertz, seconds)), HangUp()])


async def call(base: str, script: Script, **changes: Any) -> Any:
    return await place_call(**({"url": base, "password": SECRET, "script": script, "path": "/webrtc/offer"} | changes))


async def ask(base: str, body: Any, secret: str = SECRET) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {secret}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(
            base + "/webrtc/offer", **(body if isinstance(body, dict) and "data" in body else {"json": body})
        ) as a,
    ):
        return a.status, await a.text()


@asynccontextmanager
async def connected(base: str, gateway: ToneGateway) -> AsyncIterator[tuple[Browser, ToneCall]]:
    """A browser on a call, saying nothing yet."""
    browser = Browser()
    try:
        body = {"sdp": await browser.offer(), "type": "offer", "mode": "answer", "role": "caller", "reference": ""}
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {SECRET}"}) as http:
            answer = await (await http.post(base + "/webrtc/offer", json=body)).json()
        assert await browser.connect(answer["sdp"])
        await until(lambda: gateway.calls[-1].legs)
        yield browser, gateway.calls[-1]
    finally:
        await browser.peer.close()


async def test_a_call_is_heard_on_both_sides() -> None:
    gateway = ToneGateway(hertz=600)
    async with serving(gateway, WebRtcBridge(SECRET)) as base:
        result = await call(base, says(1000, 3.0), mode="assist", reference="r1")
        await gateway.calls[0].over.wait()
    [heard] = gateway.calls
    assert result.completed
    assert result.call_id == heard.call_id
    assert share_of(result.heard[16_000:], 600) > 0.7
    assert share_of(bytes(heard.heard["caller"][16_000:]), 1000) > 0.7
    assert heard.closed == [("hung up", False)]
    assert (heard.offer.bridge, heard.offer.mode, heard.offer.reference) == ("webrtc", Mode.ASSIST, "r1")


async def test_the_human_agent_joins_by_the_reference() -> None:
    gateway = ToneGateway()
    async with serving(gateway, WebRtcBridge(SECRET)) as base:
        caller, agent = await asyncio.gather(
            call(base, says(500, 2.5), mode="assist", reference="r2"),
            call(base, says(1500, 2.0), mode="assist", reference="r2", role="human_agent"),
        )
        await gateway.calls[0].over.wait()
    assert caller.call_id == agent.call_id
    [both] = gateway.calls
    assert set(both.heard) == {"caller", "human_agent"}
    assert share_of(once_heard(both.heard["caller"]), 500) > 0.7
    assert share_of(once_heard(both.heard["human_agent"]), 1500) > 0.7


async def test_the_service_hangs_up() -> None:
    gateway = ToneGateway()
    async with serving(gateway, WebRtcBridge(SECRET)) as base:
        calling = asyncio.create_task(call(base, Script([Pause(20), HangUp()])))
        await until(lambda: gateway.calls and gateway.calls[0].ticks > 10)
        await gateway.calls[0].legs["caller"].hang_up("goodbye")
        result = await calling
    assert (result.completed, result.reason) == (True, "the service hung up")
    assert gateway.calls[0].closed == []


async def test_digits_come_over_the_data_channel() -> None:
    gateway = ToneGateway()
    async with serving(gateway, WebRtcBridge(SECRET)) as base, connected(base, gateway) as (browser, heard):
        await until(lambda: browser.dtmf.readyState == "open")
        for message in ("5", "12#", "not digits", b"\x01", "1" * 1000, "*"):
            browser.dtmf.send(message)
        await until(lambda: len(heard.digits) >= 5)
        assert heard.digits == ["5", "1", "2", "#", "*"]


async def test_lost_and_reordered_packets_cost_what_was_lost_and_no_more() -> None:
    """aiortc's own buffer would stand still for 320 ms at the first loss and keep the delay."""
    gateway = ToneGateway()
    rng = random.Random(7)
    lost = 0
    async with serving(gateway, WebRtcBridge(SECRET)) as base, connected(base, gateway) as (browser, heard):
        transport = browser.peer.getTransceivers()[0].sender.transport
        send = transport._send_rtp
        kept: list[bytes] = []

        async def bad_line(data: bytes) -> None:
            nonlocal lost
            if 192 <= data[1] <= 223:  # RTCP (RFC 5761)
                return await send(data)
            if rng.random() < 0.05:
                lost += 1
            elif not kept and rng.random() < 0.05:
                kept.append(data)
            else:
                await send(data)
                if kept:
                    await send(kept.pop())
            return None

        transport._send_rtp = bad_line
        await browser.talk(says(1000, 6.0))
        leg: Any = heard.legs["caller"]
        counts = leg.ear._jitter.counts
        assert lost >= 5
        assert counts.lost <= lost + counts.late + 10  # aiortc's: 16 for each
        assert leg.ear._jitter.delay <= leg.ear._jitter.depth + 4
        assert share_of(bytes(heard.heard["caller"][16_000:-16_000]), 1000) > 0.7


async def test_a_browser_that_vanishes_is_noticed() -> None:
    gateway = ToneGateway()
    async with (
        serving(gateway, WebRtcBridge(SECRET, silence_timeout_s=1.0)) as base,
        connected(base, gateway) as (browser, heard),
    ):
        await browser.talk(says(1000, 0.5))
        await heard.over.wait()  # its packets stopped; it never said goodbye
        assert heard.closed == [("nothing came from the browser", True)]


async def test_a_browser_that_never_connects_gives_its_room_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telephony.webrtc.CONNECT_S", 0.2)
    gateway = ToneGateway()
    browser = Browser()
    async with serving(gateway, WebRtcBridge(SECRET)) as base:
        status, _ = await ask(base, {"sdp": await browser.offer(), "type": "offer"})
        assert status == 200
        await gateway.calls[0].over.wait()
        assert gateway.calls[0].abandoned == ["the browser's media never connected"]
        await browser.peer.close()


async def test_calls_are_closed_when_the_service_stops() -> None:
    gateway = ToneGateway()
    async with serving(gateway, WebRtcBridge(SECRET)) as base:
        calling = asyncio.create_task(call(base, Script([Pause(20), HangUp()])))
        await until(lambda: gateway.calls and gateway.calls[0].ticks > 10)
    result = await calling
    assert result.reason == "the service hung up"
    assert gateway.calls[0].closed == [("the service stops", True)]


async def test_offers_that_are_not() -> None:
    gateway = ToneGateway()
    browser = Browser()
    sdp = await browser.offer()
    no_opus = "\r\n".join(line for line in sdp.splitlines() if "opus" not in line.lower()) + "\r\n"
    async with serving(gateway, WebRtcBridge(SECRET)) as base:
        assert (await ask(base, {"sdp": sdp}, secret="wrong"))[0] == 401
        assert (await ask(base, {"sdp": sdp}, secret="é"))[0] == 401
        assert (await ask(base, {"data": b"{"}))[0] == 400
        assert (await ask(base, {"data": b"\xff\xfe"}))[0] == 400
        assert (await ask(base, []))[0] == 400
        assert (await ask(base, {"sdp": sdp, "mode": "sing"}))[0] == 400
        assert (await ask(base, {"sdp": sdp, "role": "human_agent"}))[0] == 400
        assert (await ask(base, {"sdp": "x" * 100_000}))[0] == 413
        assert gateway.calls == []
        assert (await ask(base, {"sdp": "v=0\r\nm=audio\r\n"}))[0] == 400
        assert (await ask(base, {"sdp": sdp.replace("a=ice-ufrag", "a=ice-nothing")}))[0] == 400
        assert (await ask(base, {"sdp": no_opus}))[0] == 415
        assert all(refused.abandoned for refused in gateway.calls)
        gateway.refuse = Refused("no worker has room")
        assert await ask(base, {"sdp": sdp}) == (503, "no worker has room")
    await browser.peer.close()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"type": "answer", "sdp": "m=audio"},
        {"sdp": 7},
        {"sdp": "m=audio 9\r\nm=audio 9\r\n"},
        {"sdp": "m=audio 9\r\nm=video 9\r\n"},
        {"sdp": "m=audio 9\r\n", "role": "supervisor"},
        {"sdp": "m=audio 9\r\n", "reference": ["x"]},
    ],
)
def test_bodies_that_are_no_offer(body: Any) -> None:
    with pytest.raises(BadOffer):
        BrowserOffer.parse(body)


def test_a_body_that_is_one() -> None:
    offer = BrowserOffer.parse({"sdp": "m=audio 9\r\n", "mode": None, "role": "human_agent", "reference": "r"})
    assert (offer.mode, offer.role, offer.offer().roles) == (None, Role.HUMAN_AGENT, (Role.HUMAN_AGENT,))


def test_ice_servers() -> None:
    stun, turn = parse_ice_servers("stun:stun.example.com:3478, turn:me:pass:word@turn.example.com?transport=tcp")
    assert stun.urls == "stun:stun.example.com:3478"
    assert (turn.urls, turn.username, turn.credential) == ("turn:turn.example.com?transport=tcp", "me", "pass:word")
    assert parse_ice_servers("") == []
    with pytest.raises(OffhookError, match="ICE_SERVERS"):
        parse_ice_servers("http://stun.example.com")
    for wrong in ("stun:a, tunr:me:secret@turn.example.com", "turn:me:secret@", "turn:me:x,secret@turn.example.com"):
        with pytest.raises(OffhookError, match="entry 2" if "," in wrong else "entry 1") as failed:
            parse_ice_servers(wrong)
        assert "secret" not in str(failed.value)


async def test_what_is_written_faster_than_it_is_sent_is_bounded() -> None:
    mouth = BrowserMouth()
    for n in range(40):
        mouth.write(tone_frame(500, n))
    assert mouth.unplayed() == 25 * 320
    assert mouth.dropped == 15
    assert mouth.flush() == 25 * 320
    assert mouth.unplayed() == 0
    packets = [await mouth.recv() for _ in range(3)]  # nothing was written: silence by itself
    assert [packet.pts for packet in packets] == [0, 960, 1920]


async def test_our_buffer_is_where_aiortcs_was() -> None:
    handle = ToneCall(ToneGateway(), "x", BrowserOffer("", None, Role.CALLER, "", "", "").offer())
    browser_call = BrowserCall(handle, Role.CALLER, [], 20.0)
    receiver = browser_call._peer.getTransceivers()[0].receiver
    assert type(receiver._RTCRtpReceiver__jitter_buffer).__name__ == "PacketTap"
    await browser_call.close()
