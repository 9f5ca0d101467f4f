"""Browsers as a Bridge: an SDP offer by HTTP, then Opus over ICE, DTLS and SRTP by aiortc (used only in this module).

Three things of aiortc are not good enough for a live call and are replaced here. Its audio jitter buffer stands still
for 320 ms at one lost packet and keeps that delay: ours takes the packets in its place. Its decoder piles up frames
that nobody reads: we decode at the tick, on demand. Its encoder makes 96 kbit/s stereo in a thread: the outgoing track
hands over finished packets, mono at 32 kbit/s.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from aiohttp import web
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.exceptions import OperationError
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av.packet import Packet

from calls.audio import FRAME_S, FRAME_SAMPLES, SILENT_FRAME, Frame
from calls.errors import OffhookError
from calls.model import Mode, Participant, Role
from telephony.bridge import CallHandle, Gateway, LegEvents, Offer, Refused
from telephony.codecs import OPUS_FRAME_SAMPLES, OPUS_RATE, OpusDecoder, OpusEncoder
from telephony.jitter import JitterBuffer, Unwrapper

log = logging.getLogger(__name__)

OFFER_PATH = "/webrtc/offer"
CONNECT_S = 30.0  # from the answer to a working connection
CLOSE_S = 1.0
IDLE_S = 3 * FRAME_S  # nothing was written for so long: the track sends silence by itself
MAX_QUEUE = 25  # Frames (0.5 s) to be sent; the oldest is dropped when it is full
RECENT_S = 3.0  # a connection that closes so soon after a packet was closed by the browser, not lost
DTMF_DIGITS = frozenset("0123456789*#ABCD")


class BadOffer(OffhookError):
    """The offer makes no sense (HTTP `status`)."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class BrowserOffer:
    """What a page asks for. `reference` joins the human agent's leg to the caller's."""

    sdp: str
    mode: Mode | None
    role: Role
    reference: str
    from_: str
    to: str

    @classmethod
    def parse(cls, body: Any) -> BrowserOffer:
        """Raises BadOffer."""
        if not isinstance(body, dict) or body.get("type", "offer") != "offer":
            raise BadOffer("not an offer")
        text = {name: body.get(name) or "" for name in ("sdp", "mode", "role", "reference", "from", "to")}
        if not all(isinstance(value, str) for value in text.values()):
            raise BadOffer("a field is not a string")
        media = [line.split()[0] for line in text["sdp"].splitlines() if line.startswith("m=")]
        if media.count("m=audio") != 1 or set(media) - {"m=audio", "m=application"}:
            raise BadOffer("the offer must hold one audio line, and at most a data channel beside it")
        try:
            mode = Mode(text["mode"]) if text["mode"] else None
            role = Role(text["role"] or "caller")
        except ValueError as error:
            raise BadOffer(str(error)) from None
        if role not in (Role.CALLER, Role.HUMAN_AGENT):
            raise BadOffer(f"nobody calls in as {role}")
        if role is Role.HUMAN_AGENT and not text["reference"]:
            raise BadOffer("the human agent's leg must name the call's reference")
        return cls(text["sdp"], mode, role, text["reference"][:200], text["from"][:200], text["to"][:200])

    def offer(self) -> Offer:
        return Offer("webrtc", self.from_ or "browser", self.to, self.mode, self.reference, (self.role,))


def parse_ice_servers(setting: str) -> list[RTCIceServer]:
    """ "stun:host:port, turn:user:password@host:port" -> aiortc's words. Raises OffhookError, which does not repeat the
    entry: it may hold a password."""
    servers = []
    for number, entry in enumerate(filter(None, (part.strip() for part in setting.split(","))), start=1):
        scheme, _, rest = entry.partition(":")
        credentials, at, host = rest.rpartition("@")
        user, _, password = credentials.partition(":")
        if scheme not in ("stun", "stuns", "turn", "turns") or not host:
            raise OffhookError(
                f"OFFHOOK_ICE_SERVERS: entry {number} is not stun:host[:port] or turn:user:password@host[:port]"
            )
        if at:
            servers.append(RTCIceServer(f"{scheme}:{host}", username=user, credential=password))
        else:
            servers.append(RTCIceServer(entry))
    return servers


class PacketTap:
    """Stands where aiortc's receiver has its jitter buffer: takes the packets, and gives its decoder none."""

    def __init__(self, take: Any) -> None:
        self._take = take

    def add(self, packet: Any) -> tuple[bool, None]:
        self._take(packet)
        return False, None


