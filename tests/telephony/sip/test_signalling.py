"""What the bridge answers, message by message, on a real socket."""

from __future__ import annotations

import asyncio

import pytest

from telephony.bridge import Refused
from telephony.sip.bridge import SipBridge
from telephony.sip.message import Request, Response
from telephony.sip.sdp import Description, choose
from tests.telephony.sip.conftest import SipGateway, serving
from tests.telephony.sip.wire import HOST, Talker, TcpWire, Wire, sdp
from tests.telephony.tone_gateway import until


@pytest.fixture
async def wire(bridge: SipBridge) -> Wire:
    return await Wire.open(bridge.port)


async def test_it_rings_until_the_gateway_admits_the_call(wire: Wire, gateway: SipGateway) -> None:
    gateway.admit.clear()
    wire.invite()
    message = await wire.hear()
    assert isinstance(message, Response)
    assert message.status == 180
    await until(lambda: bool(gateway.rings))
    wire.send(wire.request("OPTIONS", branch="z9hG4bKnudge"))
    assert (await wire.response()).headers.get("CSeq") == "1 OPTIONS"
    gateway.admit.set()
    response = await wire.response()
    assert response.status == 200
    assert response.headers.get("X-Offhook-Call-ID") == "call-0"
    assert not gateway.calls[0].legs  # nothing begins before the ACK
    wire.ack()
    await until(lambda: bool(gateway.calls[0].legs))
    assert await wire.bye() == 200
    await until(gateway.calls[0].over.is_set)


async def test_cancel_while_it_rings(wire: Wire, gateway: SipGateway) -> None:
    gateway.admit.clear()
    wire.invite()
    await until(lambda: bool(gateway.rings))
    wire.send(wire.request("CANCEL", branch=wire.branch))
    statuses = {}
    for _ in range(2):
        response = await wire.response()
        statuses[response.headers.get("CSeq").split()[-1]] = response.status
    assert statuses == {"CANCEL": 200, "INVITE": 487}
    wire.ack(branch=wire.branch)
    await until(lambda: gateway.gave_up == 1)
    assert not gateway.calls


async def test_cancel_of_nothing(wire: Wire) -> None:
    wire.send(wire.request("CANCEL"))
    assert await wire.status() == 481


