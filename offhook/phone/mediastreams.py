"""A fake phone behind a fake Twilio: asks the voice webhook, obeys its TwiML, and speaks Media Streams.

It keeps to what Twilio does as far as the service can see: the webhook is signed, the stream opens with `connected`
and `start`, media comes 20 ms at a time on the clock, what the service sends is played from a buffer in real time, a
mark comes back when what was sent before it has been played, and a `clear` empties the buffer and returns every mark.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
from collections import deque
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import aiohttp
import numpy as np
from twilio.request_validator import RequestValidator

from calls import g711
from calls.audio import FRAME_S, SAMPLE_RATE, SILENT_FRAME, Frame
from calls.resample import Resampler
from offhook.phone.result import PhoneResult
from offhook.phone.script import Script

RATE = 8_000
FRAME_BYTES = 160  # 20 ms of mu-law
MAX_MESSAGE_BYTES = 64 * 1024
SERVICE_NUMBER = "+15550199"
AGENT_NUMBER = "+15550100"


class PlayoutBuffer:
    """What Twilio holds of our audio, and the marks in it. Sans-IO: `tick` plays 20 ms."""

    def __init__(self) -> None:
        self._sound = bytearray()
        self._marks: deque[tuple[int, str]] = deque()  # bytes still to be played before it, counted from the start
        self._played = 0

    def media(self, payload: bytes) -> None:
        self._sound += payload

    def mark(self, name: str) -> None:
        self._marks.append((self._played + len(self._sound), name))

    def clear(self) -> list[str]:
        """Everything is dropped; all marks are returned now."""
        self._sound.clear()
        names = [name for _, name in self._marks]
        self._marks.clear()
        return names

    def tick(self) -> tuple[bytes, list[str]]:
        """20 ms (b"" when there is nothing to play) and the marks that are reached by them."""
        sound = bytes(self._sound[:FRAME_BYTES])
        del self._sound[:FRAME_BYTES]
        self._played += len(sound)
        names = []
        while self._marks and self._marks[0][0] <= self._played:
            names.append(self._marks.popleft()[1])
        return sound, names


@dataclass(frozen=True, slots=True)
class Plan:
    """What the TwiML told Twilio to do. `status` other than 200: the call is turned away."""

    status: int
    reason: str = ""
    stream_url: str = ""
    both_tracks: bool = False
    parameters: dict[str, str] = field(default_factory=dict)


def read_twiml(text: str) -> Plan:
    """The first verb that matters decides."""
    for verb in ElementTree.fromstring(text):
        stream = verb.find("Stream")
        if verb.tag in ("Connect", "Start") and stream is not None:
            parameters = {p.get("name", ""): p.get("value", "") for p in stream.iter("Parameter")}
            both = verb.tag == "Start" and stream.get("track") == "both_tracks"
            return Plan(200, "", stream.get("url", ""), both, parameters)
        if verb.tag == "Reject":
            return Plan(486, verb.get("reason", "rejected"))
        if verb.tag == "Say":
            return Plan(503, verb.text or "")
    return Plan(503, "the TwiML starts no stream")


class Track:
    """One party: what its script says, as mu-law media messages."""

    def __init__(self, name: str, script: Script) -> None:
        self.name = name
        self.script = script
        self.over = False
        self.said: Frame = SILENT_FRAME
        self._chunk = 0
        self._down = Resampler(SAMPLE_RATE, RATE)

    def tick(self, heard: Frame | None) -> bytes:
        """20 ms go by; returns 20 ms of mu-law. A script that is over is silent."""
        said = None if self.over else self.script.tick(heard)
        self.over = said is None
        self.said = said or SILENT_FRAME
        return g711.encode(self._down(np.frombuffer(self.said, np.int16)))

    def media(self, payload: bytes, now_ms: int) -> dict[str, Any]:
        self._chunk += 1
        return {
            "event": "media",
            "media": {
                "track": self.name,
                "chunk": str(self._chunk),
                "timestamp": str(now_ms),
                "payload": base64.b64encode(payload).decode(),
            },
        }


class Twilio:
    """One call's media stream, from Twilio's side."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, call_sid: str, plan: Plan, tracks: list[Track]) -> None:
        self._socket = socket
        self._call_sid = call_sid
        self._stream_sid = f"MZ{secrets.token_hex(16)}"
        self._plan = plan
        self._tracks = tracks
        self._sequence = 0
        self._up = Resampler(RATE, SAMPLE_RATE)
        self.buffer = PlayoutBuffer()
        self.heard = bytearray()

    async def run(self) -> int | None:
        """The whole stream. Returns the close code if the service ended it, None if the phones hung up."""
        await self._socket.send_json({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        await self._send(
            {
                "event": "start",
                "start": {
                    "accountSid": "AC" + "0" * 32,
                    "streamSid": self._stream_sid,
                    "callSid": self._call_sid,
                    "tracks": [track.name for track in self._tracks],
                    "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": RATE, "channels": 1},
                    "customParameters": self._plan.parameters,
                },
            }
        )
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read())
            talking = tasks.create_task(self._talk())
            await asyncio.wait([reading, talking], return_when=asyncio.FIRST_COMPLETED)
            ended_by_service = reading.done()
            talking.cancel()
            if not ended_by_service:
                await self._socket.close()
            await reading
        return self._socket.close_code if ended_by_service else None

    async def _talk(self) -> None:
        """Every 20 ms: play what is buffered, return marks, let each script hear and speak."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        ticks = 0
        try:
            while not all(track.over for track in self._tracks):
                heard = await self._play()
                for track, hears in zip(self._tracks, self._hearing(heard), strict=True):
                    await self._send(track.media(track.tick(hears), round(ticks * FRAME_S * 1000)))
                ticks += 1
                await asyncio.sleep(max(0.0, start + ticks * FRAME_S - loop.time()))
            await self._send({"event": "stop", "stop": {"accountSid": "AC" + "0" * 32, "callSid": self._call_sid}})
        except ConnectionError:
            return  # the service closed it; the reader knows the code

    def _hearing(self, played: Frame | None) -> list[Frame | None]:
        """What each party hears: the service, or on a fork each other."""
        if len(self._tracks) == 1:
            return [played]
        return [self._tracks[1].said, self._tracks[0].said]

    async def _play(self) -> Frame | None:
        sound, marks = self.buffer.tick()
        await self._return(marks)
        silence = bytes([g711.SILENCE["mulaw"]])
        frame = self._up(g711.decode(sound.ljust(FRAME_BYTES, silence))).tobytes()
        self.heard += frame
        return frame if sound else None

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            body = json.loads(message.data)
            if self._plan.both_tracks:
                continue  # a fork has no way back
            match body["event"]:
                case "media":
                    self.buffer.media(base64.b64decode(body["media"]["payload"]))
                case "mark":
                    self.buffer.mark(body["mark"]["name"])
                case "clear":
                    await self._return(self.buffer.clear())

    async def _return(self, marks: list[str]) -> None:
        for name in marks:
            with contextlib.suppress(ConnectionError):  # the service has closed it
                await self._send({"event": "mark", "mark": {"name": name}})

    async def _send(self, message: dict[str, Any]) -> None:
        self._sequence += 1
        await self._socket.send_json(
            {**message, "sequenceNumber": str(self._sequence), "streamSid": self._stream_sid},
            dumps=lambda value: json.dumps(value, separators=(",", ":")),
        )


async def ask_webhook(
    http: aiohttp.ClientSession, url: str, auth_token: str, form: dict[str, str], query: dict[str, str], public_url: str
) -> Plan:
    """POST the voice webhook, signed as Twilio signs it. Raises aiohttp.ClientError when nobody is there."""
    path = "/twilio/voice?" + urlencode(query)
    signature = RequestValidator(auth_token).compute_signature((public_url or url).rstrip("/") + path, form)
    async with http.post(url.rstrip("/") + path, data=form, headers={"X-Twilio-Signature": signature}) as answer:
        text = await answer.text()
        return read_twiml(text) if answer.status == 200 else Plan(answer.status, text[:200])


async def place_call(
    *,
    url: str,
    auth_token: str,
    mode: str,
    number: str,
    script: Script,
    agent: Script | None = None,
    public_url: str = "",
) -> PhoneResult:
    """One call into the service at `url` (the media port), in real time, until a side hangs up.

    With an `agent` the TwiML is asked to put the caller through to one, and the stream is the fork of both; such a
    call ends when both scripts are over. `public_url` is what the service believes its own URL to be, if it was told.
    """
    call_sid = f"CA{secrets.token_hex(16)}"
    form = {
        "AccountSid": "AC" + "0" * 32,
        "ApiVersion": "2010-04-01",
        "CallSid": call_sid,
        "CallStatus": "ringing",
        "Direction": "inbound",
        "From": number,
        "To": SERVICE_NUMBER,
    }
    query = {"mode": mode} | ({"dial": AGENT_NUMBER} if agent else {})
    try:
        async with aiohttp.ClientSession() as http:
            plan = await ask_webhook(http, url, auth_token, form, query, public_url)
            if plan.status != 200:
                return PhoneResult(False, plan.status, plan.reason)
            tracks = [Track("inbound", script)]
            if plan.both_tracks:
                tracks.append(Track("outbound", agent or Script([])))
            stream_url = _reachable(plan.stream_url, url, public_url)
            async with http.ws_connect(stream_url, max_msg_size=MAX_MESSAGE_BYTES) as socket:
                twilio = Twilio(socket, call_sid, plan, tracks)
                code = await twilio.run()
    except aiohttp.ClientError as error:
        return PhoneResult(False, 0, f"cannot reach the service at {url}: {error}")
    call_id = plan.parameters.get("call_id", "")
    if code is None:
        return PhoneResult(True, 200, "the phone hung up", call_id, bytes(twilio.heard))
    ended_well = code == aiohttp.WSCloseCode.OK
    reason = "the service hung up" if ended_well else f"the service closed the stream ({code})"
    return PhoneResult(ended_well, 200, reason, call_id, bytes(twilio.heard))


def _reachable(stream_url: str, url: str, public_url: str) -> str:
    """The stream's URL with the public base replaced by the one that we reach the service by."""
    if not public_url:
        return stream_url
    public_ws = "ws" + public_url.rstrip("/").removeprefix("http")
    return "ws" + url.rstrip("/").removeprefix("http") + stream_url.removeprefix(public_ws)