class BrowserEar:
    """RTP packets of Opus, as they come -> Frames, one a tick."""

    def __init__(self) -> None:
        self._jitter: JitterBuffer[bytes] = JitterBuffer()
        self._unwrap = Unwrapper(32)
        self._origin: int | None = None
        self._decoder = OpusDecoder()
        self._ready: deque[Frame] = deque(maxlen=6)  # a packet may hold up to 120 ms
        self.last_packet_s = asyncio.get_running_loop().time()

    def attach(self, receiver: Any) -> None:
        """Put our buffer in the place of aiortc's."""
        name = "_RTCRtpReceiver__jitter_buffer"
        if not hasattr(receiver, name):
            raise RuntimeError("this release of aiortc keeps its jitter buffer elsewhere; see telephony/webrtc.py")
        setattr(receiver, name, PacketTap(self.hear))

    def hear(self, packet: Any) -> None:
        """One RTP packet with `timestamp` (48 kHz) and `payload`."""
        self.last_packet_s = asyncio.get_running_loop().time()
        if not packet.payload:
            return
        timestamp = self._unwrap(packet.timestamp)
        if self._origin is None:
            self._origin = timestamp
        self._jitter.push(round((timestamp - self._origin) / OPUS_FRAME_SAMPLES), bytes(packet.payload))

    def read(self) -> Frame | None:
        payload = self._jitter.pop()
        if payload is not None:
            self._ready.extend(self._decoder.decode(payload))
        return self._ready.popleft() if self._ready else None


class BrowserMouth(MediaStreamTrack):  # type: ignore[misc]
    """The outgoing track: finished Opus packets, as the session's ticks write them; silence when it writes none."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._frames: deque[Frame] = deque()
        self._filled = asyncio.Event()
        self._encoder = OpusEncoder()
        self._sent = 0
        self.dropped = 0

    def write(self, frame: Frame) -> None:
        if len(self._frames) >= MAX_QUEUE:
            self._frames.popleft()
            self.dropped += 1
        self._frames.append(frame)
        self._filled.set()

    def flush(self) -> int:
        samples = self.unplayed()
        self._frames.clear()
        return samples

    def unplayed(self) -> int:
        return len(self._frames) * FRAME_SAMPLES

    async def recv(self) -> Packet[Any]:
        """aiortc's sender asks for the next packet as soon as it has sent one."""
        if self.readyState != "live":
            raise MediaStreamError
        packet: Packet[Any] = Packet(self._encoder.encode(await self._next()))
        packet.pts = self._sent * OPUS_FRAME_SAMPLES
        packet.time_base = Fraction(1, OPUS_RATE)
        self._sent += 1
        return packet

    async def _next(self) -> Frame:
        self._filled.clear()
        if not self._frames:
            try:
                async with asyncio.timeout(IDLE_S):
                    await self._filled.wait()
            except TimeoutError:
                return SILENT_FRAME
        return self._frames.popleft() if self._frames else SILENT_FRAME


class BrowserLeg:
    """One browser on a call."""

    def __init__(self, participant: Participant, ear: BrowserEar, mouth: BrowserMouth) -> None:
        self.participant = participant
        self.events = LegEvents()
        self.ear, self.mouth = ear, mouth
        self.ended = asyncio.Event()
        self.hung_up = False

    def read(self) -> Frame | None:
        return self.ear.read()

    def write(self, frame: Frame) -> None:
        self.mouth.write(frame)

    def flush(self) -> int:
        return self.mouth.flush()

    def unplayed(self) -> int:
        return self.mouth.unplayed()

    async def hang_up(self, reason: str) -> None:
        self.hung_up = True
        self.ended.set()

    def dialled(self, message: object) -> None:
        """A message of the data channel "dtmf": one or more digits. Anything else is ignored."""
        if isinstance(message, str) and len(message) <= 32 and set(message) <= DTMF_DIGITS:
            for digit in message:
                self.events.dtmf(digit)


