"""Audio on the wire: strangers, silence, keys, packet lengths, and what comes out of order."""

from __future__ import annotations

import asyncio
import struct
from itertools import pairwise

import numpy as np
import pytest

from calls import g711
from calls.audio import SILENT_FRAME
from telephony.codecs import OpusEncoder
from telephony.sip.bridge import SipBridge
from telephony.sip.media import PROBATION, Gate, MediaStream, opus_samples
from telephony.sip.rtp import Packet, RtpError, TelephoneEvent
from telephony.sip.sdp import Agreed, Codec
from tests.telephony.sip.conftest import SipGateway, serving
from tests.telephony.sip.wire import Socket, Talker, Wire, sdp
from tests.telephony.tone_gateway import ToneCall, share_of, tone, tone_frame, until

THERE = ("192.0.2.7", 4000)
EVENTS = Codec("TELEPHONE-EVENT", 101, 8000)


def agreed(name: str = "PCMU", payload_type: int = 0, clock: int = 8000) -> Agreed:
    return Agreed(Codec(name, payload_type, clock), EVENTS, THERE, "sendrecv", False)


async def talking(wire: Wire, gateway: SipGateway) -> ToneCall:
    await wire.answered()
    await until(lambda: bool(gateway.calls and gateway.calls[0].legs))
    return gateway.calls[0]


# -- over real sockets


async def test_a_stranger_is_not_heard_and_does_not_disturb(bridge: SipBridge, gateway: SipGateway) -> None:
    """Another port on the same machine sends twice as fast, louder, with the party's own SSRC and numbering."""
    wire, stranger = await Wire.open(bridge.port), await Socket.open()
    call = await talking(wire, gateway)
    ours, theirs = Talker(wire.rtp, wire.media_port, 440), Talker(stranger, wire.media_port, 1500)
    theirs.ssrc = ours.ssrc
    for _ in range(100):
        ours.step()
        theirs.step()
        theirs.step()
        await asyncio.sleep(0.02)
    heard = bytes(call.heard["caller"])
    begin = next(at for at in range(0, len(heard), 640) if any(heard[at : at + 640]))
    assert share_of(heard[begin:], 440) > 0.85
    assert share_of(heard[begin:], 1500) == 0
    leg = call.legs["caller"]
    assert leg.media.counts.strangers == 200  # type: ignore[attr-defined]
    assert await wire.bye() == 200


async def test_a_stranger_before_the_party_is_not_heard(bridge: SipBridge, gateway: SipGateway) -> None:
    wire, stranger = await Wire.open(bridge.port), await Socket.open()
    call = await talking(wire, gateway)
    await Talker(stranger, wire.media_port, 1500).talk(PROBATION - 1)
    await Talker(wire.rtp, wire.media_port, 440).talk(20)
    await Talker(stranger, wire.media_port, 1500).talk(30)
    heard = bytes(call.heard["caller"])
    assert share_of(heard, 1500) == 0
    assert share_of(heard, 440) > 0.1
    assert await wire.bye() == 200


async def test_a_party_that_goes_away_is_lost(gateway: SipGateway) -> None:
    async with serving(gateway, rtp_timeout_s=0.6) as bridge:
        wire = await Wire.open(bridge.port)
        call = await talking(wire, gateway)
        await Talker(wire.rtp, wire.media_port).talk(10)
        bye = await wire.until_request("BYE")
        wire.reply_ok(bye)
        await until(call.over.is_set)
        ((reason, lost),) = call.closed
        assert lost
        assert reason.startswith("no audio came for")


async def test_a_party_that_never_sends_is_lost(gateway: SipGateway) -> None:
    async with serving(gateway, rtp_timeout_s=0.4) as bridge:
        wire = await Wire.open(bridge.port)
        call = await talking(wire, gateway)
        wire.reply_ok(await wire.until_request("BYE"))
        await until(call.over.is_set)
        assert call.closed[0][1]


