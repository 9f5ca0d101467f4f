"""The SIP bridge: answers calls from softphones, trunks and PBXs on UDP and TCP, and gives each to the gateway.

The protocol is in endpoint.py and media.py, which do no I/O; this is their asyncio shell, one task a call. A call is
answered only when the gateway has admitted it: until then the caller hears it ring (180).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass
from functools import partial

from calls.errors import IllegalTransition
from telephony.bridge import CallHandle, Gateway, LegEvents, Offer, Refused
from telephony.sip import dialled
from telephony.sip.dialog import Dialog, Hop
from telephony.sip.endpoint import Endpoint, Event, Invited, Over, Pressed, Reoffered, Talking
from telephony.sip.leg import SipLeg
from telephony.sip.media import MediaStream
from telephony.sip.net import NetError, RtpSocket, SipSockets, open_rtp
from telephony.sip.register import Registrar
from telephony.sip.registrar import RegistrarLink
from telephony.sip.sdp import Agreed, Description, Local, SdpError, choose

log = logging.getLogger(__name__)

SWEEP_S = 1.0  # how often dead calls and connections are looked for
GOODBYE_S = 2.0  # how long the end of the service waits for its BYEs to be answered
CALL_ID_HEADER = "X-Offhook-Call-ID"  # on the 200: the call's id in this service


@dataclass(eq=False, slots=True)
class _Call:
    """One SIP call between its INVITE and its end."""

    dialog: Dialog
    offer: Offer
    offered: Description | None  # None: the INVITE brought no description, we make the offer
    local: Local
    acknowledged: asyncio.Future[bytes]
    task: asyncio.Task[None] | None = None
    agreed: Agreed | None = None
    media: MediaStream | None = None
    rtp: RtpSocket | None = None
    leg: SipLeg | None = None
    ended: tuple[str, bool] | None = None
    call_id: str = ""


class SipBridge:
    """`host` and `port`: where SIP is spoken (port 0: any free one; see `port` once it is ready). `rtp_ports`: the
    range "20000-21999". `registrar`: see Registrar.parse; empty: none. At most `max_legs` at once; more get 486.
    `public_host`: the address to tell peers, where it is not the one we listen on (port forwarding). `trusted`: the
    networks whose phones may be the human agent of a call that they do not name. Raises SettingsError."""

    name = "sip"

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 5060,
        rtp_ports: str = "20000-21999",
        max_legs: int = 416,
        rtp_timeout_s: float = 20.0,
        registrar: str = "",
        public_host: str = "",
        trusted: str = "127.0.0.0/8,::1/128",
    ) -> None:
        self.host = host
        self.port = port
        low, _, high = rtp_ports.partition("-")
        self._rtp_ports = (int(low), int(high))
        self._rtp_timeout_s = rtp_timeout_s
        self._trusted = dialled.Networks(trusted)
        account = Registrar.parse(registrar) if registrar else None
        self._user = account.user if account else "offhook"
        self._sockets = SipSockets(host, self._receive, public_host)
        self._endpoint = Endpoint(self._user, self._contact, max_legs)
        self._link = (
            RegistrarLink(account, self._sockets, self._endpoint.transactions, self._contact, self._pump)
            if account
            else None
        )
        self._calls: dict[Dialog, _Call] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._gateway: Gateway | None = None
        self._ready = False

    @property
    def ready(self) -> bool:
        """It is listening."""
        return self._ready

    @property
    def registered(self) -> bool:
        """A registrar has our binding."""
        return self._link is not None and self._link.registered

    @property
    def live_calls(self) -> int:
        return len(self._calls)

    async def run(self, gateway: Gateway) -> None:
        """Serve until cancelled; hang up every call and take the registration away on the way out. Raises NetError."""
        self._gateway = gateway
        await self._sockets.open(self.port)
        self.port = self._sockets.port
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._tasks.create_task(self._sweep())
                self._ready = True
                log.info("SIP listens on %s:%d, UDP and TCP", self.host, self.port)
                if self._link is not None:
                    self._tasks.create_task(self._link.start(self._tasks))
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    self._ready = False
                    await self._say_goodbye()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._sockets.close()

    # -- the endpoint's shell

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _contact(self, hop: Hop) -> str:
        host = self._sockets.local_host(hop.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def _receive(self, data: bytes, hop: Hop) -> None:
        try:
            self._endpoint.receive(data, hop, self._now())
        except Exception:  # the boundary of one message: a fault of ours with it must not end every call
            log.exception("a SIP message from %s could not be served", hop.host)
        self._pump()

    def _wake(self) -> None:
        self._endpoint.transactions.wake(self._now())
        self._pump()

    def _pump(self) -> None:
        """Send what is to be sent, act on what has happened, set the next timer."""
        endpoint = self._endpoint
        while endpoint.events or endpoint.transactions.outbox:
            while endpoint.transactions.outbox:
                self._sockets.send(*endpoint.transactions.outbox.popleft())
            if endpoint.events:
                event = endpoint.events.popleft()
                try:
                    self._happened(event)
                except Exception:  # the boundary of one call: its fault must not stop the others' messages
                    call = self._calls.get(event.dialog)
                    about = {"call_id": call.call_id if call else "-"}
                    log.exception("a SIP event could not be handled: %s", type(event).__name__, extra=about)
        due = endpoint.transactions.next_timer()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(due, self._wake) if due is not None else None

    def _happened(self, event: Event) -> None:
        if isinstance(event, Invited):
            self._invited(event.dialog)
            return
        call = self._calls.get(event.dialog)
        if call is None:
            return
        match event:
            case Talking(_, body):
                self._talking(call, body)
            case Over(_, reason, lost):
                self._over(call, reason, lost)
            case Reoffered():
                self._reoffered(call, event)
            case Pressed(_, digit) if call.leg is not None:
                call.leg.events.dtmf(digit)

    # -- one call

    def _invited(self, dialog: Dialog) -> None:
        """Negotiate before anybody is asked: a call that we cannot hear is refused at once (488)."""
        request = dialog.invite
        try:
            offered = Description.parse(request.body) if request.body else None
            agreed = choose(offered)[1] if offered else None
        except SdpError as error:
            log.info("refusing a SIP call from %s: %s", dialog.hop.host, error)
            self._endpoint.refuse(dialog, 488, self._now(), [("Warning", '305 offhook "no common codec"')])
            return
        if self._tasks is None or not self._ready:
            self._endpoint.refuse(dialog, 503, self._now())
            return
        local = Local(self._sockets.local_host(dialog.hop.host), 0, secrets.randbits(31))
        acknowledged: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        offer = dialled.offer(request, self._user, trusted=dialog.hop.host in self._trusted)
        call = _Call(dialog, offer, offered, local, acknowledged, agreed=agreed)
        self._calls[dialog] = call
        self._endpoint.ring(dialog, self._now())
        call.task = self._tasks.create_task(self._serve(call), name=f"sip call {dialog.call_id[:40]}")

    async def _serve(self, call: _Call) -> None:
        """The life of one call, from ring to end. Whatever goes wrong in it stays in it."""
        try:
            await self._live(call)
        except Exception:  # the boundary of one call
            log.exception("a SIP call failed", extra={"call_id": call.call_id})
            self._finish(call, "an error in the service", lost=True)
        except asyncio.CancelledError:
            self._finish(call, call.ended[0] if call.ended else "the service is stopping", lost=False)
            raise
        finally:
            self._calls.pop(call.dialog, None)
            if call.rtp is not None:
                call.rtp.close()
            self._pump()

    async def _live(self, call: _Call) -> None:
        assert self._gateway is not None
        try:
            handle = await self._gateway.ring(call.offer)
        except Refused as refusal:
            log.info("refusing a SIP call to %s: %s", call.offer.to, refusal)
            status = 403 if refusal.forbidden else 486 if refusal.busy else 503
            extra = [("Retry-After", "5")] if status == 503 else []
            self._endpoint.refuse(call.dialog, status, self._now(), extra)
            return
        call.call_id = handle.call_id
        joined = False
        try:
            joined = await self._answer(call, handle)
        finally:
            if not joined:
                handle.abandon(call.ended[0] if call.ended else "it could not be answered")
        if call.leg is not None:
            await call.leg.over.wait()

    async def _answer(self, call: _Call, handle: CallHandle) -> bool:
        """Answer, and join the call when the caller acknowledges. False: the caller is gone, or there is no port."""
        try:
            call.rtp = await open_rtp(self.host, self._rtp_ports, partial(self._heard, call))
        except NetError as error:
            log.warning("%s", error, extra={"call_id": call.call_id})
            self._endpoint.refuse(call.dialog, 503, self._now(), [("Retry-After", "5")])
            return False
        call.local.port = call.rtp.port
        if call.offered is not None:
            call.agreed, sdp = call.local.answer(call.offered)
            call.media = MediaStream(call.agreed)
        else:
            sdp = call.local.offer()
        try:
            self._endpoint.answer(call.dialog, sdp, self._now(), [(CALL_ID_HEADER, handle.call_id)])
        except IllegalTransition:
            return False  # cancelled meanwhile
        self._pump()
        body = await call.acknowledged
        if call.agreed is None:
            try:
                call.agreed = choose(Description.parse(body))[1]
            except SdpError as error:
                call.ended = (f"the caller's answer does not fit: {error}", True)
                self._endpoint.hang_up(call.dialog, self._now())
                return False
            call.media = MediaStream(call.agreed)
        assert call.media is not None
        call.media.begin(self._now())
        participant = handle.participant(call.offer.roles[0])
        call.leg = SipLeg(participant, call.media, call.rtp, lambda reason: self._hang_up(call, reason))
        events = LegEvents()
        call.leg.events = events
        handle.join(call.leg, events)
        call.leg.announce()
        return True

    def _heard(self, call: _Call, data: bytes, source: tuple[str, int]) -> None:
        if call.media is not None:
            call.media.receive(data, source, self._now())
            if call.leg is not None and call.media.digits:
                call.leg.heard_events()

    def _talking(self, call: _Call, body: bytes) -> None:
        if not call.acknowledged.done():
            call.acknowledged.set_result(body)
        elif call.leg is not None and body:
            try:
                agreed = choose(Description.parse(body))[1]
            except SdpError as error:
                log.info("an answer in an ACK does not fit: %s", error, extra={"call_id": call.call_id})
                return
            call.leg.renegotiated(agreed, self._now())

    def _reoffered(self, call: _Call, event: Reoffered) -> None:
        """Hold, resume, a new address or codec; without a description we say again what we offer."""
        if call.leg is None or call.agreed is None:
            self._endpoint.decline(event, self._now())
            return
        body = event.server.request.body
        try:
            if body:
                call.agreed, sdp = call.local.answer(Description.parse(body))
            else:
                sdp = call.local.offer()
        except SdpError:
            self._endpoint.decline(event, self._now())
            return
        self._endpoint.agree(event, sdp, self._now())
        if body:
            call.leg.renegotiated(call.agreed, self._now())

    def _over(self, call: _Call, reason: str, lost: bool) -> None:
        """The party has ended it (or never acknowledged)."""
        call.ended = (reason, lost)
        if call.leg is not None:
            call.leg.close(reason, lost)
        elif call.task is not None:
            call.task.cancel()

    def _hang_up(self, call: _Call, reason: str) -> None:
        self._finish(call, reason, lost=False)

    def _finish(self, call: _Call, reason: str, lost: bool) -> None:
        """End it from our side."""
        call.ended = call.ended or (reason, lost)
        self._endpoint.hang_up(call.dialog, self._now())
        if call.leg is not None:
            call.leg.close(reason, lost)
        self._pump()

    async def _sweep(self) -> None:
        """End calls whose party is gone, close connections of no use."""
        while True:
            await asyncio.sleep(min(SWEEP_S, self._rtp_timeout_s / 4))
            self._sockets.sweep()
            now = self._now()
            for call in list(self._calls.values()):
                if call.leg is not None and call.leg.is_dead(now, self._rtp_timeout_s):
                    log.info("no RTP: ending the call", extra={"call_id": call.call_id})
                    self._finish(call, f"no audio came for {call.leg.silent_for(now):.0f} s", lost=True)

    async def _say_goodbye(self) -> None:
        for call in list(self._calls.values()):
            self._finish(call, "the service is stopping", lost=False)
        if self._link is not None:
            self._link.stop()
        self._pump()
        for _ in range(round(GOODBYE_S / 0.02)):
            if self._endpoint.transactions.idle:
                return
            await asyncio.sleep(0.02)
        log.info("some peers did not answer our goodbye")
