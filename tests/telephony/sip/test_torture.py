"""Messages meant to break a parser, in the spirit of RFC 4475 and worse: written here, sent on real sockets.

After every one of them the bridge must still take a call.
"""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telephony.sip.bridge import SipBridge
from telephony.sip.dialog import Hop
from telephony.sip.endpoint import Endpoint
from telephony.sip.message import (
    Address,
    Framer,
    Headers,
    Request,
    Response,
    SipError,
    Uri,
    Via,
    canonical,
    parse,
    split,
)
from telephony.sip.sdp import Description, Local, SdpError
from tests.telephony.sip.conftest import SipGateway
from tests.telephony.sip.wire import HOST, TcpWire, Wire, sdp
from tests.telephony.tone_gateway import until

HOP = Hop("udp", "192.0.2.1", 5060)


def message(start: str, *changes: tuple[str, str | None], body: bytes = b"") -> bytes:
    """A request with some headers replaced (None: taken out), in a well-formed frame."""
    headers = {
        "Via": "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKtorture",
        "Max-Forwards": "70",
        "From": "<sip:a@example.com>;tag=1",
        "To": "<sip:b@example.com>",
        "Call-ID": "torture@example.com",
        "CSeq": f"1 {start.split(' ')[0]}",
        "Contact": "<sip:a@192.0.2.1>",
        "Content-Length": str(len(body)),
    }
    lines = [start]
    for name, value in changes:
        headers.pop(name, None)
        if value is not None:
            headers[name] = value
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


OPTIONS = "OPTIONS sip:b@example.com SIP/2.0"
INVITE = "INVITE sip:b@example.com SIP/2.0"

