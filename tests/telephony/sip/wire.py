"""A SIP phone made of bare sockets: it says exactly what a test wants, also what no phone should."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from typing import Any

import numpy as np

from calls import g711
from telephony.sip.message import Framer, Request, Response, parse
from telephony.sip.rtp import Packet
from tests.telephony.tone_gateway import tone

HOST = "127.0.0.1"
_numbers = itertools.count(1)
_open: list[asyncio.DatagramTransport | asyncio.StreamWriter] = []


async def close_all() -> None:
    """Close whatever a test has left open."""
    for transport in _open:
        transport.close()
        if isinstance(transport, asyncio.StreamWriter):
            with contextlib.suppress(ConnectionError):
                await transport.wait_closed()
    _open.clear()
    await asyncio.sleep(0)


class Socket(asyncio.DatagramProtocol):
    """A UDP socket that keeps what came."""

    def __init__(self) -> None:
        self.packets: asyncio.Queue[bytes] = asyncio.Queue()
        self.transport: asyncio.DatagramTransport | None = None

    @classmethod
    async def open(cls) -> Socket:
        loop = asyncio.get_running_loop()
        transport, self = await loop.create_datagram_endpoint(cls, local_addr=(HOST, 0))
        self.transport = transport
        _open.append(transport)
        return self

    @property
    def port(self) -> int:
        assert self.transport is not None
        return int(self.transport.get_extra_info("sockname")[1])

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self.packets.put_nowait(data)

    def send(self, data: bytes, port: int) -> None:
        assert self.transport is not None
        self.transport.sendto(data, (HOST, port))


def sdp(port: int, formats: str = "0 101", direction: str = "sendrecv", host: str = HOST, more: str = "") -> bytes:
    return (
        f"v=0\r\no=w 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio {port} RTP/AVP {formats}\r\n"
        f"a=rtpmap:101 telephone-event/8000\r\na={direction}\r\n{more}"
    ).encode()


class Wire:
    """One dialog over UDP, with an RTP socket."""

    def __init__(self, sip: Socket, rtp: Socket, server: int, user: str) -> None:
        self.sip, self.rtp, self.server, self.user = sip, rtp, server, user
        self.call_id = f"{next(_numbers)}-{secrets.token_hex(4)}@wire"
        self.tag = secrets.token_hex(4)
        self.to = f"<sip:{user}@{HOST}:{server}>"
        self.cseq = 1
        self.branch = ""
        self.seen: list[Request | Response] = []
        self.media_port = 0

    @classmethod
    async def open(cls, server: int, user: str = "answer") -> Wire:
        return cls(await Socket.open(), await Socket.open(), server, user)

    def request(self, method: str, body: bytes = b"", *, branch: str = "", extra: str = "", uri: str = "") -> bytes:
        if not branch:
            branch = "z9hG4bK" + secrets.token_hex(6)
        if method == "INVITE":
            self.branch = branch
        kind = "Content-Type: application/sdp\r\n" if body and "Content-Type" not in extra else ""
        return (
            f"{method} {uri or f'sip:{self.user}@{HOST}:{self.server}'} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {HOST}:{self.sip.port};branch={branch};rport\r\n"
            f"Max-Forwards: 70\r\nFrom: Wire <sip:wire@{HOST}>;tag={self.tag}\r\nTo: {self.to}\r\n"
            f"Call-ID: {self.call_id}\r\nCSeq: {self.cseq} {method}\r\n"
            f"Contact: <sip:wire@{HOST}:{self.sip.port}>\r\n{extra}{kind}Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    def send(self, data: bytes) -> None:
        self.sip.send(data, self.server)

    def invite(self, body: bytes | None = None, **options: str) -> None:
        self.send(self.request("INVITE", sdp(self.rtp.port) if body is None else body, **options))

    def ack(self, body: bytes = b"", branch: str = "") -> None:
        self.send(self.request("ACK", body, branch=branch))

    async def hear(self, timeout_s: float = 10.0) -> Request | Response:
        """The next message that is no 100."""
        while True:
            message = parse(await asyncio.wait_for(self.sip.packets.get(), timeout_s))
            self.seen.append(message)
            if not isinstance(message, Response) or message.status != 100:
                return message

    async def status(self, timeout_s: float = 10.0) -> int:
        """The next response's status (180 passed over)."""
        return (await self.response(timeout_s)).status

    async def response(self, timeout_s: float = 10.0) -> Response:
        while True:
            message = await self.hear(timeout_s)
            if isinstance(message, Response) and message.status != 180:
                self.to = message.headers.get("To")
                return message

    async def answered(self, body: bytes | None = None, **options: str) -> Response:
        """Call, and acknowledge the 200."""
        self.invite(body, **options)
        response = await self.response()
        assert response.status == 200, response
        self.media_port = media_port(response.body)
        self.ack()
        return response

    async def change(self, body: bytes, method: str = "INVITE") -> Response:
        """A re-INVITE or UPDATE."""
        self.cseq += 1
        self.send(self.request(method, body))
        response = await self.response()
        if method == "INVITE":
            self.ack(branch=self.branch if response.status >= 300 else "")
        return response

    async def bye(self) -> int:
        self.cseq += 1
        self.send(self.request("BYE"))
        return await self.status()

    async def until_request(self, method: str) -> Request:
        while True:
            message = await self.hear()
            if isinstance(message, Request) and message.method == method:
                return message

    def reply_ok(self, request: Request) -> None:
        headers = type(request.headers)(
            [(name, value) for name, value in request.headers if name in ("Via", "From", "To", "Call-ID", "CSeq")]
        )
        self.send(bytes(Response(200, "OK", headers)))


def media_port(body: bytes) -> int:
    return int(body.split(b"m=audio ")[1].split()[0])


class Talker:
    """Sends a tone as mu-law from a socket, 20 ms a packet."""

    def __init__(self, socket: Socket, port: int, hertz: float = 440.0, payload_type: int = 0) -> None:
        self._socket, self._port = socket, port
        self._audio = g711.encode(np.frombuffer(tone(hertz, 1), np.int16)[::2].copy())
        self._type = payload_type
        self.ssrc, self.sequence = secrets.randbits(32), 0

    def step(self) -> None:
        at = self.sequence % 50 * 160
        packet = Packet(self._type, self.sequence & 0xFFFF, self.sequence * 160, self.ssrc, self._audio[at : at + 160])
        self._socket.send(bytes(packet), self._port)
        self.sequence += 1

    async def talk(self, packets: int) -> None:
        for _ in range(packets):
            self.step()
            await asyncio.sleep(0.02)


class TcpWire:
    """A TCP connection to the bridge."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._framer = Framer()
        self._ready: list[bytes] = []

    @classmethod
    async def open(cls, server: int) -> TcpWire:
        reader, writer = await asyncio.open_connection(HOST, server)
        _open.append(writer)
        return cls(reader, writer)

    async def hear(self, timeout_s: float = 10.0) -> Request | Response | None:
        """The next message; None when the other side has closed."""
        while not self._ready:
            data = await asyncio.wait_for(self.reader.read(65536), timeout_s)
            if not data:
                return None
            self._ready += filter(None, self._framer.feed(data))  # without pongs
        return parse(self._ready.pop(0))