class BrowserCall:
    """One peer connection, from its answer to its end."""

    def __init__(self, handle: CallHandle, role: Role, ice_servers: Sequence[RTCIceServer], silence_s: float) -> None:
        self._handle = handle
        self._silence_s = silence_s
        self._connected = asyncio.Event()
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=list(ice_servers)))
        mouth, ear = BrowserMouth(), BrowserEar()
        self._peer.addTrack(mouth)
        [transceiver] = self._peer.getTransceivers()
        opus = [codec for codec in RTCRtpSender.getCapabilities("audio").codecs if codec.mimeType == "audio/opus"]
        transceiver.setCodecPreferences(opus)
        ear.attach(transceiver.receiver)
        self.leg = BrowserLeg(handle.participant(role), ear, mouth)
        self._peer.on("connectionstatechange", self._state_changed)
        self._peer.on("datachannel", self._channel_opened)

    async def answer(self, sdp: str) -> str:
        """The answer to an offer, candidates included. Raises BadOffer."""
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
            await self._peer.setLocalDescription(await self._peer.createAnswer())
        except OperationError:
            raise BadOffer("the offer holds no Opus", 415) from None
        except Exception as error:  # the boundary of one call: aiortc's parser raises whatever a stranger's text causes
            log.warning("an offer cannot be used: %r", error, extra={"call_id": self._handle.call_id})
            raise BadOffer(f"this SDP cannot be used ({type(error).__name__})") from error
        answer: str = self._peer.localDescription.sdp
        return answer

    async def run(self) -> None:
        """Until the call ends, whoever ends it."""
        try:
            if not await self._connects():
                self._handle.abandon("the browser's media never connected")
                return
            log.info("a browser is connected", extra={"call_id": self._handle.call_id})
            self._handle.join(self.leg, self.leg.events)
            reason, lost = "the service stops", True
            try:
                reason, lost = await self._ended()
            finally:
                if not self.leg.hung_up:
                    self.leg.events.closed(reason, lost)
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the connection, also when we are cancelled over it: aiortc leaves sockets and threads otherwise."""
        self.leg.mouth.stop()
        closing = asyncio.ensure_future(self._peer.close())
        try:
            await asyncio.wait({closing}, timeout=CLOSE_S)
        except asyncio.CancelledError:
            await asyncio.wait({closing}, timeout=CLOSE_S)
            raise
        if not closing.done():
            log.warning("a peer connection does not close", extra={"call_id": self._handle.call_id})

    async def _connects(self) -> bool:
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._connected.wait()
        except TimeoutError:
            return False
        return bool(self._peer.connectionState == "connected")

    async def _ended(self) -> tuple[str, bool]:
        """Why, and whether that is a loss. A browser sends packets even in silence, so one that stopped has gone away:
        that is noticed sooner than by ICE consent (RFC 7675), which takes 30 s."""
        clock = asyncio.get_running_loop().time
        self.leg.ear.last_packet_s = clock()
        while not self.leg.ended.is_set():
            if clock() - self.leg.ear.last_packet_s > self._silence_s:
                return "nothing came from the browser", True
            try:
                async with asyncio.timeout(1.0):
                    await self.leg.ended.wait()
            except TimeoutError:
                continue
        if clock() - self.leg.ear.last_packet_s < RECENT_S and self._peer.connectionState == "closed":
            return "hung up", False
        return f"the browser's connection {self._peer.connectionState}", True

    def _state_changed(self) -> None:
        state = self._peer.connectionState
        log.debug("the browser's connection: %s", state, extra={"call_id": self._handle.call_id})
        if state in ("connected", "failed", "closed"):
            self._connected.set()
        if state in ("failed", "closed"):
            self.leg.ended.set()

    def _channel_opened(self, channel: RTCDataChannel) -> None:
        if channel.label == "dtmf":
            channel.on("message", self.leg.dialled)


class WebRtcBridge:
    """Serves under telephony.http. The console passes on a browser's offer, with the house's own secret."""

    name = "webrtc"

    def __init__(self, secret: str, ice_servers: str = "", silence_timeout_s: float = 20.0) -> None:
        if not secret:
            raise ValueError("offers are authorised by a secret; it is empty")
        self._secret = secret.encode()
        self._ice_servers = parse_ice_servers(ice_servers)
        self._silence_timeout_s = silence_timeout_s
        self._gateway: Gateway | None = None
        self._tasks: asyncio.TaskGroup | None = None

    def routes(self) -> list[web.RouteDef]:
        return [web.post(OFFER_PATH, self._offer)]

    @property
    def ready(self) -> bool:
        return self._tasks is not None

    async def run(self, gateway: Gateway) -> None:
        """Serve until cancelled; every peer connection is closed on the way out."""
        self._gateway = gateway
        if not log.isEnabledFor(logging.DEBUG):
            logging.getLogger("aioice").setLevel(logging.WARNING)  # at INFO it tells every step of every candidate
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await asyncio.Event().wait()
        finally:
            self._tasks = None

    async def _offer(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.encode("utf-8", "replace"), self._secret):
            raise web.HTTPUnauthorized(text="a bearer token is needed")
        if self._gateway is None or self._tasks is None:
            raise web.HTTPServiceUnavailable(text="not ready")
        try:
            offer = BrowserOffer.parse(await request.json())
            return web.json_response(await self._admit(offer, self._gateway, self._tasks))
        except BadOffer as error:
            return web.Response(text=str(error), status=error.status)
        except Refused as refused:
            return web.Response(text=str(refused) or "all lines are busy", status=503)
        except ValueError:
            return web.Response(text="the body is not JSON", status=400)

    async def _admit(self, offer: BrowserOffer, gateway: Gateway, tasks: asyncio.TaskGroup) -> dict[str, str]:
        handle = await gateway.ring(offer.offer())
        call, sdp = BrowserCall(handle, offer.role, self._ice_servers, self._silence_timeout_s), ""
        try:
            sdp = await call.answer(offer.sdp)
        finally:
            if not sdp:
                handle.abandon("the browser's offer cannot be used")
                await call.close()
        tasks.create_task(call.run(), name=f"browser on {handle.call_id}")
        return {"sdp": sdp, "type": "answer", "call_id": handle.call_id}