FOLDED = (
    b"OPTIONS sip:b@example.com SIP/2.0\r\nv:\r\n SIP / 2.0\r\n /UDP\r\n  192.0.2.1;branch=z9hG4bKf\r\n"
    b'f  :  "A \\\\ \\" <sip:x>"\r\n <sip:a@example.com>\r\n ; tag = 1\r\nTO: sip:b@example.com\r\ni: 1@x\r\n'
    b"cseq: 0009   \r\n OPTIONS\r\nMAX-FORWARDS: 068\r\nl: 0\r\n"
)
MANY = "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKv" + ", SIP/2.0/TCP p.example.com" * 60
VERDICTS: list[tuple[str, bytes, int | None]] = [  # name, message, the answer's status (None: no answer)
    ("plain", message(OPTIONS), 200),
    ("folded and compact", FOLDED + b"Extension: a,\"b\"\r\n\r\n", 200),
    ("folded, one line broken", FOLDED + b"Unknown-(Header: x\r\n\r\n", 400),
    ("escaped user", message("OPTIONS sip:%75s%65r;x=%00y@example.com;p SIP/2.0"), 200),
    ("many vias", message(OPTIONS, ("Via", MANY)), 200),
    ("odd method", message("!interesting-Method0123456789_*+`.%indeed'~ sip:b@example.com SIP/2.0"), 501),
    ("null in quotes", message(OPTIONS, ("From", '"a\\\0b" <sip:a@example.com>;tag=1')), 400),
    ("utf-8 name", message(OPTIONS, ("From", '"Jürgen \udcff" <sip:a@example.com>;tag=1')), 200),
    ("long values", message(OPTIONS, ("Subject", "x" * 9000)), 200),
    ("oversized headers", message(OPTIONS, ("Subject", "x" * 20_000)), None),
    ("too many headers", message(OPTIONS, *((f"X-{n}", "1") for n in range(200))), 513),
    ("wrong version", message("OPTIONS sip:b@example.com SIP/7.0"), 505),
    ("content length too large", message(OPTIONS, ("Content-Length", "9999")), 400),
    ("content length negative", message(OPTIONS, ("Content-Length", "-1")), 400),
    ("content length not ascii", message(OPTIONS, ("Content-Length", "٣")), 400),
    ("content length twice", message(OPTIONS, ("content-length", "0")), 400),
    ("cseq overflow", message(OPTIONS, ("CSeq", "36893488147419103232 OPTIONS")), 400),
    ("cseq of another method", message(OPTIONS, ("CSeq", "1 INVITE")), 400),
    ("no cseq", message(OPTIONS, ("CSeq", None)), None),
    ("no via", message(OPTIONS, ("Via", None)), None),
    ("no call-id", message(OPTIONS, ("Call-ID", None)), 400),
    ("broken via", message(OPTIONS, ("Via", "SIP/2.0/UDP ;;,;,,;;")), None),
    ("unclosed quote", message(OPTIONS, ("To", '"Mr J. User <sip:j@example.com>')), 400),
    ("unclosed bracket", message(OPTIONS, ("To", "<sip:j@example.com")), 400),
    ("two froms", message(OPTIONS, ("f", "<sip:c@example.com>;tag=2")), 400),
    ("unknown scheme", message("OPTIONS nobodyKnowsThisScheme:totally SIP/2.0"), 416),
    ("spaces in the uri", message("OPTIONS sip:b@example.com; lr SIP/2.0"), None),
    ("uri in brackets", message("OPTIONS <sip:b@example.com> SIP/2.0"), 416),
    ("port too large", message("OPTIONS sip:b@example.com:99999 SIP/2.0"), 400),
    ("no hops left", message(INVITE, ("Max-Forwards", "0"), body=sdp(4000)), 483),
    ("two contacts", message(INVITE, ("Contact", "<sip:a@x>, <sip:b@x>"), body=sdp(4000)), 400),
    ("star contact", message(INVITE, ("Contact", "*"), body=sdp(4000)), 400),
    ("broken record-route", message(INVITE, ("Record-Route", "<sip:;;@@>"), body=sdp(4000)), 400),
    ("ack of nothing", message("ACK sip:b@example.com SIP/2.0"), None),
    ("broken ack", message("ACK sip:b@example.com SIP/2.0", ("To", "<<<")), None),
    ("a response to nothing", message("SIP/2.0 200 OK", ("CSeq", "1 INVITE")), None),
    ("a response out of range", message("SIP/2.0 4294967301 better not", ("CSeq", "1 INVITE")), None),
    ("keep-alive", b"\r\n\r\n", None),
    ("only a start line", b"OPTIONS sip:b@example.com SIP/2.0\r\n\r\n", None),
    ("no end", b"OPTIONS sip:b@example.com SIP/2.0\r\nVia: x", None),
    ("http", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", None),
    ("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300), None),
    ("zeros", bytes(2000), None),
    ("60 kB", b"A" * 60_000, None),
]  # fmt: skip


def statuses(endpoint: Endpoint) -> list[int]:
    """Of the answers, by their first lines alone: an answer repeats the faults of its request."""
    return [int(out.split(b" ", 2)[1]) for out, _ in endpoint.transactions.outbox if out.startswith(b"SIP/2.0 ")]


@pytest.mark.parametrize(("data", "status"), [pytest.param(*case[1:], id=case[0]) for case in VERDICTS])
def test_verdicts(data: bytes, status: int | None) -> None:
    endpoint = Endpoint("offhook", lambda hop: "192.0.2.2:5060", 10)
    endpoint.receive(data, HOP, 0.0)
    assert statuses(endpoint) == ([status] if status else [])


async def test_all_of_it_on_the_wire_and_calls_go_on(bridge: SipBridge, gateway: SipGateway) -> None:
    wire = await Wire.open(bridge.port)
    for _, data, _ in VERDICTS:
        wire.send(data[:65_000])
    chance = random.Random(4475)
    good = wire.request("INVITE", sdp(wire.rtp.port))
    for _ in range(300):
        data = bytearray(good)
        for _ in range(chance.randint(1, 8)):
            at = chance.randrange(len(data))
            data[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
        wire.send(bytes(data))
        await asyncio.sleep(0)
    for _, data, _ in VERDICTS:
        tcp = await TcpWire.open(bridge.port)
        tcp.writer.write(data)
    wire = await Wire.open(bridge.port, "transcribe")
    await wire.answered()
    await until(lambda: any(call.offer.to == "transcribe" and call.legs for call in gateway.calls))
    assert await wire.bye() == 200


async def test_a_stream_that_lies_about_its_length_is_closed(bridge: SipBridge) -> None:
    wire = await Wire.open(bridge.port)
    for data in (b"x" * 20_000, wire.request("OPTIONS").replace(b"Content-Length: 0", b"Content-Length: 99999999")):
        tcp = await TcpWire.open(bridge.port)
        tcp.writer.write(data)
        assert await tcp.hear() is None


async def test_connections_are_bounded(bridge: SipBridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telephony.sip.net.MAX_CONNECTIONS", 3)
    first = [await TcpWire.open(bridge.port) for _ in range(3)]
    await asyncio.sleep(0.05)
    over = await TcpWire.open(bridge.port)
    try:
        assert await over.hear() is None
    except ConnectionError:
        pass
    wire = await Wire.open(bridge.port)
    first[0].writer.write(wire.request("OPTIONS").replace(b"/UDP", b"/TCP"))
    assert isinstance(await first[0].hear(), Response)


# -- properties

names = st.sampled_from(["Via", "From", "To", "Call-ID", "CSeq", "Contact", "X-Thing", "v", "f", "Record-Route"])
texts = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=40)


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    for read in (parse, Description.parse):
        try:
            read(data)
        except (SipError, SdpError):
            pass
    endpoint = Endpoint("offhook", lambda hop: "192.0.2.2:5060", 10)
    endpoint.receive(data, HOP, 0.0)


@settings(max_examples=300)
@given(st.lists(st.tuples(names, texts), max_size=6), st.sampled_from(["INVITE", "BYE", "ACK", "CANCEL", "OPTIONS"]))
def test_any_headers_never_break_the_endpoint(headers: list[tuple[str, str]], method: str) -> None:
    endpoint = Endpoint("offhook", lambda hop: "192.0.2.2:5060", 10)
    data = message(f"{method} sip:b@example.com SIP/2.0", *headers, body=sdp(4000))
    endpoint.receive(data, HOP, 0.0)
    endpoint.receive(data, HOP, 0.1)
    assert all(100 <= status < 600 for status in statuses(endpoint))
    endpoint.transactions.wake(1000.0)


@given(texts, texts)
def test_splitting_loses_nothing(one: str, two: str) -> None:
    quoted = '"' + one.replace("\\", "").replace('"', "") + '"'
    assert split(f"{quoted};x,<{two.replace('<', '').replace('>', '').replace(chr(34), '')}>", ",")[0] == f"{quoted};x"


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_frames_do_not_depend_on_how_the_stream_is_cut(bodies: list[bytes]) -> None:
    messages = [message(OPTIONS, body=body) for body in bodies]
    stream = b"".join(messages)
    whole, bytewise = Framer(), Framer()
    assert whole.feed(stream) == messages
    assert [got for at in range(len(stream)) for got in bytewise.feed(stream[at : at + 1])] == messages


@given(
    st.lists(st.tuples(st.sampled_from(["To", "X-A", "Via"]), st.text("abc ,;=", max_size=20)), max_size=5), st.binary()
)
def test_a_rendered_message_reads_back(extra: list[tuple[str, str]], body: bytes) -> None:
    base = parse(message(OPTIONS))
    assert isinstance(base, Request)
    headers = Headers([*base.headers, *(("X-" + name, value.strip()) for name, value in extra)])
    again = parse(bytes(Request("OPTIONS", base.uri, headers, body)))
    assert isinstance(again, Request)
    assert again.body == body
    assert [item for item in again.headers if item[0] != "Content-Length"] == [
        item for item in headers if item[0] != "Content-Length"
    ]


def test_values() -> None:
    assert Uri.parse("sip:assist+R%207;x=1@Host.Example:5070;transport=TCP;lr?a=b") == Uri(
        "assist+R 7;x=1", "Host.Example", 5070, {"transport": "TCP", "lr": ""}
    )
    assert Uri.parse("sips:[2001:db8::1]:5061").host == "2001:db8::1"
    address = Address.parse('"Ann \\"A\\" <x>" <sip:ann@x;lr>;tag=7;q="a;b"')
    assert (address.display, address.uri, address.params) == ('Ann "A" <x>', "sip:ann@x;lr", {"tag": "7", "q": "a;b"})
    assert Address.parse("sip:a@b;tag=1").params == {"tag": "1"}
    via = Via.parse("SIP/2.0/UDP [::1]:5070;branch=z9hG4bK1;rport")
    assert (via.host, via.port, via.params) == ("::1", 5070, {"branch": "z9hG4bK1", "rport": ""})
    assert [canonical(name) for name in ("i", "CSEQ", "x-offhook-call-id", "l")] == [
        "Call-ID", "CSeq", "X-Offhook-Call-ID", "Content-Length",
    ]  # fmt: skip


def test_an_answer_names_every_media_line_of_the_offer() -> None:
    offer = sdp(4000) + b"m=video 4002 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\nm=audio 4004 RTP/AVP 8\r\n"
    _, body = Local(HOST, 5000, 7).answer(Description.parse(offer))
    media = Description.parse(body).media
    assert [(section.kind, section.port) for section in media] == [("audio", 5000), ("video", 0), ("audio", 0)]
