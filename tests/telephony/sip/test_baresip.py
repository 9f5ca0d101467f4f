"""Calls from the Debian baresip: voice both ways through another stack, hold, keys, and a proxy with a registrar."""

from __future__ import annotations

from pathlib import Path

import pytest

from calls.audio import SAMPLE_RATE
from telephony.sip.bridge import SipBridge
from tests import peers
from tests.telephony.sip.conftest import SipGateway, read_wav, serving, write_wav
from tests.telephony.tone_gateway import share_of, tone, until


async def answered(gateway: SipGateway) -> None:
    await until(lambda: bool(gateway.calls and gateway.calls[0].ticks > 100))


@pytest.mark.parametrize(
    ("codec", "transport"), [("pcmu", "udp"), ("pcma", "tcp"), ("opus/48000/2", "udp")], ids=["pcmu", "pcma", "opus"]
)
async def test_voice_both_ways(
    bridge: SipBridge, gateway: SipGateway, tmp_path: Path, spoken: Path, codec: str, transport: str
) -> None:
    if codec.startswith("opus"):  # this baresip does not resample its files
        write_wav(spoken, tone(440, 10), 48_000, channels=2)
    async with peers.baresip(tmp_path / "phone", spoken, codecs=codec, transport=transport) as phone:
        await phone.command("dial", f"sip:answer@{peers.HOST}:{bridge.port};transport={transport}")
        await answered(gateway)
        await phone.command("hangup")
        await until(gateway.calls[0].over.is_set)
        await until(lambda: bool(phone.heard()))
    (call,) = gateway.calls
    assert call.closed == [("hung up by the party", False)]
    second = SAMPLE_RATE * 2
    heard = bytes(call.heard["caller"])
    assert share_of(heard[second // 2 : second * 3 // 2], 440) > 0.85
    assert share_of(read_wav(phone.heard()[0])[second // 2 : second * 3 // 2], 600) > 0.85


async def test_hold_resume_and_keys(bridge: SipBridge, gateway: SipGateway, tmp_path: Path, spoken: Path) -> None:
    async with peers.baresip(tmp_path / "phone", spoken, codecs="pcmu") as phone:
        await phone.command("dial", f"sip:answer@{peers.HOST}:{bridge.port}")
        await answered(gateway)
        await phone.command("hold")
        await until(lambda: gateway.held == [True])
        await phone.command("resume")
        await until(lambda: gateway.held == [True, False])
        await phone.command("sndcode", "5")
        await until(lambda: gateway.calls[0].digits == ["5"])
        await gateway.calls[0].legs["caller"].hang_up("enough")
        await until(lambda: phone.happened("CALL_CLOSED"))
    assert gateway.calls[0].closed == [("enough", False)]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_call_through_a_registrar(gateway: SipGateway, tmp_path: Path, spoken: Path, transport: str) -> None:
    """We register with Kamailio (digest), a phone calls our name there, and the BYE goes back through the proxy."""
    async with (
        peers.kamailio(tmp_path) as proxy,
        serving(gateway, registrar=f"sip:garage:secret@{peers.HOST}:{proxy};transport={transport}") as bridge,
        peers.baresip(tmp_path / "phone", spoken, codecs="pcmu", transport=transport) as phone,
    ):
        await until(lambda: bridge.registered)
        await phone.command("dial", f"sip:garage@{peers.HOST}:{proxy};transport={transport}")
        await answered(gateway)
        assert gateway.calls[0].offer.to == "garage"
        await gateway.calls[0].legs["caller"].hang_up("enough")
        await until(lambda: phone.happened("CALL_CLOSED"))
    second = SAMPLE_RATE * 2
    assert share_of(bytes(gateway.calls[0].heard["caller"])[second // 2 : second * 3 // 2], 440) > 0.85


async def test_a_registration_is_refreshed_and_taken_away(
    gateway: SipGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "telephony.sip"):
        async with peers.kamailio(tmp_path, expires=2) as proxy:
            async with serving(gateway, registrar=f"sip:garage:secret@{peers.HOST}:{proxy}") as bridge:
                await until(lambda: caplog.text.count("registered as garage") >= 3)
                assert bridge.registered
            assert not bridge.registered
    assert "secret" not in caplog.text


async def test_a_wrong_password_is_tried_again_later(
    gateway: SipGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        peers.kamailio(tmp_path) as proxy,
        serving(gateway, registrar=f"sip:garage:wrong@{peers.HOST}:{proxy}") as bridge,
    ):
        await until(lambda: caplog.text.count("not registered") >= 2)
        assert not bridge.registered
        assert bridge.ready  # calls come in all the same


async def test_a_registrar_that_comes_late(
    gateway: SipGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("telephony.sip.register.FIRST_RETRY", 0.2)
    port = peers.free_port()
    async with serving(gateway, registrar=f"sip:garage:secret@{peers.HOST}:{port};transport=tcp") as bridge:
        await until(lambda: "not registered" in caplog.text)
        monkeypatch.setattr(peers, "free_port", lambda count=1: port)
        async with peers.kamailio(tmp_path):
            await until(lambda: bridge.registered)
