"""Calls from SIPp: a strict peer with its own idea of every message."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from calls import g711
from telephony.bridge import Refused
from telephony.sip.bridge import SipBridge
from tests import peers
from tests.telephony.sip.conftest import SipGateway
from tests.telephony.tone_gateway import share_of, tone, until


@pytest.fixture
def mulaw(tmp_path: Path) -> Path:
    """Two seconds of a 440 Hz tone as SIPp's rtp_stream wants it: bare mu-law."""
    path = tmp_path / "tone.ulaw"
    path.write_bytes(g711.encode(np.frombuffer(tone(440, 2), np.int16)[::2].copy()))
    return path


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
async def test_a_call_with_voice(
    bridge: SipBridge, gateway: SipGateway, tmp_path: Path, mulaw: Path, tcp: bool
) -> None:
    play = f'<nop><action><exec rtp_stream="{mulaw},1,0"/></action></nop><pause milliseconds="2200"/>'
    text = peers.sipp_call(play, formats="0 101").replace("[media_port]", "[rtpstream_audio_port]")
    result = await peers.sipp(tmp_path, text, bridge.port, service="transcribe", tcp=tcp)
    assert result.code == 0, result.output
    (call,) = gateway.calls
    await until(call.over.is_set)
    assert call.closed == [("hung up by the party", False)]
    assert call.offer.from_ == "ann"
    assert call.offer.to == "transcribe"
    assert call.offer.mode == "transcribe"
    heard = bytes(call.heard["caller"])
    begin = next(at for at in range(0, len(heard), 640) if any(heard[at : at + 640]))
    assert share_of(heard[begin : begin + 60_000], 440) > 0.9


async def test_keys_from_sipps_own_captures(bridge: SipBridge, gateway: SipGateway, tmp_path: Path) -> None:
    peers.need_raw_sockets()
    keys = ["1", "4", "star", "pound", "9"]
    steps = [
        f'<nop><action><exec play_pcap_audio="{peers.SIPP_MEDIA}/dtmf_2833_{key}.pcap"/></action></nop>'
        '<pause milliseconds="600"/>'
        for key in keys
    ]
    result = await peers.sipp(tmp_path, peers.sipp_call(*steps), bridge.port)
    assert result.code == 0, result.output
    assert gateway.calls[0].digits == ["1", "4", "*", "#", "9"]


async def test_a_law_from_sipps_own_capture(bridge: SipBridge, gateway: SipGateway, tmp_path: Path) -> None:
    """30 ms packets of A-law."""
    peers.need_raw_sockets()
    play = (
        f'<nop><action><exec play_pcap_audio="{peers.SIPP_MEDIA}/g711a.pcap"/></action></nop>'
        '<pause milliseconds="3000"/>'
    )
    result = await peers.sipp(tmp_path, peers.sipp_call(play, formats="8 101"), bridge.port)
    assert result.code == 0, result.output
    call = gateway.calls[0]
    assert call.ticks - call.missing["caller"] > 100
    heard = np.frombuffer(bytes(call.heard["caller"]), np.int16).astype(float)
    assert 300 < np.sqrt((heard**2).mean()) < 15_000


async def test_hold_and_resume(bridge: SipBridge, gateway: SipGateway, tmp_path: Path) -> None:
    steps = []
    for cseq, direction in ((2, "sendonly"), (3, "sendrecv")):
        steps += [
            '<pause milliseconds="200"/>',
            peers.sipp_invite(cseq, direction=direction),
            '<recv response="100" optional="true"/><recv response="200"/>',
            peers.sipp_in_dialog("ACK", cseq),
        ]
    result = await peers.sipp(tmp_path, peers.sipp_call(*steps), bridge.port)
    assert result.code == 0, result.output
    assert gateway.held == [True, False]


async def test_the_service_hangs_up_first(bridge: SipBridge, gateway: SipGateway, tmp_path: Path) -> None:
    text = peers.scenario(
        peers.sipp_invite(),
        peers.SIPP_ANSWERED,
        peers.sipp_in_dialog("ACK", 1),
        '<recv request="BYE"/>',
        """<send><![CDATA[

            SIP/2.0 200 OK
            [last_Via:]
            [last_From:]
            [last_To:]
            [last_Call-ID:]
            [last_CSeq:]
            Content-Length: 0

        ]]></send>""",
    )
    running = asyncio.create_task(peers.sipp(tmp_path, text, bridge.port))
    await until(lambda: bool(gateway.calls and gateway.calls[0].ticks > 5))
    await gateway.calls[0].legs["caller"].hang_up("goodbye")
    result = await running
    assert result.code == 0, result.output
    assert gateway.calls[0].closed == [("goodbye", False)]


@pytest.mark.parametrize(
    ("calls", "limit", "tcp"), [(20, 1, False), (10, 10, False), (10, 10, True)], ids=["in turn", "at once", "tcp"]
)
async def test_many_calls(
    bridge: SipBridge, gateway: SipGateway, tmp_path: Path, calls: int, limit: int, tcp: bool
) -> None:
    pause = f'<pause milliseconds="{100 if limit == 1 else 1500}"/>'
    text = peers.sipp_call(pause)
    result = await peers.sipp(tmp_path, text, bridge.port, calls=calls, limit=limit, rate=50, tcp=tcp)
    assert result.code == 0, result.output
    await until(lambda: bridge.live_calls == 0)
    assert len(gateway.calls) == calls
    assert all(call.closed == [("hung up by the party", False)] for call in gateway.calls)
    assert len({call.call_id for call in gateway.calls}) == calls


@pytest.mark.parametrize(("busy", "status"), [(True, 486), (False, 503)])
async def test_refusals(bridge: SipBridge, gateway: SipGateway, tmp_path: Path, busy: bool, status: int) -> None:
    gateway.refuse = Refused("no room", busy=busy)
    text = peers.scenario(
        peers.sipp_invite(),
        '<recv response="100" optional="true"/><recv response="180" optional="true"/>',
        f'<recv response="{status}"/>',
        peers.sipp_in_dialog("ACK", 1),
    )
    result = await peers.sipp(tmp_path, text, bridge.port, calls=3)
    assert result.code == 0, result.output
