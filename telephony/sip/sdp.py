"""Session descriptions and their negotiation (RFC 8866, RFC 3264): which codec, which port, which direction."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from calls.errors import OffhookError

MAX_MEDIA = 16
DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
_ANSWER = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}
_RTPMAP = re.compile(r"(\d{1,3})\s+([^/\s]+)/(\d+)(?:/(\d+))?")
_STATIC = {0: ("PCMU", 8000), 8: ("PCMA", 8000)}  # RFC 3551, table 4
_PROTOCOLS = ("RTP/AVP", "RTP/AVPF")


class SdpError(OffhookError):
    """A session description that cannot be read, or with which we have nothing in common: SIP 488."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A codec as this call numbers it. `clock` is the RTP clock rate in Hz."""

    name: str  # PCMU, PCMA or OPUS
    payload_type: int
    clock: int


@dataclass(frozen=True, slots=True)
class Agreed:
    """What offer and answer agreed on. `remote` None: learn it from the first packets."""

    codec: Codec
    events: Codec | None  # RFC 4733 telephone-event
    remote: tuple[str, int] | None
    direction: str  # ours: sendrecv, sendonly, recvonly, inactive
    held: bool  # the party put us on hold

    @property
    def sends(self) -> bool:
        return self.direction in ("sendrecv", "sendonly")

    @property
    def receives(self) -> bool:
        return self.direction in ("sendrecv", "recvonly")


@dataclass(frozen=True, slots=True)
class Media:
    """One m= section."""

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    line: str
    host: str | None
    attributes: tuple[tuple[str, str], ...] = ()

    def codecs(self) -> list[Codec]:
        """Its RTP formats in the order of preference; unknown static numbers are left out."""
        maps = {}
        for name, value in self.attributes:
            found = _RTPMAP.match(value) if name == "rtpmap" else None
            if found:
                maps[int(found[1])] = (found[2].upper(), int(found[3]))
        numbers = [int(text) for text in self.formats if text.isdigit() and int(text) < 128]
        known = {**_STATIC, **maps}
        return [Codec(known[number][0], number, known[number][1]) for number in numbers if number in known]


@dataclass(frozen=True, slots=True)
class Description:
    media: tuple[Media, ...] = ()
    direction: str = "sendrecv"

    @classmethod
    def parse(cls, body: bytes) -> Description:
        """Raises SdpError."""
        lines = [line for line in body.decode("utf-8", "replace").replace("\r\n", "\n").split("\n") if line]
        if not lines or lines[0].strip() != "v=0":
            raise SdpError("not a session description")
        session_host, direction = None, "sendrecv"
        media: list[Media] = []
        section: _Section | None = None
        for line in lines:
            key, equals, value = line[:1], line[1:2], line[2:].strip()
            if equals != "=":
                raise SdpError("a broken SDP line")
            if key == "m":
                media += [section.media(session_host)] if section else []
                section = _Section.parse(value)
                if len(media) >= MAX_MEDIA:
                    raise SdpError("too many media sections")
            elif key == "c":
                if section:
                    section.host = _host(value)
                else:
                    session_host = _host(value)
            elif key == "a":
                name, _, rest = value.partition(":")
                if section:
                    section.attributes.append((name.strip().lower(), rest.strip()))
                elif name in DIRECTIONS:
                    direction = name
        media += [section.media(session_host)] if section else []
        return cls(tuple(media), direction)


@dataclass(slots=True)
class _Section:
    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    line: str
    host: str | None = None
    attributes: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def parse(cls, value: str) -> _Section:
        parts = value.split()
        if len(parts) < 4 or not re.fullmatch(r"\d{1,5}(/\d+)?", parts[1]) or int(parts[1].split("/")[0]) > 65535:
            raise SdpError("a broken media line")
        return cls(parts[0].lower(), int(parts[1].split("/")[0]), parts[2].upper(), tuple(parts[3:]), value)

    def media(self, session_host: str | None) -> Media:
        host = self.host if self.host is not None else session_host
        return Media(self.kind, self.port, self.protocol, self.formats, self.line, host, tuple(self.attributes))


