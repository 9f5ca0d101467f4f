"""Media Streams messages, sans-IO: text in, frozen dataclasses out, and back.

Twilio's words are the classes' names (https://www.twilio.com/docs/voice/media-streams/websocket-messages). A dialect
is a table of field names: Telnyx sends the same messages in snake_case and calls the stream `stream_id`
(https://developers.telnyx.com/docs/voice/programmable-voice/media-streaming). Nothing serves Telnyx yet: its calls
would have to be admitted by a webhook of its own (TeXML, its signature) first.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from calls.errors import OffhookError

MAX_MESSAGE_BYTES = 64 * 1024
_ENCODER = json.JSONEncoder(separators=(",", ":"))  # json.dumps would make one for every message
_MAX_TEXT = 1024  # characters of any name or value that we keep


class ProtocolError(OffhookError):
    """A message that breaks the protocol. Nothing was changed by it."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """Field names where the dialects differ."""

    name: str
    stream: str
    call: str
    account: str
    sequence: str
    media_format: str
    sample_rate: str
    parameters: str
    encodings: tuple[tuple[str, str], ...]  # their name -> G.711 law


TWILIO = Dialect(
    name="twilio",
    stream="streamSid",
    call="callSid",
    account="accountSid",
    sequence="sequenceNumber",
    media_format="mediaFormat",
    sample_rate="sampleRate",
    parameters="customParameters",
    encodings=(("audio/x-mulaw", "mulaw"),),
)
TELNYX = Dialect(
    name="telnyx",
    stream="stream_id",
    call="call_control_id",
    account="user_id",
    sequence="sequence_number",
    media_format="media_format",
    sample_rate="sample_rate",
    parameters="custom_parameters",
    encodings=(("PCMU", "mulaw"), ("PCMA", "alaw")),
)


@dataclass(frozen=True, slots=True)
class Connected:
    version: str


@dataclass(frozen=True, slots=True)
class Start:
    stream: str
    call: str
    tracks: tuple[str, ...]
    law: str  # "mulaw" or "alaw"
    parameters: dict[str, str] = field(default_factory=dict)
    account: str = ""


@dataclass(frozen=True, slots=True)
class Media:
    """`timestamp_ms` counts from the start of the stream; `track` is "inbound" (from the caller) or "outbound"."""

    stream: str
    payload: bytes
    track: str = "inbound"
    timestamp_ms: int = 0
    chunk: int = 0


@dataclass(frozen=True, slots=True)
class Dtmf:
    stream: str
    digit: str
    track: str = "inbound"


@dataclass(frozen=True, slots=True)
class Mark:
    """Out: tell me when you have played what came before. In: it was played, or dropped by a clear."""

    stream: str
    name: str


@dataclass(frozen=True, slots=True)
class Clear:
    """Out only: drop what is buffered."""

    stream: str


@dataclass(frozen=True, slots=True)
class Stop:
    stream: str
    call: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """The provider's own complaint (Telnyx `error`)."""

    text: str


Incoming = Connected | Start | Media | Dtmf | Mark | Stop | Fault
Outgoing = Media | Mark | Clear


def parse(text: str | bytes, dialect: Dialect = TWILIO) -> Incoming:
    """One WebSocket message. Raises ProtocolError, saying what is wrong with it."""
    if len(text) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a message of {len(text)} bytes; the limit is {MAX_MESSAGE_BYTES}")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("not JSON") from None
    if not isinstance(message, dict):
        raise ProtocolError("not a JSON object")
    event = _text(message, "event")
    parser = _PARSERS.get(event)
    if parser is None:
        raise ProtocolError(f"unknown event {event[:40]!a}")
    return parser(message, dialect)


def build(message: Outgoing, dialect: Dialect = TWILIO) -> str:
    """One message to the provider, as JSON text."""
    body: dict[str, Any]
    match message:
        case Media(stream, payload):
            body = {"event": "media", "media": {"payload": base64.b64encode(payload).decode()}}
        case Mark(stream, name):
            body = {"event": "mark", "mark": {"name": name}}
        case Clear(stream):
            body = {"event": "clear"}
    return _ENCODER.encode({**body, dialect.stream: stream})


def _connected(message: dict[str, Any], dialect: Dialect) -> Connected:
    return Connected(_text(message, "version", ""))


