"""Calls from SIPp: a strict peer with its own idea of every message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calls import g711
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