def _host(value: str) -> str:
    parts = value.split()
    if len(parts) < 3 or parts[0].upper() != "IN":
        raise SdpError("a broken connection line")
    return parts[2].split("/")[0]


@dataclass(slots=True)
class Local:
    """Our end of one session: address, port and the origin line, whose version rises with every change."""

    host: str
    port: int
    session_id: int
    version: int = 0

    def answer(self, offer: Description) -> tuple[Agreed, bytes]:
        """What we agree to, and the answer that says so. Raises SdpError when nothing fits."""
        chosen, agreed = choose(offer)
        lines = self._head()
        for media in offer.media:
            if media is chosen:
                lines += self._audio(media.protocol, [agreed.codec], agreed.events, agreed.direction)
            else:
                kind, _, rest = media.line.partition(" ")
                lines.append(f"m={kind} 0 {rest.split(maxsplit=1)[1]}")
        return agreed, _bytes(lines)

    def offer(self, direction: str = "sendrecv") -> bytes:
        """All that we speak, for an INVITE that brought no description."""
        codecs = [Codec("PCMU", 0, 8000), Codec("PCMA", 8, 8000), Codec("OPUS", 96, 48000)]
        return _bytes(self._head() + self._audio("RTP/AVP", codecs, Codec("TELEPHONE-EVENT", 101, 8000), direction))

    def _head(self) -> list[str]:
        self.version += 1
        family = "IP6" if ":" in self.host else "IP4"
        return [
            "v=0",
            f"o=offhook {self.session_id} {self.version} IN {family} {self.host}",
            "s=offhook",
            f"c=IN {family} {self.host}",
            "t=0 0",
        ]

    def _audio(self, protocol: str, codecs: list[Codec], events: Codec | None, direction: str) -> list[str]:
        every = [*codecs, *([events] if events else [])]
        lines = [f"m=audio {self.port} {protocol} " + " ".join(str(codec.payload_type) for codec in every)]
        for codec in every:
            name, channels = (codec.name, "") if codec.name != "OPUS" else ("opus", "/2")  # RFC 7587, 7
            name = name if codec is not events else "telephone-event"
            lines.append(f"a=rtpmap:{codec.payload_type} {name}/{codec.clock}{channels}")
            if codec.name == "OPUS":
                lines.append(f"a=fmtp:{codec.payload_type} useinbandfec=1;stereo=0;sprop-stereo=0")
        if events:
            lines.append(f"a=fmtp:{events.payload_type} 0-15")
        return [*lines, "a=ptime:20", f"a={direction}"]


def choose(offer: Description) -> tuple[Media, Agreed]:
    """The first audio section with a codec of ours, by the other side's preference. Raises SdpError."""
    for media in offer.media:
        if media.kind != "audio" or not media.port or media.protocol not in _PROTOCOLS:
            continue
        codecs = media.codecs()
        codec = next((codec for codec in codecs if (codec.name, codec.clock) in _OURS), None)
        if codec is None:
            continue
        events = [other for other in codecs if other.name == "TELEPHONE-EVENT"]
        events.sort(key=lambda other: other.clock != codec.clock)
        offered = next((name for name, _ in reversed(media.attributes) if name in DIRECTIONS), offer.direction)
        unheard = media.host in ("0.0.0.0", "::")  # how RFC 2543 put a call on hold
        direction = _ANSWER["inactive" if unheard else offered]
        held = direction in ("recvonly", "inactive")
        return media, Agreed(codec, events[0] if events else None, _remote(media), direction, held)
    raise SdpError("no common codec")


_OURS = {("PCMU", 8000), ("PCMA", 8000), ("OPUS", 48000)}


def _remote(media: Media) -> tuple[str, int] | None:
    try:
        address = ipaddress.ip_address(media.host or "")
    except ValueError:
        return None  # a host name: its packets will tell
    return None if address.is_unspecified or address.is_multicast else (str(address), media.port)


def _bytes(lines: list[str]) -> bytes:
    return "\r\n".join([*lines, ""]).encode()