async def test_a_held_party_may_be_silent(gateway: SipGateway) -> None:
    async with serving(gateway, rtp_timeout_s=0.4) as bridge:
        wire = await Wire.open(bridge.port)
        call = await talking(wire, gateway)
        await wire.change(sdp(wire.rtp.port, direction="inactive"))
        await asyncio.sleep(1.0)
        assert not call.closed
        assert await wire.bye() == 200


async def test_rubbish_on_the_media_port(bridge: SipBridge, gateway: SipGateway) -> None:
    wire = await Wire.open(bridge.port)
    call = await talking(wire, gateway)
    for data in (b"", b"\0", b"\x80" * 11, bytes(60_000), b"INVITE sip:x SIP/2.0\r\n\r\n", b"\xff" * 200):
        wire.rtp.send(data, wire.media_port)
    wire.rtp.send(bytes(Packet(101, 1, 1, 1, b"\x01")), wire.media_port)  # an event cut off
    wire.rtp.send(bytes(Packet(0, 1, 1, 1, b"")), wire.media_port)
    await Talker(wire.rtp, wire.media_port).talk(40)
    assert share_of(bytes(call.heard["caller"]), 440) > 0.3
    assert await wire.bye() == 200


async def test_keys_by_telephone_events(bridge: SipBridge, gateway: SipGateway) -> None:
    """Each key: three packets of its pressing and three of its end, as RFC 4733 has it; some are lost."""
    wire = await Wire.open(bridge.port)
    call = await talking(wire, gateway)
    sequence = 0
    for place, event in enumerate([1, 5, 10, 11, 5, 5]):
        for n in range(6):
            sequence += 1
            payload = bytes(TelephoneEvent(event, n > 2, 10, 160 * (n + 1)))
            if n != place:
                wire.rtp.send(bytes(Packet(101, sequence, 8000 * place, 7, payload, n == 0)), wire.media_port)
    wire.rtp.send(bytes(Packet(101, 99, 90_000, 7, bytes(TelephoneEvent(16, True, 0, 9)))), wire.media_port)  # a flash
    await until(lambda: len(call.digits) >= 6)
    assert call.digits == ["1", "5", "*", "#", "5", "5"]
    assert await wire.bye() == 200


# -- without sockets