def _start(message: dict[str, Any], dialect: Dialect) -> Start:
    start = _object(message, "start")
    media_format = _object(start, dialect.media_format)
    encoding = _text(media_format, "encoding")
    law = dict(dialect.encodings).get(encoding)
    if law is None:
        raise ProtocolError(f"encoding {encoding[:40]!a} is not one of {[name for name, _ in dialect.encodings]}")
    if (rate := _number(media_format, dialect.sample_rate)) != 8000:
        raise ProtocolError(f"{rate} samples a second; only 8000 is spoken here")
    if (channels := _number(media_format, "channels", 1)) != 1:
        raise ProtocolError(f"{channels} channels; only 1 is spoken here")
    tracks = start.get("tracks", [])
    parameters = start.get(dialect.parameters, {})
    if not isinstance(tracks, list) or not all(isinstance(track, str) for track in tracks):
        raise ProtocolError("'tracks' is not a list of strings")
    if not isinstance(parameters, dict) or not all(isinstance(value, str) for value in parameters.values()):
        raise ProtocolError(f"'{dialect.parameters}' is not an object of strings")
    return Start(
        stream=_text(message, dialect.stream, "") or _text(start, dialect.stream),
        call=_text(start, dialect.call),
        tracks=tuple(_track(track) for track in tracks),
        law=law,
        parameters=parameters,
        account=_text(start, dialect.account, ""),
    )


def _media(message: dict[str, Any], dialect: Dialect) -> Media:
    media = _object(message, "media")
    payload = media.get("payload")
    if not isinstance(payload, str):
        raise ProtocolError("'payload' is missing or is not a string")
    try:
        sound = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise ProtocolError("'payload' is not base64") from None
    if not sound:
        raise ProtocolError("'payload' is empty")
    return Media(
        stream=_text(message, dialect.stream),
        payload=sound,
        track=_track(_text(media, "track", "inbound")),
        timestamp_ms=_number(media, "timestamp"),
        chunk=_number(media, "chunk", 0),
    )


def _dtmf(message: dict[str, Any], dialect: Dialect) -> Dtmf:
    dtmf = _object(message, "dtmf")
    digit = _text(dtmf, "digit")
    if len(digit) != 1 or digit not in "0123456789*#ABCD":
        raise ProtocolError(f"{digit[:10]!a} is not a DTMF digit")
    return Dtmf(_text(message, dialect.stream), digit, _track(_text(dtmf, "track", "inbound")))


def _mark(message: dict[str, Any], dialect: Dialect) -> Mark:
    return Mark(_text(message, dialect.stream), _text(_object(message, "mark"), "name"))


def _stop(message: dict[str, Any], dialect: Dialect) -> Stop:
    stop = message.get("stop")
    return Stop(_text(message, dialect.stream), _text(stop, dialect.call, "") if isinstance(stop, dict) else "")


def _fault(message: dict[str, Any], dialect: Dialect) -> Fault:
    return Fault(json.dumps(message.get("payload"))[:_MAX_TEXT])


_PARSERS: dict[str, Callable[[dict[str, Any], Dialect], Incoming]] = {
    "connected": _connected,
    "start": _start,
    "media": _media,
    "dtmf": _dtmf,
    "mark": _mark,
    "stop": _stop,
    "error": _fault,
}


def _track(name: str) -> str:
    """Twilio writes "inbound" in media and "inbound_track" in dtmf."""
    track = name.removesuffix("_track")
    if track not in ("inbound", "outbound"):
        raise ProtocolError(f"{name[:40]!a} is not a track")
    return track


def _object(message: dict[str, Any], name: str) -> dict[str, Any]:
    value = message.get(name)
    if not isinstance(value, dict):
        raise ProtocolError(f"'{name}' is missing or is not an object")
    return value


def _text(message: dict[str, Any], name: str, default: str | None = None) -> str:
    value = message.get(name, default)
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise ProtocolError(f"'{name}' is missing or is not a short string")
    return value


def _number(message: dict[str, Any], name: str, default: int | None = None) -> int:
    """A whole number >= 0; Twilio sends most of them as strings."""
    value = message.get(name, default)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 18:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 10**18:
        raise ProtocolError(f"'{name}' is missing or is not a whole number")
    return value
