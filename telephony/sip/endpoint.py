"""The SIP endpoint of the house, sans-IO: messages in, messages and events out (RFC 3261).

It answers calls (a user agent server), ends them, and registers (register.py). It never dials. The asyncio shell
(bridge.py) feeds it what arrived, sends what `outbox` holds, takes its `events`, and calls `wake` when a timer is due.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from telephony.sip.dialog import Dialog, Hop, Phase, Step, dialog_key
from telephony.sip.message import Request, Response, SipError, Uri, parse
from telephony.sip.reply import MIN_SESSION_S, REASONS, info_digit, reply_headers, session_interval
from telephony.sip.transaction import Server, Transactions

ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE"
_KNOWN = {"REGISTER", "SUBSCRIBE", "NOTIFY", "MESSAGE", "REFER", "PUBLISH", "PRACK"}


@dataclass(frozen=True, slots=True)
class Invited:
    """A call comes in. Answer with ring, answer or refuse."""

    dialog: Dialog


@dataclass(frozen=True, slots=True)
class Talking:
    """The ACK of our 200 is here (of a re-INVITE: only if it has a body). `body`: an answer, when we made the offer."""

    dialog: Dialog
    body: bytes


@dataclass(frozen=True, slots=True)
class Reoffered:
    """The party wants to change the session (hold, resume, a new address). Answer with `agree` or `decline`."""

    dialog: Dialog
    server: Server


@dataclass(frozen=True, slots=True)
class Pressed:
    """A key, by SIP INFO."""

    dialog: Dialog
    digit: str


@dataclass(frozen=True, slots=True)
class Over:
    """The call has ended: hung up, cancelled, or (lost) never acknowledged."""

    dialog: Dialog
    reason: str
    lost: bool = False


Event = Invited | Talking | Reoffered | Pressed | Over


class Endpoint:
    """`contact(hop)` gives our own Contact address ("host:port") as the peer at `hop` can reach it."""

    def __init__(self, user: str, contact: Callable[[Hop], str], max_dialogs: int) -> None:
        self.transactions = Transactions()
        self.events: deque[Event] = deque()
        self._user = user
        self._contact = contact
        self._max = max_dialogs
        self._dialogs: dict[tuple[str, str, str], Dialog] = {}
        self._invites: dict[Dialog, Server] = {}
        self._unacknowledged: dict[Dialog, dict[int, Server]] = {}  # by the CSeq of the INVITE

    # -- what arrived

    def receive(self, data: bytes, hop: Hop, now: float) -> None:
        """One message. Whatever it holds, the worst that happens is an error answer or none."""
        if not data.strip(b"\r\n\0"):
            return  # a keep-alive
        try:
            message = parse(data)
        except SipError as error:
            self._complain(error, hop)
            return
        if isinstance(message, Response):
            self.transactions.hear(message, now)
            return
        try:
            self._request(message, hop, now)
        except SipError as error:
            error.headers, error.method = message.headers, message.method
            self._complain(error, hop)

    def _request(self, request: Request, hop: Hop, now: float) -> None:
        if request.method == "ACK":
            self._ack(request, now)
            return
        if request.method == "CANCEL":
            self._cancel(request, hop, now)
            return
        server = self.transactions.accept(request, hop, now)
        if server is None:
            return
        try:
            self._serve(request, server, now)
        except SipError as error:
            self.respond(server, error.status, now)

    def _serve(self, request: Request, server: Server, now: float) -> None:
        refusal = self._inspect(request)
        if refusal is not None:
            self.respond(server, refusal[0], now, refusal[1])
            return
        key = dialog_key(request)
        if key is None:
            self._outside(request, server, now)
            return
        dialog = self._dialogs.get(key)
        if dialog is None:
            self.respond(server, 481, now)
        elif request.cseq <= dialog.remote_cseq:
            self.respond(server, 500, now)  # 12.2.2: out of order
        else:
            dialog.remote_cseq = request.cseq
            self._inside(dialog, request, server, now)

    def _inspect(self, request: Request) -> tuple[int, list[tuple[str, str]]] | None:
        """8.2.1 to 8.2.3: may we work on this request at all?"""
        if request.headers.get("Max-Forwards", "70").strip() in ("0", "00") and request.method != "OPTIONS":
            return 483, []
        Uri.parse(request.uri)
        lacking = [name for name in request.headers.listed("Require") if name != "timer"]
        if lacking:
            return 420, [("Unsupported", ", ".join(lacking))]
        kind = request.headers.get("Content-Type").partition(";")[0].strip().lower()
        if request.method in ("INVITE", "UPDATE"):
            try:
                session_interval(request)
            except SipError as error:
                return error.status, [("Min-SE", str(MIN_SESSION_S))]
        if request.method in ("INVITE", "UPDATE") and request.body and kind not in ("", "application/sdp"):
            return 415, [("Accept", "application/sdp")]
        return None

    def _outside(self, request: Request, server: Server, now: float) -> None:
        match request.method:
            case "INVITE":
                self._invite(request, server, now)
            case "OPTIONS":
                self.respond(server, 200, now, [("Allow", ALLOW), ("Accept", "application/sdp")])
            case "BYE" | "INFO" | "UPDATE":
                self.respond(server, 481, now)
            case method:
                self.respond(server, 405 if method in _KNOWN else 501, now, [("Allow", ALLOW)])

    def _invite(self, request: Request, server: Server, now: float) -> None:
        dialog = Dialog.of(request, server.hop, self._own_contact(server.hop))
        if any(
            other.key[::2] == dialog.key[::2] and other.invite.cseq == request.cseq for other in self._dialogs.values()
        ):
            self.respond(server, 482, now)  # the same call by another way (8.2.2.2)
            return
        if len(self._dialogs) >= self._max:
            self.respond(server, 486, now, [("Retry-After", "5")])
            return
        self._dialogs[dialog.key] = dialog
        self._invites[dialog] = server
        self.respond(server, 100, now)
        self.events.append(Invited(dialog))

    def _inside(self, dialog: Dialog, request: Request, server: Server, now: float) -> None:
        if server.hop.transport == "tcp" or dialog.natted:
            dialog.hop = server.hop  # the party came back on another connection, or from another port
        match request.method:
            case "BYE":
                self.respond(server, 200, now)
                unanswered = self._invites.get(dialog)
                if unanswered is not None and unanswered.status < 200:
                    self._answer(unanswered, 487, now)
                dialog.step(Step.BYE)
                self._forget(dialog, "hung up by the party")
            case "INVITE" | "UPDATE":
                self._reoffer(dialog, request, server, now)
            case "INFO":
                self.respond(server, 200, now)
                digit = info_digit(request)
                if digit:
                    self.events.append(Pressed(dialog, digit))
            case "OPTIONS":
                self.respond(server, 200, now, [("Allow", ALLOW), ("Accept", "application/sdp")])
            case method:
                self.respond(server, 405 if method in _KNOWN else 501, now, [("Allow", ALLOW)])

    def _reoffer(self, dialog: Dialog, request: Request, server: Server, now: float) -> None:
        if dialog.phase is not Phase.TALKING:
            self.respond(server, 491 if dialog.phase is Phase.ANSWERED else 500, now, [("Retry-After", "1")])
            return
        for contact in request.headers.listed("Contact")[:1]:  # a target refresh (12.2.2)
            dialog.retarget(contact)
        if request.method == "UPDATE" and not request.body:
            self._answer(server, 200, now, dialog=dialog)
            return
        self.events.append(Reoffered(dialog, server))

    def _ack(self, request: Request, now: float) -> None:
        refused = self.transactions.of(request)
        if refused is not None and refused.status >= 300:
            self.transactions.acknowledge(refused)
            return
        key = dialog_key(request)
        dialog = self._dialogs.get(key) if key else None
        if dialog is None:
            return
        server = self._unacknowledged.get(dialog, {}).pop(request.cseq, None)
        if server is not None:
            self.transactions.acknowledge(server)
        if request.cseq != dialog.invite.cseq or not dialog.allows(Step.ACK):
            if server is not None and request.body:
                self.events.append(Talking(dialog, request.body))
            return
        ending = dialog.phase is Phase.ENDING
        dialog.step(Step.ACK)
        if ending:
            self._bye(dialog, now)
        else:
            self.events.append(Talking(dialog, request.body))

    def _cancel(self, request: Request, hop: Hop, now: float) -> None:
        target = self.transactions.of(request)
        server = self.transactions.accept(request, hop, now)
        if server is None:
            return
        if target is None:
            self.respond(server, 481, now)
            return
        dialog = next((dialog for dialog, invite in self._invites.items() if invite is target), None)
        self.respond(server, 200, now, tag=dialog.tag if dialog else "")
        if dialog is not None and dialog.allows(Step.CANCEL):
            self._answer(target, 487, now, tag=dialog.tag)
            dialog.step(Step.CANCEL)
            self._forget(dialog, "cancelled by the caller")

    # -- what we do

    def ring(self, dialog: Dialog, now: float, extra: list[tuple[str, str]] | None = None) -> None:
        """180: tell the caller that it rings. Harmless after a CANCEL."""
        if dialog.allows(Step.RING):
            dialog.step(Step.RING)
            self._answer(self._invites[dialog], 180, now, extra, dialog=dialog)

    def answer(self, dialog: Dialog, sdp: bytes, now: float, extra: list[tuple[str, str]] | None = None) -> None:
        """200 with our session description. Raises IllegalTransition when the call is over already."""
        dialog.step(Step.ANSWER)
        server = self._invites[dialog]
        server.on_silence = partial(self._never_acknowledged, dialog)
        self._unacknowledged.setdefault(dialog, {})[server.request.cseq] = server
        self._answer(server, 200, now, extra, dialog=dialog, sdp=sdp)

    def refuse(self, dialog: Dialog, status: int, now: float, extra: list[tuple[str, str]] | None = None) -> None:
        """A final refusal. Harmless after a CANCEL."""
        if dialog.allows(Step.REFUSE):
            dialog.step(Step.REFUSE)
            self._answer(self._invites[dialog], status, now, extra, tag=dialog.tag)
            self._drop(dialog)

    def hang_up(self, dialog: Dialog, now: float) -> None:
        """BYE, at once or after the ACK; a call that is not answered yet is refused with 503."""
        if dialog.allows(Step.REFUSE):
            self.refuse(dialog, 503, now)
        elif dialog.allows(Step.HANG_UP):
            dialog.step(Step.HANG_UP)
            if dialog.phase is Phase.OVER:
                self._bye(dialog, now)

    def agree(self, event: Reoffered, sdp: bytes, now: float) -> None:
        """200 to a change of the session."""
        if event.server.request.method == "INVITE":
            self._unacknowledged.setdefault(event.dialog, {})[event.server.request.cseq] = event.server
        self._answer(event.server, 200, now, dialog=event.dialog, sdp=sdp)

    def decline(self, event: Reoffered, now: float) -> None:
        """488: the session stays as it was."""
        self._answer(event.server, 488, now)

    def respond(
        self, server: Server, status: int, now: float, extra: list[tuple[str, str]] | None = None, tag: str = ""
    ) -> None:
        self._answer(server, status, now, extra, tag=tag)

    # -- how

    def _own_contact(self, hop: Hop) -> str:
        transport = ";transport=tcp" if hop.transport == "tcp" else ""
        return f"<sip:{self._user}@{self._contact(hop)}{transport}>"

    def _answer(
        self,
        server: Server,
        status: int,
        now: float,
        extra: list[tuple[str, str]] | None = None,
        *,
        dialog: Dialog | None = None,
        sdp: bytes = b"",
        tag: str = "",
    ) -> None:
        headers = reply_headers(
            server.request.headers, server.hop, "" if status == 100 else (tag or (dialog.tag if dialog else "offhook"))
        )
        if dialog is not None:
            for record in server.request.headers.all("Record-Route"):
                headers.add("Record-Route", record)
            headers.add("Contact", dialog.contact)
            headers.add("Allow", ALLOW)
            if 200 <= status < 300:
                for item in self._session_timer(dialog, server.request, now):
                    headers.add(*item)
        for name, value in extra or []:
            headers.add(name, value)
        if sdp:
            headers.add("Content-Type", "application/sdp")
        self.transactions.answer(server, Response(status, REASONS.get(status, "Refused"), headers, sdp), now)

    def _bye(self, dialog: Dialog, now: float) -> None:
        hop = dialog.next_hop()
        self.transactions.send(dialog.request("BYE"), hop, self._contact(hop), lambda _response, _now: None, now)
        self._drop(dialog)

    def _session_timer(self, dialog: Dialog, request: Request, now: float) -> list[tuple[str, str]]:
        """Agree to the party's session timer, and end the call when a refresh is overdue (RFC 4028, 9 and 10)."""
        interval = session_interval(request)
        dialog.refreshes += 1
        if not interval:
            return []
        overdue = now + interval - min(32.0, interval / 3)
        self.transactions.at(overdue, partial(self._overdue, dialog.key, dialog.refreshes))
        return [("Session-Expires", f"{interval};refresher=uac"), ("Require", "timer")]

    def _overdue(self, key: tuple[str, str, str], refreshes: int, now: float) -> None:
        """By its key: the timers of a call that has long ended must not keep its Dialog."""
        dialog = self._dialogs.get(key)
        if dialog is not None and dialog.refreshes == refreshes and dialog.phase is Phase.TALKING:
            dialog.step(Step.HANG_UP)
            self._bye(dialog, now)
            self.events.append(Over(dialog, "the party did not refresh its session", lost=True))

    def _never_acknowledged(self, dialog: Dialog, now: float) -> None:
        if dialog.phase in (Phase.ANSWERED, Phase.ENDING):
            dialog.step(Step.TIME_OUT)
            self._bye(dialog, now)
            self.events.append(Over(dialog, "the answer was never acknowledged", lost=True))

    def _forget(self, dialog: Dialog, reason: str) -> None:
        self._drop(dialog)
        self.events.append(Over(dialog, reason))

    def _drop(self, dialog: Dialog) -> None:
        self._dialogs.pop(dialog.key, None)
        self._invites.pop(dialog, None)
        self._unacknowledged.pop(dialog, None)

    def _complain(self, error: SipError, hop: Hop) -> None:
        """Answer what could not be read, if it was a request and says where to (not an ACK: it has no answer)."""
        headers = error.headers
        if headers is None or error.method in ("", "ACK") or not headers.get("Via") or not headers.get("CSeq"):
            return
        try:
            reply = reply_headers(headers, hop, "400")
        except SipError:
            return
        response = Response(error.status, REASONS.get(error.status, "Bad Request"), reply)
        self.transactions.outbox.append((bytes(response), hop))
