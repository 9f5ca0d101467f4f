"""SIP transactions and their timers (RFC 3261 section 17, RFC 6026), sans-IO: time is an argument, packets are values.

`Transactions` owns every retransmission: a request seen again gets the same answer again, a final answer to an INVITE
is repeated until its ACK, a request of ours is repeated until it is answered or Timer F gives up.
"""

from __future__ import annotations

import heapq
import itertools
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from telephony.sip.dialog import Hop
from telephony.sip.message import Request, Response, SipError, Via

T1 = 0.5  # seconds: round-trip estimate (17.1.1.1)
T2 = 4.0
PATIENCE = 64 * T1  # Timers B, F, H and J
MAX_SERVER = 4096  # finished or running server transactions kept; the oldest go first

Key = tuple[str, str, str]


@dataclass(eq=False, slots=True)
class Server:
    """One request of a peer's and what we answered."""

    key: Key
    request: Request
    hop: Hop
    via: Via
    answer: bytes = b""
    status: int = 0
    acknowledged: bool = False
    on_silence: Callable[[float], None] | None = None  # an INVITE's final answer was never acknowledged

    @property
    def reliable(self) -> bool:
        return self.hop.transport == "tcp"


@dataclass(eq=False, slots=True)
class Client:
    """One request of ours, awaiting its answer. `done` gets the final Response, or None after Timer F."""

    branch: str
    data: bytes
    hop: Hop
    done: Callable[[Response | None, float], None]


class Transactions:
    """Call `wake` when `next_timer()` is due; send what `outbox` holds."""

    def __init__(self) -> None:
        self.outbox: deque[tuple[bytes, Hop]] = deque()
        self._servers: dict[Key, Server] = {}
        self._clients: dict[str, Client] = {}
        self._timers: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = itertools.count()

    # -- time

    def at(self, when: float, call: Callable[[float], None]) -> None:
        heapq.heappush(self._timers, (when, next(self._count), call))

    def next_timer(self) -> float | None:
        return self._timers[0][0] if self._timers else None

    def wake(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2](now)

    # -- requests of a peer's

    def accept(self, request: Request, hop: Hop, now: float) -> Server | None:
        """A new server transaction; None when this request was seen before (its answer is repeated)."""
        via = Via.parse(request.headers.listed("Via")[0])
        key = _server_key(request, via)
        known = self._servers.get(key)
        if known is not None:
            if known.answer:
                self.outbox.append((known.answer, known.hop))
            return None
        server = Server(key, request, hop, via)
        self._servers[key] = server
        self._bound()
        self.at(now + PATIENCE * 2 if request.method == "INVITE" else now + PATIENCE, partial(self._expire, server))
        return server

    def of(self, request: Request) -> Server | None:
        """The INVITE transaction that a CANCEL, or the ACK of a refusal, belongs to (9.2, 17.2.3)."""
        via = Via.parse(request.headers.listed("Via")[0])
        branch, sent_by, _ = _server_key(request, via)
        return self._servers.get((branch, sent_by, "INVITE"))

    def answer(self, server: Server, response: Response, now: float) -> None:
        """Send a response. Finals of an INVITE are repeated until acknowledged (Timer G, 13.3.1.4)."""
        if server.status >= 200:
            return
        server.answer, server.status = bytes(response), response.status
        self.outbox.append((server.answer, server.hop))
        if server.request.method == "INVITE" and response.status >= 200:
            if not server.reliable or response.status < 300:
                self.at(now + T1, partial(self._repeat, server, T1))
            self.at(now + PATIENCE, partial(self._silent, server))

    def acknowledge(self, server: Server) -> None:
        server.acknowledged = True

    def _repeat(self, server: Server, interval: float, now: float) -> None:
        if server.acknowledged or self._servers.get(server.key) is not server:
            return
        self.outbox.append((server.answer, server.hop))
        interval = min(interval * 2, T2)
        self.at(now + interval, partial(self._repeat, server, interval))

    def _silent(self, server: Server, now: float) -> None:
        if not server.acknowledged:
            server.acknowledged = True
            if server.on_silence is not None:
                server.on_silence(now)

    def _expire(self, server: Server, now: float) -> None:
        if server.request.method == "INVITE" and server.status < 200:
            self.at(now + PATIENCE, partial(self._expire, server))  # it may ring for long
        elif self._servers.get(server.key) is server:
            del self._servers[server.key]

    def _bound(self) -> None:
        """Past MAX_SERVER the oldest finished transaction is forgotten: a repeat of it would be taken as new."""
        if len(self._servers) > MAX_SERVER:
            done = (key for key, server in self._servers.items() if server.status >= 200)
            oldest = next(done, next(iter(self._servers)))
            del self._servers[oldest]

    # -- requests of ours

    def send(
        self, request: Request, hop: Hop, sent_by: str, done: Callable[[Response | None, float], None], now: float
    ) -> None:
        """Send a request that is not an INVITE, with a Via of its own."""
        branch = "z9hG4bK" + secrets.token_hex(10)
        via = f"SIP/2.0/{hop.transport.upper()} {sent_by};branch={branch};rport"
        request.headers = type(request.headers)([("Via", via), *request.headers])
        client = Client(branch, bytes(request), hop, done)
        self._clients[branch] = client
        self.outbox.append((client.data, hop))
        if hop.transport == "udp":
            self.at(now + T1, partial(self._resend, client, T1))
        self.at(now + PATIENCE, partial(self._give_up, client))

    def hear(self, response: Response, now: float) -> None:
        """A peer's response to a request of ours; anything else is nobody's and is dropped (18.1.2)."""
        try:
            branch = Via.parse(response.headers.listed("Via")[0]).params.get("branch", "")
        except SipError:
            return
        if response.status >= 200 and branch in self._clients:
            self._clients.pop(branch).done(response, now)

    def _resend(self, client: Client, interval: float, now: float) -> None:
        if self._clients.get(client.branch) is client:
            self.outbox.append((client.data, client.hop))
            interval = min(interval * 2, T2)
            self.at(now + interval, partial(self._resend, client, interval))

    def _give_up(self, client: Client, now: float) -> None:
        if self._clients.pop(client.branch, None) is not None:
            client.done(None, now)

    @property
    def idle(self) -> bool:
        """No request of ours awaits its answer."""
        return not self._clients


def _server_key(request: Request, via: Via) -> Key:
    """17.2.3; a branch without the magic cookie (RFC 2543) is told apart by the message's own fields."""
    method = "INVITE" if request.method == "ACK" else request.method
    branch = via.params.get("branch", "")
    if not branch.lower().startswith("z9hg4bk") or len(branch) < 8:
        headers = request.headers
        branch = f"2543 {headers.get('Call-ID')} {request.cseq} {headers.get('From')} {request.uri}"
    return branch, f"{via.host.lower()}:{via.port or 5060}", method