@pytest.mark.parametrize("milliseconds", [10, 20, 30, 40, 60])
def test_any_packet_length_of_g711(milliseconds: int) -> None:
    stream = MediaStream(agreed())
    audio = g711.encode(np.frombuffer(tone(440, 1.2), np.int16)[::2].copy())
    step = milliseconds * 8
    out = bytearray()
    for n, at in enumerate(range(0, len(audio), step)):
        stream.receive(bytes(Packet(0, n, at, 1, audio[at : at + step])), THERE, 0.0)
        for _ in range(milliseconds * (n + 1) // 20 - milliseconds * n // 20):
            out += stream.take() or SILENT_FRAME
    assert share_of(bytes(out[12_800:]), 440) > 0.95


@pytest.mark.parametrize("frames", [1, 2])
def test_opus_of_20_and_40_ms(frames: int) -> None:
    encoder = OpusEncoder()
    stream = MediaStream(agreed("OPUS", 96, 48000))
    out = bytearray()
    for n in range(0, 60, frames):
        packets = [encoder.encode(tone_frame(440, n + i)) for i in range(frames)]
        payload = packets[0]
        if frames == 2:  # RFC 6716, code 3 with a length: two frames in one packet
            first = len(packets[0]) - 1
            assert first < 252
            payload = bytes([packets[0][0] | 3, 0x82, first]) + packets[0][1:] + packets[1][1:]
        assert opus_samples(payload) == 960 * frames
        stream.receive(bytes(Packet(96, n, n * 960, 1, payload)), THERE, 0.0)
        for _ in range(frames):
            out += stream.take() or SILENT_FRAME
    assert share_of(bytes(out[12_800:]), 440) > 0.9


def test_out_of_order_late_and_lost_packets() -> None:
    stream = MediaStream(agreed())
    audio = [bytes([n]) * 160 for n in range(40)]
    order = [0, 1, 3, 2, 4, 5, 7, 6, 8, 8, *range(9, 20), *range(22, 40)]
    heard: list[bool] = []
    for n in order:
        stream.receive(bytes(Packet(0, n, n * 160, 1, audio[n])), THERE, 0.0)
        heard.append(stream.take() is not None)
    assert heard.count(False) <= 5  # the filling at first and the lost two
    assert stream.counts.broken == 0


def test_nothing_is_sent_on_hold_and_the_clock_runs_on() -> None:
    stream = MediaStream(agreed())
    first = stream.make(SILENT_FRAME)
    assert first is not None
    stream.renegotiate(Agreed(Codec("PCMU", 0, 8000), EVENTS, THERE, "inactive", True))
    assert [stream.make(SILENT_FRAME) for _ in range(5)] == [None] * 5
    stream.renegotiate(agreed())
    second = stream.make(SILENT_FRAME)
    assert second is not None
    one, two = Packet.parse(first[0]), Packet.parse(second[0])
    assert (two.sequence - one.sequence) & 0xFFFF == 1
    assert (two.timestamp - one.timestamp) & 0xFFFFFFFF == 6 * 160
    assert two.marker
    assert second[1] == THERE


def test_a_party_behind_address_translation() -> None:
    gate = Gate(("10.0.0.5", 4000))
    real, wild = ("198.51.100.4", 31000), ("203.0.113.9", 999)
    verdicts = []
    for _ in range(PROBATION):
        verdicts.append(gate.admits(real, 1))
    assert verdicts == [False] * (PROBATION - 1) + [True]
    assert gate.remote == real
    assert not gate.admits(wild, 1)
    assert gate.admits(("10.0.0.5", 4000), 1)  # what was negotiated is always right, and from then on alone
    assert gate.remote == ("10.0.0.5", 4000)
    assert not gate.admits(real, 1)


def test_packets_that_are_not_rtp() -> None:
    for data in (
        b"",
        b"\x80\0\0",
        bytes(12),
        b"\x80\xc8" + bytes(10),
        b"\x90\0" + bytes(11),
        b"\xa0\0" + bytes(10) + b"\xff",
        b"\x8f\0" + bytes(10),
        b"\xa0\0" + bytes(11),
    ):
        with pytest.raises(RtpError):
            Packet.parse(data)
    extended = b"\x91\0\0\1\0\0\0\2\0\0\0\3" + bytes(4) + struct.pack("!HH", 1, 1) + bytes(4) + b"hi"
    assert Packet.parse(extended) == Packet(0, 1, 2, 3, b"hi")
    padded = b"\xa0\x80\0\1\0\0\0\2\0\0\0\3hi\0\2"
    assert Packet.parse(padded) == Packet(0, 1, 2, 3, b"hi", True)


async def test_silence_follows_speech_at_once(bridge: SipBridge, gateway: SipGateway) -> None:
    """Barge-in: nothing of what was said waits in the leg, so the first silent Frame is the next packet."""
    wire = await Wire.open(bridge.port)
    call = await talking(wire, gateway)
    await until(lambda: call.ticks > 20)
    leg = call.legs["caller"]
    call.talking = False
    spoken = call.ticks
    assert leg.flush() == 0
    assert leg.unplayed() == 0
    await until(lambda: call.ticks > spoken + 20)
    packets = [Packet.parse(wire.rtp.packets.get_nowait()) for _ in range(wire.rtp.packets.qsize())]
    loud = [int(np.abs(g711.decode(packet.payload).astype(int)).max()) > 500 for packet in packets]
    assert loud[:spoken] == [True] * spoken
    assert not any(loud[spoken + 1 :])  # one more may ring out of the resampler
    assert [b.sequence - a.sequence & 0xFFFF for a, b in pairwise(packets)] == [1] * (len(packets) - 1)
    assert await wire.bye() == 200
