"""The sockets under the SIP bridge: one UDP and one TCP listener on the same port, and an RTP socket for each call."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import socket
from collections.abc import Callable
from typing import Any, cast

from calls.errors import OffhookError
from telephony.sip.dialog import Hop
from telephony.sip.message import Framer, SipError

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 512
MAX_QUEUED = 262_144  # bytes a TCP peer may leave unread before it is cut off
IDLE_S = 900.0  # a connection on which nothing came for so long is closed
TORN_S = 30.0  # and one that leaves a message unfinished for so long

Receive = Callable[[bytes, Hop], None]


class NetError(OffhookError):
    """A socket could not be opened. The text says which."""


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, receive: Receive) -> None:
        self._receive = receive

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._receive(data, Hop("udp", addr[0], addr[1]))

    def error_received(self, exc: Exception) -> None:
        log.debug("UDP: %s", exc)


class _Tcp(asyncio.Protocol):
    """One TCP connection, theirs or ours."""

    def __init__(self, net: SipSockets) -> None:
        self._net = net
        self._framer = Framer()
        self._transport: asyncio.Transport | None = None
        self.hop = Hop("tcp", "", 0)
        self.heard_at = 0.0
        self.torn = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        host, port = transport.get_extra_info("peername")[:2]
        self.hop = Hop("tcp", host, port, next(self._net.numbers))
        self.heard_at = self._net.now()
        if len(self._net.connections) >= MAX_CONNECTIONS:
            self._transport.abort()
            return
        self._net.connections[self.hop.connection] = self

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._net.now()
        try:
            messages = self._framer.feed(data)
        except SipError as error:
            log.info("closing a TCP connection from %s: %s", self.hop.host, error)
            self.close()
            return
        self.torn = self._framer.torn
        for message in messages:
            if message:
                self._net.receive(message, self.hop)
        if messages.count(b"") >= 2:
            self.send(b"\r\n")  # a ping is two empty lines, a pong one (RFC 5626, 3.5.1)

    def send(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > MAX_QUEUED:
            self._transport.abort()
            return
        self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._net.connections.pop(self.hop.connection, None)


class SipSockets:
    """UDP and TCP on one port. Give `receive` every message; send with `send`."""

    def __init__(self, host: str, receive: Receive, public_host: str = "") -> None:
        self.host = host
        self._public_host = public_host
        self.port = 0
        self.receive = receive
        self.connections: dict[int, _Tcp] = {}
        self.numbers = itertools.count(1)
        self._udp: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._local: dict[str, str] = {}

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def open(self, port: int) -> None:
        """Bind both; port 0 takes any that is free for both. Raises NetError."""
        for attempt in range(20):
            try:
                await self._open(port)
                return
            except OSError as error:
                self.close()
                if port or attempt == 19:
                    raise NetError(f"SIP cannot listen on {self.host}:{port}: {error.strerror or error}") from error

    async def _open(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(self.receive), local_addr=(self.host, port))
        self.port = self._udp.get_extra_info("sockname")[1]
        self._server = await loop.create_server(lambda: _Tcp(self), self.host, self.port)

    async def connect(self, host: str, port: int) -> Hop:
        """A TCP connection of ours. Raises OSError."""
        _, protocol = await asyncio.get_running_loop().create_connection(lambda: _Tcp(self), host, port)
        return protocol.hop

    def send(self, data: bytes, hop: Hop) -> None:
        """Best effort: what cannot be sent is lost like any packet; SIP repeats what matters."""
        if hop.transport == "tcp":
            connection = self.connections.get(hop.connection)
            if connection is not None:
                connection.send(data)
        elif self._udp is not None and not self._udp.is_closing():
            self._udp.sendto(data, (hop.host, hop.port))

    def sweep(self) -> None:
        """Close connections that are of no use. Call it every few seconds."""
        now = self.now()
        for connection in list(self.connections.values()):
            quiet = now - connection.heard_at
            if quiet > IDLE_S or (connection.torn and quiet > TORN_S):
                connection.close()

    def local_host(self, remote: str) -> str:
        """Our own address as `remote` sees it."""
        if self._public_host:
            return self._public_host
        if self.host not in ("0.0.0.0", "::", ""):
            return self.host
        if remote not in self._local:
            if len(self._local) > 1000:
                self._local.clear()
            self._local[remote] = _route_to(remote)
        return self._local[remote]

    def close(self) -> None:
        if self._udp is not None:
            self._udp.close()
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections.values()):
            connection.close()


def _route_to(remote: str) -> str:
    family = socket.AF_INET6 if ":" in remote else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((remote, 9))  # sends nothing: asks the kernel for the route
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


class RtpSocket(asyncio.DatagramProtocol):
    """One call's RTP socket."""

    def __init__(self, receive: Callable[[bytes, tuple[str, int]], None]) -> None:
        self._receive = receive
        self._transport: asyncio.DatagramTransport | None = None
        self.port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._receive(data, (addr[0], addr[1]))

    def error_received(self, exc: Exception) -> None:
        log.debug("RTP: %s", exc)  # the party's port is closed: the time-out will tell

    def send(self, data: bytes, remote: tuple[str, int]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, remote)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def open_rtp(host: str, ports: tuple[int, int], receive: Callable[[bytes, tuple[str, int]], None]) -> RtpSocket:
    """A socket on a free even port of the range (RFC 3550, 11), begun at a random place. Raises NetError."""
    loop = asyncio.get_running_loop()
    even = list(range(ports[0] + ports[0] % 2, ports[1] + 1, 2))
    start = random.randrange(len(even)) if even else 0
    for port in even[start:] + even[:start]:
        try:
            _, protocol = await loop.create_datagram_endpoint(lambda: RtpSocket(receive), local_addr=(host, port))
        except OSError:
            continue
        protocol.port = port
        return protocol
    raise NetError(f"no RTP port is free in {ports[0]}-{ports[1]}")
