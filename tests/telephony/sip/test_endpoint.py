"""Timers, dialogs, registration and the dialled number, without sockets: time is an argument."""

from __future__ import annotations

import gc
from itertools import pairwise

import pytest

from calls.errors import IllegalTransition, SettingsError
from calls.model import Mode, Role
from telephony.sip.dialled import Networks, clean, meaning, offer
from telephony.sip.dialog import STEPS, Dialog, Hop, Phase, Step
from telephony.sip.endpoint import Endpoint, Invited, Over, Talking
from telephony.sip.message import Headers, Request, Response, SipError, parse
from telephony.sip.register import EXPIRES, Registrar, Registration, digest
from telephony.sip.transaction import MAX_SERVER, T2, Transactions
from tests.telephony.sip.test_torture import HOP, INVITE, OPTIONS, message
from tests.telephony.sip.wire import sdp

VIA = "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKother"


class Peer:
    """An endpoint and the other side of it."""

    def __init__(self) -> None:
        self.endpoint = Endpoint("offhook", lambda hop: "192.0.2.2:5060", 10)
        self.now = 0.0

    def say(self, data: bytes, hop: Hop = HOP) -> None:
        self.endpoint.receive(data, hop, self.now)

    def out(self) -> list[Request | Response]:
        outbox = self.endpoint.transactions.outbox
        messages = [parse(data) for data, _ in outbox]
        outbox.clear()
        return messages

    def run(self, until: float) -> list[tuple[float, Request | Response]]:
        """Let time pass; what is sent and when."""
        sent = []
        while (due := self.endpoint.transactions.next_timer()) is not None and due <= until:
            self.now = due
            self.endpoint.transactions.wake(due)
            sent += [(due, one) for one in self.out()]
        self.now = until
        return sent

    def invited(self, *changes: tuple[str, str | None], hop: Hop = HOP) -> Dialog:
        self.say(message(INVITE, *changes, body=sdp(4000)), hop)
        event = self.endpoint.events.popleft()
        assert isinstance(event, Invited)
        assert [m.status for m in self.out() if isinstance(m, Response)] == [100]
        return event.dialog

    def acked(self, dialog: Dialog) -> None:
        to = ("To", f"<sip:b@example.com>;tag={dialog.tag}")
        self.say(message("ACK sip:b@example.com SIP/2.0", to, ("Via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKack")))


def test_a_200_is_repeated_until_acknowledged() -> None:
    peer = Peer()
    dialog = peer.invited()
    peer.endpoint.answer(dialog, sdp(5000), 0.0)
    peer.out()
    times = [at for at, _ in peer.run(12.0)]
    assert times[0] == 0.5
    assert all(round(b - a, 3) <= T2 for a, b in pairwise(times))
    peer.acked(dialog)
    assert isinstance(peer.endpoint.events.popleft(), Talking)
    assert not peer.run(100.0)


def test_a_200_that_is_never_acknowledged_ends_in_a_bye() -> None:
    peer = Peer()
    dialog = peer.invited()
    peer.endpoint.answer(dialog, sdp(5000), 0.0)
    sent = peer.run(40.0)
    assert any(isinstance(m, Request) and m.method == "BYE" for _, m in sent)
    event = peer.endpoint.events.popleft()
    assert isinstance(event, Over)
    assert event.lost


def test_a_hang_up_before_the_ack_waits_for_it() -> None:
    peer = Peer()
    dialog = peer.invited()
    peer.endpoint.answer(dialog, sdp(5000), 0.0)
    peer.out()
    peer.endpoint.hang_up(dialog, 0.1)
    assert not peer.out()
    peer.acked(dialog)
    (bye,) = peer.out()
    assert isinstance(bye, Request)
    assert (bye.method, bye.uri) == ("BYE", "sip:a@192.0.2.1")
    assert bye.headers.get("To") == "<sip:a@example.com>;tag=1"
    assert bye.headers.get("From") == f"<sip:b@example.com>;tag={dialog.tag}"


def test_a_bye_is_repeated_then_given_up() -> None:
    peer = Peer()
    dialog = peer.invited()
    peer.endpoint.answer(dialog, sdp(5000), 0.0)
    peer.acked(dialog)
    peer.endpoint.hang_up(dialog, 0.0)
    peer.out()
    sent = peer.run(200.0)
    assert {m.method for _, m in sent if isinstance(m, Request)} == {"BYE"}
    assert 8 <= len(sent) <= 12
    assert peer.endpoint.transactions.idle


