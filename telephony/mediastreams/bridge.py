"""Twilio Media Streams as a Bridge: the webhook admits the call, the WebSocket that follows carries its audio."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import WSCloseCode, WSMsgType, web

from calls import g711
from calls.model import Mode
from telephony.bridge import Gateway, Refused
from telephony.mediastreams import webhook
from telephony.mediastreams.legs import ListeningLeg, Outbox, TalkingLeg
from telephony.mediastreams.protocol import (
    MAX_MESSAGE_BYTES,
    TWILIO,
    Dtmf,
    Fault,
    Mark,
    Media,
    ProtocolError,
    Start,
    Stop,
    parse,
)
from telephony.mediastreams.tokens import Admission, Admissions, TokenError

log = logging.getLogger(__name__)

STREAM_WAIT_S = 30.0  # from the webhook's answer to the stream's start
START_WAIT_S = 10.0  # from the WebSocket's opening to its start message
HEARTBEAT_S = 15.0
CLOSE_S = 1.0  # the peer gets so long to answer our close
MAX_FAULTS = 20  # broken messages that one stream may send
MAX_STRANGERS = 64  # WebSockets that have not shown a token yet


@dataclass(frozen=True, slots=True)
class MediaStreamsConfig:
    """`silence_timeout_s`: a stream from which nothing at all comes for so long is lost."""

    secret: str
    auth_token: str
    public_url: str = ""
    routes: Mapping[str, str] = field(default_factory=dict)
    default_mode: str = "answer"
    silence_timeout_s: float = 20.0
    stream_wait_s: float = STREAM_WAIT_S


class MediaStreamsBridge:
    """Serves under telephony.http; `run` holds what outlives one request."""

    name = "mediastreams"

    def __init__(self, config: MediaStreamsConfig) -> None:
        self._config = config
        self._admissions = Admissions(config.secret)
        self._gateway: Gateway | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._streams: set[MediaStream] = set()
        self._strangers: dict[asyncio.Timeout, None] = {}  # how long each may stay one; the oldest first

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(webhook.VOICE_PATH, self._voice),
            web.get(webhook.STREAM_PATH, self._stream),
        ]

    @property
    def ready(self) -> bool:
        return self._tasks is not None

    async def run(self, gateway: Gateway) -> None:
        """Serve until cancelled; every stream is closed on the way out."""
        self._gateway = gateway
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await asyncio.Event().wait()
        finally:
            self._tasks = None
            await asyncio.gather(*(stream.close("the service stops") for stream in list(self._streams)))

    # The webhook

    async def _voice(self, request: web.Request) -> web.Response:
        form = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
        url = webhook.public_url(self._config.public_url, str(request.url))
        if not webhook.is_signed(self._config.auth_token, url, form, request.headers.get("X-Twilio-Signature", "")):
            log.warning("a voice webhook with a wrong signature from %s", request.remote)
            raise web.HTTPForbidden(text="wrong signature")
        if self._gateway is None or self._tasks is None:
            raise web.HTTPServiceUnavailable(text="not ready")
        try:
            voice = webhook.read_request(form, request.query, self._config.routes, self._config.default_mode)
        except webhook.BadWebhook as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        return web.Response(text=await self._admit(voice, webhook.stream_url(url)), content_type="text/xml")

    async def _admit(self, voice: webhook.VoiceRequest, url: str) -> str:
        assert self._gateway is not None
        assert self._tasks is not None
        earlier = self._admissions.of_call(voice.call_sid)  # Twilio asks again when it heard no answer
        if earlier is not None and self._admissions.forget(earlier):
            earlier.handle.abandon("the webhook was asked again")
        try:
            handle = await self._gateway.ring(voice.offer())
        except Refused as refused:
            return webhook.refusal_twiml(voice, refused)
        admission = Admission(handle, voice.call_sid, voice.roles)
        token = self._admissions.add(admission)
        self._tasks.create_task(self._expire(admission))
        log.info("admitted %s", voice.call_sid, extra={"call_id": handle.call_id})
        if voice.mode is Mode.ANSWER:
            return webhook.answer_twiml(url, token, handle.call_id)
        return webhook.fork_twiml(voice, url, token, handle.call_id)

    async def _expire(self, admission: Admission) -> None:
        """A call whose stream never comes is given up."""
        try:
            await asyncio.sleep(self._config.stream_wait_s)
        finally:
            if self._admissions.forget(admission):
                admission.handle.abandon("its media stream never came")

    # The stream

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        if not self.ready:
            raise web.HTTPServiceUnavailable(text="not ready")
        socket = web.WebSocketResponse(
            max_msg_size=MAX_MESSAGE_BYTES, heartbeat=HEARTBEAT_S, compress=False, timeout=CLOSE_S
        )
        await socket.prepare(request)
        try:
            start, admission = await self._identify(socket)
        except (ProtocolError, TokenError) as error:
            log.warning("a media stream from %s was turned away: %s", request.remote, error)
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=str(error).encode("ascii", "replace")[:120])
            return socket
        stream = MediaStream(socket, start, admission, self._config.silence_timeout_s)
        self._streams.add(stream)
        try:
            await stream.run()
        finally:
            self._streams.discard(stream)
        return socket

    async def _identify(self, socket: web.WebSocketResponse) -> tuple[Start, Admission]:
        """The first messages must be `connected` and a `start` with a valid token, and soon; sooner when others wait:
        who opens sockets and says nothing must not keep Twilio out."""
        now = asyncio.get_running_loop().time()
        if len(self._strangers) >= MAX_STRANGERS:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.reschedule(now)
        limit = asyncio.timeout_at(now + START_WAIT_S)
        try:
            async with limit:
                self._strangers[limit] = None
                while True:
                    message = await socket.receive()
                    if message.type is not WSMsgType.TEXT:
                        raise ProtocolError("no start message")
                    event = parse(message.data)
                    if isinstance(event, Start):
                        return event, self._admissions.take(event.parameters.get("token", ""), event.call)
                    if isinstance(event, Media):
                        raise ProtocolError("media before start")
        except TimeoutError:
            raise ProtocolError("no start message in time") from None
        finally:
            self._strangers.pop(limit, None)


class MediaStream:
    """One accepted stream: reads its socket, writes its outbox, tells its legs what happens."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        start: Start,
        admission: Admission,
        silence_timeout_s: float,
    ) -> None:
        self._socket = socket
        self._start = start
        self._handle = admission.handle
        self._silence_timeout_s = silence_timeout_s
        self._outbox = Outbox()
        self._faults = 0
        self._hung_up = False
        law: g711.Law = "alaw" if start.law == "alaw" else "mulaw"
        caller, *others = [self._handle.participant(role) for role in admission.roles]
        self._legs: dict[str, ListeningLeg] = {}
        if others:  # a fork: what the caller says is inbound, what the caller hears is outbound
            self._legs["inbound"] = ListeningLeg(caller, law, self.close)
            self._legs["outbound"] = ListeningLeg(others[0], law, self.close)
        else:
            self._legs["inbound"] = TalkingLeg(caller, law, self.close, self._outbox, TWILIO, start.stream)

    async def run(self) -> None:
        """Until the stream ends, whoever ends it."""
        for leg in self._legs.values():
            self._handle.join(leg, leg.events)
        reason, lost = "the service stops", True
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self._write())
                reason, lost = await self._read()
                writer.cancel()
        finally:
            if not self._hung_up:
                for leg in self._legs.values():
                    leg.events.closed(reason, lost)
            await self._socket.close()

    async def close(self, reason: str) -> None:
        """We end it: a two-way call is over with its stream, a forked call goes on without us."""
        if not self._hung_up:
            self._hung_up = True
            log.info("closing the stream: %s", reason, extra={"call_id": self._handle.call_id})
            await self._socket.close(message=reason.encode("ascii", "replace")[:120])

    async def _read(self) -> tuple[str, bool]:
        """Returns why it ended, and whether that is a loss."""
        while True:
            try:
                message = await self._socket.receive(timeout=self._silence_timeout_s)
            except TimeoutError:
                return "nothing came from the media stream", True
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                return f"the media stream broke ({self._socket.close_code})", True
            try:
                if message.type is not WSMsgType.TEXT:
                    raise ProtocolError("a binary message")
                if self._hear(message.data):
                    return "hung up", False
            except ProtocolError as error:
                self._faults += 1
                log.warning("bad message: %s", error, extra={"call_id": self._handle.call_id})
                if self._faults >= MAX_FAULTS:
                    await self._socket.close(code=WSCloseCode.PROTOCOL_ERROR, message=b"too many broken messages")
                    return "too many broken messages", True

    def _hear(self, text: str) -> bool:
        """One message; True when it ends the stream. Raises ProtocolError."""
        event = parse(text)
        stream = getattr(event, "stream", self._start.stream)
        if stream != self._start.stream:
            raise ProtocolError("a message of another stream")
        match event:
            case Media(track=track) if track in self._legs:
                self._legs[track].ear.hear(event)
            case Mark(name=name):
                self._legs["inbound"].mark_returned(name)
            case Dtmf(digit=digit, track=track):
                self._legs.get(track, self._legs["inbound"]).events.dtmf(digit)
            case Start():
                raise ProtocolError("a second start")
            case Fault(text=fault):
                log.warning("the provider says: %s", fault, extra={"call_id": self._handle.call_id})
            case Stop():
                return True
        return False

    async def _write(self) -> None:
        try:
            while (text := await self._outbox.take()) is not None:
                await self._socket.send_str(text)
        except ConnectionError:
            return  # the reader sees it, too, and says so
        log.warning("the peer does not read its media", extra={"call_id": self._handle.call_id})
        await self._socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"reads too slowly")
