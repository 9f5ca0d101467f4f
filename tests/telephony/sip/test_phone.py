"""The fake phone (baresip inside) calls the bridge: voice both ways, every codec, refusals, who hangs up."""

from __future__ import annotations

import asyncio

import pytest

from calls.audio import FRAME_BYTES, SAMPLE_RATE
from offhook.phone import sip
from offhook.phone.script import Pause, Play, Script, WaitForQuiet, WaitForSpeech
from telephony.bridge import Refused
from telephony.sip.bridge import SipBridge
from tests.telephony.sip.conftest import SipGateway
from tests.telephony.tone_gateway import share_of, tone, until


@pytest.mark.parametrize(
    ("codec", "transport"), [("pcmu", "udp"), ("pcma", "tcp"), ("opus/48000/2", "udp")], ids=["pcmu", "pcma", "opus"]
)
async def test_both_sides_hear_each_other(bridge: SipBridge, gateway: SipGateway, codec: str, transport: str) -> None:
    result = await sip.place_call(
        target="assist+R-7", port=bridge.port, number="+493012345", caller=tone(440, 2), linger_s=0.5,
        codecs=(codec,), transport=transport,
    )  # fmt: skip
    assert result.completed, result.reason
    assert (result.status, result.reason) == (200, "the phone hung up")
    (call,) = gateway.calls
    assert result.call_id == call.call_id
    assert (call.offer.from_, call.offer.mode, call.offer.reference) == ("+493012345", "assist", "R-7")
    await until(call.over.is_set)
    assert call.closed == [("hung up by the party", False)]
    middle = SAMPLE_RATE // 2 * 2
    assert share_of(bytes(call.heard["caller"])[middle : middle + SAMPLE_RATE * 2], 440) > 0.9
    assert share_of(result.heard[middle:-middle], 600) > 0.9


async def test_the_service_hangs_up(bridge: SipBridge, gateway: SipGateway) -> None:
    async def hang_up() -> None:
        await until(lambda: bool(gateway.calls and gateway.calls[0].ticks > 20))
        await gateway.calls[0].legs["caller"].hang_up("done")

    hanging = asyncio.create_task(hang_up())
    result = await sip.place_call(target="100", port=bridge.port, script=Script([Pause(20)]))
    await hanging
    assert result.completed
    assert result.reason == "the service hung up"
    assert gateway.calls[0].closed == [("done", False)]
    assert gateway.calls[0].offer.mode is None


@pytest.mark.parametrize(("busy", "status"), [(True, 486), (False, 503)])
async def test_a_refusal_is_told(bridge: SipBridge, gateway: SipGateway, busy: bool, status: int) -> None:
    gateway.refuse = Refused("no room", busy=busy)
    result = await sip.place_call(target="answer", port=bridge.port, script=Script([Pause(1)]))
    assert (result.completed, result.status) == (False, status)
    assert not gateway.calls


async def test_the_agents_leg_joins_the_same_call(bridge: SipBridge, gateway: SipGateway) -> None:
    gateway.admit.clear()
    task = asyncio.create_task(sip.place_call(target="agent+R-7", port=bridge.port, script=Script([Pause(0.2)])))
    await until(lambda: bool(gateway.rings))
    assert gateway.rings[0].roles == ("human_agent",)
    assert (gateway.rings[0].mode, gateway.rings[0].reference) == ("assist", "R-7")
    gateway.admit.set()
    assert (await task).completed


async def test_when_the_service_falls_silent_the_next_packet_is_silent(bridge: SipBridge, gateway: SipGateway) -> None:
    """Barge-in, counted in packets: what was written before the interruption is all that the phone still hears."""
    script = Script([WaitForSpeech(0.5), Play(tone(440, 0.3)), WaitForQuiet(1.0)])

    async def interrupt() -> None:
        await until(lambda: bool(gateway.calls and gateway.calls[0].heard.get("caller", b"").strip(b"\0")))
        call = gateway.calls[0]
        await until(lambda: any(call.heard["caller"][-FRAME_BYTES:]))
        call.talking = False
        leg = call.legs["caller"]
        assert leg.unplayed() == 0
        assert leg.flush() == 0

    interrupting = asyncio.create_task(interrupt())
    result = await sip.place_call(target="answer", port=bridge.port, script=script)
    await interrupting
    assert result.completed
    assert not script.timed_out