def test_a_refusal_is_repeated_until_acknowledged() -> None:
    peer = Peer()
    dialog = peer.invited()
    peer.endpoint.refuse(dialog, 486, 0.0)
    peer.out()
    assert len(peer.run(2.0)) == 2
    peer.say(message("ACK sip:b@example.com SIP/2.0"))
    assert not peer.run(100.0)


def test_over_tcp_a_refusal_is_said_once() -> None:
    peer = Peer()
    hop = Hop("tcp", "192.0.2.1", 40000, 3)
    dialog = peer.invited(("Via", "SIP/2.0/TCP 192.0.2.1;branch=z9hG4bKtcp"), hop=hop)
    peer.endpoint.refuse(dialog, 503, 0.0)
    peer.out()
    assert not peer.run(31.0)


def test_who_behind_translation_calls_is_answered_where_it_came_from() -> None:
    peer = Peer()
    hop = Hop("udp", "198.51.100.9", 33333)
    dialog = peer.invited(("Via", "SIP/2.0/UDP 10.0.0.5:5060;branch=z9hG4bKnat;rport"), hop=hop)
    peer.endpoint.answer(dialog, sdp(5000), 0.0)
    (answer,) = peer.out()
    assert "rport=33333" in answer.headers.get("Via")
    assert "received=198.51.100.9" in answer.headers.get("Via")
    assert dialog.next_hop() == hop


def test_a_strict_router_gets_its_own_uri() -> None:
    peer = Peer()
    dialog = peer.invited(("Record-Route", "<sip:192.0.2.50>, <sip:192.0.2.51;lr>"))
    bye = dialog.request("BYE")
    assert bye.uri == "sip:192.0.2.50"
    assert bye.headers.all("Route") == ["<sip:192.0.2.51;lr>", "<sip:a@192.0.2.1>"]
    assert dialog.next_hop() == Hop("udp", "192.0.2.50", 5060)


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("step", list(Step))
def test_the_table_of_a_calls_life(phase: Phase, step: Step) -> None:
    dialog = Peer().invited()
    dialog.phase = phase
    if (phase, step) in STEPS:
        dialog.step(step)
        assert dialog.phase is STEPS[phase, step]
    else:
        with pytest.raises(IllegalTransition):
            dialog.step(step)
        assert dialog.phase is phase


SESSION = (("Session-Expires", "120"), ("Supported", "100rel, timer"))


def test_a_session_that_is_not_refreshed_ends() -> None:
    peer = Peer()
    dialog = peer.invited(*SESSION)
    peer.endpoint.answer(dialog, sdp(5000), 0.0)
    (answer,) = peer.out()
    assert answer.headers.get("Session-Expires") == "120;refresher=uac"
    assert answer.headers.get("Require") == "timer"
    peer.acked(dialog)
    peer.endpoint.events.clear()
    peer.run(60.0)
    inside = ("To", f"<sip:b@example.com>;tag={dialog.tag}")
    via = ("Via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKrefresh")
    peer.say(message("UPDATE sip:b@192.0.2.2 SIP/2.0", inside, via, ("CSeq", "2 UPDATE"), *SESSION))
    (answer,) = peer.out()
    assert isinstance(answer, Response)
    assert (answer.status, answer.headers.get("Session-Expires")) == (200, "120;refresher=uac")
    assert not peer.run(147.0)
    (at, bye), *_ = peer.run(149.0)
    assert isinstance(bye, Request)
    assert (at, bye.method) == (148.0, "BYE")
    event = peer.endpoint.events.popleft()
    assert isinstance(event, Over)
    assert event.lost


def test_a_long_session_timer_is_cut_short_and_does_not_keep_a_dead_call() -> None:
    peer = Peer()
    dialog = peer.invited(("Session-Expires", "999999"), ("Supported", "timer"))
    peer.endpoint.answer(dialog, sdp(5000), 0.0)
    (answer,) = peer.out()
    assert answer.headers.get("Session-Expires") == "1800;refresher=uac"
    peer.acked(dialog)
    peer.endpoint.hang_up(dialog, 1.0)
    peer.run(100.0)  # the transactions are over; the session's timer is not
    peer.endpoint.events.clear()
    tag = dialog.tag
    del dialog, answer
    gc.collect()
    assert not [found for found in gc.get_objects() if type(found) is Dialog and found.tag == tag]
    assert peer.endpoint.transactions.next_timer() is not None


def test_a_party_that_will_refresh_less_often_than_we_want_gets_no_session_timer() -> None:
    peer = Peer()
    dialog = peer.invited(("Session-Expires", "7200"), ("Min-SE", "3600"), ("Supported", "timer"))
    peer.endpoint.answer(dialog, sdp(5000), 0.0)
    (answer,) = peer.out()
    assert "Session-Expires" not in answer.headers


