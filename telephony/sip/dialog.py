"""One call as SIP sees it: a dialog that a peer's INVITE made (RFC 3261 section 12), and where it is in its life."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from enum import StrEnum

from calls.errors import IllegalTransition
from telephony.sip.message import Address, Headers, Request, SipError, Uri, Via


class Phase(StrEnum):
    OFFERED = "offered"  # the INVITE is here, only 100 was sent
    RINGING = "ringing"  # 180 was sent
    ANSWERED = "answered"  # 200 was sent, no ACK yet
    TALKING = "talking"  # ACK
    ENDING = "ending"  # we hung up before the ACK came: BYE follows it (15.1.2)
    OVER = "over"


class Step(StrEnum):
    RING = "ring"
    ANSWER = "answer"
    REFUSE = "refuse"
    CANCEL = "cancel"
    ACK = "ack"
    BYE = "bye"  # theirs
    HANG_UP = "hang up"  # ours
    TIME_OUT = "time out"


STEPS: dict[tuple[Phase, Step], Phase] = {
    (Phase.OFFERED, Step.RING): Phase.RINGING,
    (Phase.OFFERED, Step.ANSWER): Phase.ANSWERED,
    (Phase.RINGING, Step.ANSWER): Phase.ANSWERED,
    **{(phase, Step.REFUSE): Phase.OVER for phase in (Phase.OFFERED, Phase.RINGING)},
    **{(phase, Step.CANCEL): Phase.OVER for phase in (Phase.OFFERED, Phase.RINGING)},
    (Phase.ANSWERED, Step.ACK): Phase.TALKING,
    (Phase.ENDING, Step.ACK): Phase.OVER,
    **{(phase, Step.BYE): Phase.OVER for phase in Phase if phase is not Phase.OVER},
    (Phase.ANSWERED, Step.HANG_UP): Phase.ENDING,
    (Phase.TALKING, Step.HANG_UP): Phase.OVER,
    **{(phase, Step.TIME_OUT): Phase.OVER for phase in (Phase.ANSWERED, Phase.TALKING, Phase.ENDING)},
}


@dataclass(frozen=True, slots=True)
class Hop:
    """Where a message goes or came from. `connection` names a TCP connection (0: none is open)."""

    transport: str  # "udp" or "tcp"
    host: str
    port: int
    connection: int = 0


@dataclass(eq=False, slots=True)
class Dialog:
    """The UAS side of a dialog. `hop` is where its INVITE came from, `contact` our own Contact."""

    invite: Request
    hop: Hop
    contact: str
    tag: str = field(default_factory=lambda: secrets.token_hex(8))
    phase: Phase = Phase.OFFERED
    local_cseq: int = 0
    remote_cseq: int = 0
    target: str = ""  # the remote target: their Contact
    route: tuple[str, ...] = ()
    natted: bool = False  # the INVITE did not come from where its Via says
    refreshes: int = 0  # how often the session was agreed on

    @classmethod
    def of(cls, invite: Request, hop: Hop, contact: str) -> Dialog:
        """Raises SipError when the INVITE cannot make a dialog (12.1.1)."""
        contacts = invite.headers.listed("Contact")
        if len(contacts) != 1 or contacts[0] == "*":
            raise SipError("an INVITE needs one Contact")
        dialog = cls(invite, hop, contact)
        dialog.retarget(contacts[0])
        dialog.route = tuple(Address.parse(text).uri for text in invite.headers.listed("Record-Route"))
        for uri in dialog.route:
            Uri.parse(uri)
        dialog.remote_cseq = invite.cseq
        via = Via.parse(invite.headers.listed("Via")[0])
        dialog.natted = not dialog.route and (via.host, via.port or 5060) != (hop.host, hop.port)
        return dialog

    def retarget(self, contact: str) -> None:
        """A target refresh: an INVITE or UPDATE with a new Contact (12.2)."""
        uri = Address.parse(contact).uri
        Uri.parse(uri)
        self.target = uri

    def step(self, step: Step) -> None:
        """Raises IllegalTransition, changing nothing, where STEPS has no entry."""
        try:
            self.phase = STEPS[self.phase, step]
        except KeyError:
            raise IllegalTransition(f"'{step}' cannot happen to a SIP call that is {self.phase}") from None

    def allows(self, step: Step) -> bool:
        return (self.phase, step) in STEPS

    @property
    def call_id(self) -> str:
        return self.invite.headers.get("Call-ID")

    @property
    def key(self) -> tuple[str, str, str]:
        remote = Address.parse(self.invite.headers.get("From")).params.get("tag", "")
        return self.call_id, self.tag, remote

    def request(self, method: str) -> Request:
        """A request inside this dialog, without its Via (12.2.1.1)."""
        self.local_cseq += 1
        to = self.invite.headers.get("To")
        headers = Headers(
            [
                ("Max-Forwards", "70"),
                ("From", f"{to};tag={self.tag}"),
                ("To", self.invite.headers.get("From")),
                ("Call-ID", self.call_id),
                ("CSeq", f"{self.local_cseq} {method}"),
            ]
        )
        route, uri = list(self.route), self.target
        if route and "lr" not in Uri.parse(route[0]).params:  # a strict router wants its own URI in the first line
            uri = route.pop(0)
            route.append(self.target)
        for hop in route:
            headers.add("Route", f"<{hop}>")
        return Request(method, uri, headers)

    def next_hop(self) -> Hop:
        """Where a request inside this dialog goes: the first route, else the Contact; a peer behind address
        translation, one named by a host name, or one on an open TCP connection is answered where it came from."""
        uri = Uri.parse(self.route[0] if self.route else self.target)
        transport = uri.params.get("transport", self.hop.transport).lower()
        numeric = uri.host.replace(".", "").isdigit() or ":" in uri.host
        if self.natted or not numeric or transport != "udp" or self.hop.transport != "udp":
            return self.hop
        return Hop("udp", uri.host, uri.port or 5060)


def dialog_key(request: Request) -> tuple[str, str, str] | None:
    """The dialog that a peer's request belongs to: Call-ID, our tag (To), their tag (From); None outside any."""
    headers = request.headers
    ours = Address.parse(headers.get("To")).params.get("tag", "")
    theirs = Address.parse(headers.get("From")).params.get("tag", "")
    return (headers.get("Call-ID"), ours, theirs) if ours else None