async def test_never_acknowledged_is_abandoned(
    wire: Wire, gateway: SipGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telephony.sip.transaction.PATIENCE", 1.2)
    wire.invite()
    assert await wire.status() == 200
    assert await wire.status() == 200  # said again, for no ACK came
    bye = await wire.until_request("BYE")
    wire.reply_ok(bye)
    await until(gateway.calls[0].over.is_set)
    assert gateway.calls[0].abandoned == ["the answer was never acknowledged"]


async def test_a_repeated_invite_is_one_call(wire: Wire, gateway: SipGateway) -> None:
    data = wire.request("INVITE", sdp(wire.rtp.port))
    for _ in range(3):
        wire.send(data)
    assert await wire.status() == 200
    wire.ack()
    wire.send(data)  # late: the 200 again
    assert await wire.status() == 200
    wire.ack()
    assert await wire.bye() == 200
    assert len(gateway.rings) == 1


async def test_the_same_call_by_two_ways_is_refused_once(wire: Wire, gateway: SipGateway) -> None:
    gateway.admit.clear()
    wire.invite(branch="z9hG4bKone00")
    await until(lambda: bool(gateway.rings))
    wire.invite(branch="z9hG4bKtwo00")
    assert await wire.status() == 482
    wire.ack(branch="z9hG4bKtwo00")
    gateway.admit.set()
    wire.to = wire.to.partition(">")[0] + ">"
    assert await wire.status() == 200
    wire.ack()
    assert await wire.bye() == 200


async def test_no_common_codec(wire: Wire, gateway: SipGateway) -> None:
    wire.invite(sdp(wire.rtp.port, formats="3 18 101", more="a=rtpmap:3 GSM/8000\r\na=rtpmap:18 G729/8000\r\n"))
    assert await wire.status() == 488
    wire.ack(branch=wire.branch)
    assert not gateway.rings  # nobody was asked


@pytest.mark.parametrize(
    "body", [b"v=0\r\n", b"nonsense", b"v=0\r\nm=audio x RTP/AVP 0\r\n", sdp(9).replace(b"AVP", b"SAVP"), sdp(0)]
)
async def test_a_description_that_makes_no_sense(wire: Wire, body: bytes) -> None:
    wire.invite(body)
    assert await wire.status() == 488


@pytest.mark.parametrize(("busy", "status"), [(True, 486), (False, 503)])
async def test_refused_by_the_gateway(wire: Wire, gateway: SipGateway, busy: bool, status: int) -> None:
    gateway.refuse = Refused("full", busy=busy)
    wire.invite()
    assert await wire.status() == status
    assert await wire.status() == status  # until it is acknowledged
    wire.ack(branch=wire.branch)


@pytest.mark.parametrize(("trusted", "known"), [("127.0.0.0/8", True), ("::1, 192.0.2.0/24", False), ("", False)])
async def test_whose_phones_are_trusted(gateway: SipGateway, trusted: str, known: bool) -> None:
    async with serving(gateway, trusted=trusted) as bridge:
        gateway.refuse = Refused("a stranger", forbidden=True)
        wire = await Wire.open(bridge.port)
        wire.invite()
        assert await wire.status() == 403
        wire.ack(branch=wire.branch)
    assert [offer.trusted for offer in gateway.rings] == [known]


async def test_more_legs_than_there_is_room_for(gateway: SipGateway) -> None:
    async with serving(gateway, max_legs=1) as bridge:
        one, two = await Wire.open(bridge.port), await Wire.open(bridge.port)
        await one.answered()
        two.invite()
        refusal = await two.response()
        assert refusal.status == 486
        assert refusal.headers.get("Retry-After")
        assert await one.bye() == 200


async def test_no_free_media_port(gateway: SipGateway) -> None:
    async with serving(gateway, rtp_ports="1-1") as bridge:
        wire = await Wire.open(bridge.port)
        wire.invite()
        assert await wire.status() == 503
        await until(gateway.calls[0].over.is_set)
        assert gateway.calls[0].abandoned


async def test_an_invite_without_a_description_gets_our_offer(wire: Wire, gateway: SipGateway) -> None:
    wire.invite(b"")
    response = await wire.response()
    assert response.status == 200
    assert {codec.name for codec in Description.parse(response.body).media[0].codecs()} >= {"PCMU", "PCMA", "OPUS"}
    wire.ack(sdp(wire.rtp.port, formats="8 101"))
    await until(lambda: bool(gateway.calls[0].legs))
    packet = await asyncio.wait_for(wire.rtp.packets.get(), 10)
    assert packet[1] & 0x7F == 8  # A-law, as the answer said
    assert await wire.bye() == 200


async def test_an_answer_in_the_ack_that_does_not_fit_ends_the_call(wire: Wire, gateway: SipGateway) -> None:
    wire.invite(b"")
    assert await wire.status() == 200
    wire.ack(b"")
    wire.reply_ok(await wire.until_request("BYE"))
    await until(gateway.calls[0].over.is_set)
    assert gateway.calls[0].abandoned


async def test_hold_and_resume(wire: Wire, gateway: SipGateway) -> None:
    await wire.answered()
    call = gateway.calls[0]
    await until(lambda: bool(call.legs))
    held = await wire.change(sdp(wire.rtp.port, direction="sendonly"))
    assert b"a=recvonly" in held.body
    await until(lambda: gateway.held == [True])
    await asyncio.sleep(0.1)
    while not wire.rtp.packets.empty():
        wire.rtp.packets.get_nowait()
    ticks = call.ticks
    await until(lambda: call.ticks > ticks + 10)
    assert wire.rtp.packets.empty()  # nothing is sent to a party that does not listen
    resumed = await wire.change(sdp(wire.rtp.port))
    assert b"a=sendrecv" in resumed.body
    await until(lambda: gateway.held == [True, False])
    await asyncio.wait_for(wire.rtp.packets.get(), 10)
    # The old way (RFC 2543), and by UPDATE.
    await wire.change(sdp(wire.rtp.port, host="0.0.0.0"))
    await until(lambda: gateway.held == [True, False, True])
    assert b"a=sendrecv" in (await wire.change(sdp(wire.rtp.port), "UPDATE")).body
    await until(lambda: gateway.held == [True, False, True, False])
    assert await wire.bye() == 200


async def test_a_change_that_does_not_fit_changes_nothing(wire: Wire, gateway: SipGateway) -> None:
    await wire.answered()
    await until(lambda: bool(gateway.calls and gateway.calls[0].legs))
    refused = await wire.change(sdp(wire.rtp.port, formats="3 101"))
    assert refused.status == 488
    assert (await wire.change(b"")).status == 200  # no description: we say what we have
    wire.cseq -= 1
    wire.send(wire.request("INFO"))
    assert await wire.status() == 500  # out of order
    wire.cseq += 1
    assert await wire.bye() == 200
    await until(gateway.calls[0].over.is_set)


async def test_a_new_media_address(wire: Wire, gateway: SipGateway) -> None:
    await wire.answered()
    await until(lambda: bool(gateway.calls and gateway.calls[0].legs))
    other = await Wire.open(wire.server)
    await wire.change(sdp(other.rtp.port))
    await asyncio.wait_for(other.rtp.packets.get(), 10)
    talker = Talker(other.rtp, wire.media_port)
    await talker.talk(30)
    assert any(gateway.calls[0].heard["caller"])
    assert await wire.bye() == 200


async def test_keys_by_info(wire: Wire, gateway: SipGateway) -> None:
    await wire.answered()
    await until(lambda: bool(gateway.calls and gateway.calls[0].legs))
    for kind, body in [("dtmf-relay", b"Signal=5\r\nDuration=160\r\n"), ("dtmf", b"#"), ("dtmf", b"hello")]:
        wire.cseq += 1
        wire.send(wire.request("INFO", body, extra=f"Content-Type: application/{kind}\r\n"))
        assert await wire.status() == 200
    assert gateway.calls[0].digits == ["5", "#"]
    assert await wire.bye() == 200


@pytest.mark.parametrize(
    ("method", "status"),
    [("OPTIONS", 200), ("MESSAGE", 405), ("SUBSCRIBE", 405), ("REGISTER", 405), ("NEWMETHOD", 501), ("BYE", 481)],
)
async def test_requests_outside_a_call(wire: Wire, method: str, status: int) -> None:
    wire.send(wire.request(method))
    response = await wire.response()
    assert response.status == status
    if status == 405:
        assert "INVITE" in response.headers.get("Allow")


async def test_extensions_that_we_lack(wire: Wire) -> None:
    wire.invite(extra="Require: 100rel, other\r\n")
    response = await wire.response()
    assert response.status == 420
    assert response.headers.get("Unsupported") == "100rel, other"


async def test_other_kinds_of_body_and_uri(wire: Wire) -> None:
    wire.send(wire.request("INVITE", b"x", extra="Content-Type: text/plain\r\n"))
    assert await wire.status() == 415
    wire.to = f"<sip:answer@{HOST}>"
    wire.call_id += "2"
    wire.invite(uri="mailto:answer@example.com")
    assert await wire.status() == 416


async def test_the_bridge_says_goodbye_when_it_stops(gateway: SipGateway) -> None:
    async with serving(gateway) as bridge:
        wire = await Wire.open(bridge.port)
        await wire.answered()
        await until(lambda: bool(gateway.calls and gateway.calls[0].legs))
        goodbye = asyncio.create_task(wire.until_request("BYE"))
        goodbye.add_done_callback(lambda task: wire.reply_ok(task.result()))
    bye = await goodbye
    assert bye.uri == f"sip:wire@{HOST}:{wire.sip.port}"
    assert gateway.calls[0].closed == [("the service is stopping", False)]


async def test_record_routes_are_followed(wire: Wire, gateway: SipGateway) -> None:
    """The BYE of ours goes through the proxies of the INVITE, in their order, to the Contact."""
    proxy = f"<sip:{HOST}:{wire.sip.port};lr>"
    response = await wire.answered(extra=f"Record-Route: {proxy}, <sip:second.example.com;lr>\r\n")
    assert "second.example.com" in response.headers.get("Record-Route")
    await until(lambda: bool(gateway.calls and gateway.calls[0].legs))
    await gateway.calls[0].legs["caller"].hang_up("enough")
    bye = await wire.until_request("BYE")
    assert bye.headers.all("Route") == [proxy, "<sip:second.example.com;lr>"]
    assert bye.uri == f"sip:wire@{HOST}:{wire.sip.port}"
    wire.reply_ok(bye)


async def test_tcp_torn_and_glued(bridge: SipBridge) -> None:
    wire = await Wire.open(bridge.port)
    tcp = await TcpWire.open(bridge.port)
    options = [wire.request("OPTIONS", branch=f"z9hG4bKtcp{n}").replace(b"/UDP", b"/TCP") for n in range(3)]
    data = b"\r\n\r\n" + b"".join(options)
    for at in range(0, len(data), 37):
        tcp.writer.write(data[at : at + 37])
        await asyncio.sleep(0)
    for _ in options:
        message = await tcp.hear()
        while isinstance(message, Request):
            message = await tcp.hear()
        assert isinstance(message, Response)
        assert message.status == 200


async def test_a_call_over_tcp_is_ended_on_its_connection(bridge: SipBridge, gateway: SipGateway) -> None:
    wire = await Wire.open(bridge.port)
    tcp = await TcpWire.open(bridge.port)
    tcp.writer.write(wire.request("INVITE", sdp(wire.rtp.port)).replace(b"/UDP", b"/TCP"))
    response = None
    while not isinstance(response, Response) or response.status < 200:
        response = await tcp.hear()
    assert "transport=tcp" in response.headers.get("Contact")
    wire.to = response.headers.get("To")
    tcp.writer.write(wire.request("ACK").replace(b"/UDP", b"/TCP"))
    await until(lambda: bool(gateway.calls and gateway.calls[0].legs))
    await gateway.calls[0].legs["caller"].hang_up("enough")
    bye = await tcp.hear()
    assert isinstance(bye, Request)
    assert bye.method == "BYE"


def test_the_answer_takes_the_offers_order() -> None:
    body = sdp(4000, formats="96 8 0 101", more="a=rtpmap:96 opus/48000/2\r\n")
    assert choose(Description.parse(body))[1].codec.name == "OPUS"


async def test_behind_port_forwarding_the_public_address_is_told(gateway: SipGateway) -> None:
    async with serving(gateway, public_host="203.0.113.5") as bridge:
        wire = await Wire.open(bridge.port)
        response = await wire.answered()
        assert f"sip:offhook@203.0.113.5:{bridge.port}" in response.headers.get("Contact")
        assert b"c=IN IP4 203.0.113.5" in response.body
        assert await wire.bye() == 200