def test_session_timers_that_we_leave_out_or_refuse() -> None:
    peer = Peer()
    dialog = peer.invited(("Session-Expires", "120;refresher=uas"), ("Require", "timer"))
    peer.endpoint.answer(dialog, sdp(5000), 0.0)
    (answer,) = peer.out()
    assert "Session-Expires" not in answer.headers
    peer.say(message(INVITE, ("Session-Expires", "10"), ("Supported", "timer"), ("Call-ID", "2"), ("Via", f"{VIA}2")))
    (answer,) = peer.out()
    assert isinstance(answer, Response)
    assert (answer.status, answer.headers.get("Min-SE")) == (422, "90")


def test_transactions_are_bounded() -> None:
    peer = Peer()
    for n in range(MAX_SERVER + 500):
        peer.say(message(OPTIONS, ("Via", f"SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKn{n}")))
    assert len(peer.endpoint.transactions._servers) <= MAX_SERVER
    peer.run(100.0)
    assert not peer.endpoint.transactions._servers


# -- registration


class Registry:
    """A registrar without a network."""

    def __init__(self, account: str = "sip:garage:secret@192.0.2.9") -> None:
        self.transactions = Transactions()
        self.heard: list[tuple[bool, str]] = []
        self.registration = Registration(
            Registrar.parse(account),
            self.transactions,
            lambda: Hop("udp", "192.0.2.9", 5060),
            lambda hop: "192.0.2.2:5060",
            lambda ok, why: self.heard.append((ok, why)),
        )

    def asked(self) -> Request:
        data, _ = self.transactions.outbox.popleft()
        request = parse(data)
        assert isinstance(request, Request)
        return request

    def reply(self, request: Request, status: int, *more: tuple[str, str], now: float = 0.0) -> None:
        kept = [item for item in request.headers if item[0] in ("Via", "From", "To", "Call-ID", "CSeq")]
        self.transactions.hear(Response(status, "x", Headers([*kept, *more])), now)


def test_registration_refresh_and_removal() -> None:
    registry = Registry()
    registry.registration.start(0.0)
    first = registry.asked()
    assert first.headers.get("Expires") == str(EXPIRES)
    registry.reply(first, 401, ("WWW-Authenticate", 'Digest realm="x, y", nonce="n", qop="auth,auth-int"'))
    second = registry.asked()
    assert 'realm="x, y"' in second.headers.get("Authorization")
    assert "nc=00000001" in second.headers.get("Authorization")
    assert second.cseq == first.cseq + 1
    registry.reply(second, 200, ("Contact", "<sip:other@x>;expires=9, <sip:garage@192.0.2.2:5060>;expires=100"))
    assert registry.registration.registered
    assert registry.heard == [(True, "for 100 s")]
    registry.transactions.wake(29.0)
    assert not registry.transactions.outbox
    registry.transactions.wake(60.0)
    assert registry.asked().headers.get("Call-ID") == first.headers.get("Call-ID")
    registry.registration.stop(61.0)
    last = registry.asked()
    assert last.headers.get("Expires") == "0"
    registry.reply(last, 200)
    assert not registry.registration.registered


def test_registration_failures_are_retried_more_and_more_slowly() -> None:
    registry = Registry()
    registry.registration.start(0.0)
    now, gaps = 0.0, []
    for _ in range(4):
        registry.reply(registry.asked(), 403, now=now)
        assert not registry.registration.registered
        before = now
        while not registry.transactions.outbox:
            now = registry.transactions.next_timer() or 0.0
            registry.transactions.wake(now)
        gaps.append(now - before)
    assert gaps == [2.0, 4.0, 8.0, 16.0]


def test_a_registrar_that_never_answers() -> None:
    registry = Registry()
    registry.registration.start(0.0)
    while not registry.heard:
        registry.transactions.wake(registry.transactions.next_timer() or 0.0)
    assert registry.heard == [(False, "the registrar does not answer")]


def test_a_registrar_that_challenges_for_ever() -> None:
    registry = Registry()
    registry.registration.start(0.0)
    for n in range(10):
        if registry.heard:
            break
        challenge = ("WWW-Authenticate", f'Digest realm="x", nonce="n{n}", stale=true, algorithm=SHA-256')
        registry.reply(registry.asked(), 401, challenge)
    assert not registry.heard[0][0]
    assert n <= 4


@pytest.mark.parametrize(
    "challenge",
    ["Basic realm=x", 'Digest realm="x", nonce="n", algorithm=MD5-sess', 'Digest realm="x", nonce="n", qop="auth-int"'],
)
def test_challenges_that_we_cannot_meet(challenge: str) -> None:
    registry = Registry()
    registry.registration.start(0.0)
    registry.reply(registry.asked(), 401, ("WWW-Authenticate", challenge))
    assert not registry.heard[0][0]


def test_a_longer_interval_is_taken() -> None:
    registry = Registry()
    registry.registration.start(0.0)
    registry.reply(registry.asked(), 423, ("Min-Expires", "1800"))
    assert registry.asked().headers.get("Expires") == "1800"


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_digest_as_in_rfc_7616(algorithm: str, response: str) -> None:
    challenge = {
        "realm": "http-auth@example.org",
        "qop": "auth, auth-int",
        "algorithm": algorithm,
        "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        "opaque": "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
    }
    who = Registrar("Mufasa", "x", password="Circle of Life")
    text = digest(challenge, "GET", "/dir/index.html", who, "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", 1)
    assert f'response="{response}"' in text


def test_how_a_registrar_is_written() -> None:
    parsed = Registrar.parse("sip:100:p:w@pbx.example.com:5070;transport=tcp")
    assert (parsed.user, parsed.password, parsed.host, parsed.port, parsed.transport) == (
        "100", "p:w", "pbx.example.com", 5070, "tcp",
    )  # fmt: skip
    assert "p:w" not in repr(parsed)
    assert Registrar.parse("sip:100@pbx").password == ""
    for wrong in ("pbx.example.com", "sip:pbx", "sips:1:2@x", "sip:1:secret@x;transport=tls", ""):
        with pytest.raises(SipError) as failed:
            Registrar.parse(wrong)
        assert "secret@" not in str(failed.value)


# -- the dialled number


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("answer", (Mode.ANSWER, (Role.CALLER,), "")),
        ("Transcribe", (Mode.TRANSCRIBE, (Role.CALLER,), "")),
        ("assist", (Mode.ASSIST, (Role.CALLER,), "")),
        ("assist+R-7+x", (Mode.ASSIST, (Role.CALLER,), "R-7+x")),
        ("agent", (Mode.ASSIST, (Role.HUMAN_AGENT,), "")),
        ("agent+R-7", (Mode.ASSIST, (Role.HUMAN_AGENT,), "R-7")),
        ("+4930123", (None, (Role.CALLER,), "")),
        ("answering", (None, (Role.CALLER,), "")),
    ],
)
def test_what_the_number_means(number: str, expected: object) -> None:
    assert meaning(number) == expected


def test_which_addresses_are_trusted() -> None:
    house = Networks("127.0.0.0/8, 192.0.2.7,2001:db8::/32,")
    for host in ("127.0.0.1", "::ffff:127.0.0.1", "192.0.2.7", "2001:db8::1"):
        assert host in house
    for host in ("192.0.2.8", "::1", "fe80::1%eth0", "localhost", ""):
        assert host not in house
    assert "127.0.0.1" not in Networks("")
    for wrong in ("house", "192.0.2.1/24", "10.0.0.0/8;::1"):
        with pytest.raises(SettingsError, match="OFFHOOK_SIP_TRUSTED"):
            Networks(wrong)


def test_an_offer_from_the_headers() -> None:
    request = parse(
        message(
            "INVITE sip:garage@192.0.2.2 SIP/2.0",
            ("From", '"J\udcff\x85" <sip:+49%2030@pbx.example.com>;tag=1'),
            ("To", "<sip:+1555@example.com>"),
            ("X-Customer", "7\u2028x" + "y" * 500),
            ("User-Agent", "Test"),
        )
    )
    assert isinstance(request, Request)
    made = offer(request, own_user="garage")  # behind a PBX the number that was dialled is in To
    assert (made.from_, made.to, made.mode) == ("+49 30", "+1555", None)
    assert offer(request, own_user="offhook").to == "garage"
    assert made.headers["User-Agent"] == "Test"
    assert len(made.headers["X-Customer"]) == 128
    for text in (made.from_, made.to, *made.headers.values()):
        text.encode()
    assert clean("a\r\nb\udcff") == "a  b?"


def test_callers_without_a_name() -> None:
    for header, expected in [
        ("<sip:anonymous.invalid>;tag=1", "anonymous.invalid"),
        ("<tel:+1555;x=1>;tag=1", "+1555"),
    ]:
        request = parse(message(INVITE, ("From", header)))
        assert isinstance(request, Request)
        assert offer(request, "x").from_ == expected
