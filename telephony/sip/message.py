"""SIP messages as bytes and as values (RFC 3261 sections 7, 19, 20 and 25). Nothing here does I/O.

The parser is strict where leniency would let two machines read one message differently (lengths, repeated headers,
control characters) and lenient where phones differ without harm (case, white space, compact names, folding).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote

from calls.errors import OffhookError

MAX_HEAD = 16_384  # bytes of start line and headers
MAX_BODY = 65_536  # bytes
MAX_HEADERS = 160

_COMPACT = {
    "i": "Call-ID", "m": "Contact", "e": "Content-Encoding", "l": "Content-Length", "c": "Content-Type", "f": "From",
    "s": "Subject", "k": "Supported", "t": "To", "v": "Via", "o": "Event", "r": "Refer-To", "x": "Session-Expires",
    "u": "Allow-Events", "b": "Referred-By",
}  # fmt: skip
_NAMES = {
    name.lower(): name
    for name in (*_COMPACT.values(), "CSeq", "WWW-Authenticate", "MIME-Version", "Min-SE", "X-Offhook-Call-ID")
}
_TOKEN = r"[A-Za-z0-9.!%*_+`'~-]+"
_REQUEST = re.compile(rf"({_TOKEN}) (\S+) SIP/(\d+\.\d+)")
_RESPONSE = re.compile(r"SIP/(\d+\.\d+) (\d{3})(?: (.*))?")
_HEADER = re.compile(rf"({_TOKEN})[ \t]*:[ \t]*(.*)", re.DOTALL)
_CSEQ = re.compile(rf"(\d{{1,10}})[ \t]+({_TOKEN})")
_HOST = r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]"
_VIA = re.compile(rf"SIP\s*/\s*2\.0\s*/\s*({_TOKEN})\s+({_HOST})\s*(?::\s*(\d{{1,5}}))?\s*(;.*)?", re.DOTALL)
_URI = re.compile(
    r"(?P<scheme>sips?):(?:(?P<user>[^@\s<>\"]*?)(?::(?P<password>[^@:\s<>\"]*))?@)?"
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9._-]*)|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?"
    r"(?P<params>(?:;[^?\s<>\"]*)?)(?P<headers>(?:\?[^\s<>]*)?)",
    re.IGNORECASE,
)
_ONCE = ("From", "To", "Call-ID", "CSeq", "Content-Length", "Max-Forwards")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class SipError(OffhookError):
    """Bytes that are not a SIP message we can act on. `status` is what a well-mannered answer would say;
    `headers` is as much as could be read, so that the answer can be addressed."""

    def __init__(self, reason: str, status: int = 400, headers: Headers | None = None, method: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers
        self.method = method


class Headers:
    """Header fields in order. Names compare without case; compact forms are expanded."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self._items: list[tuple[str, str]] = [(canonical(name), value) for name, value in items]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._items)

    def __contains__(self, name: str) -> bool:
        return any(key == name for key, _ in self._items)

    def get(self, name: str, default: str = "") -> str:
        """The first field of this name."""
        return next((value for key, value in self._items if key == name), default)

    def all(self, name: str) -> list[str]:
        """Every field of this name, as it stands."""
        return [value for key, value in self._items if key == name]

    def listed(self, name: str) -> list[str]:
        """Every element of this name's comma-separated lists (RFC 3261, 7.3.1)."""
        return [part for value in self.all(name) for part in split(value, ",") if part]

    def add(self, name: str, value: str) -> None:
        self._items.append((canonical(name), value))

    def put(self, name: str, value: str) -> None:
        """Replace the first field of this name, or add it."""
        for i, (key, _) in enumerate(self._items):
            if key == name:
                self._items[i] = (name, value)
                return
        self.add(name, value)


@dataclass(slots=True)
class Request:
    method: str
    uri: str
    headers: Headers
    body: bytes = b""

    @property
    def cseq(self) -> int:
        return int(self.headers.get("CSeq").split()[0])

    def __bytes__(self) -> bytes:
        return _render(f"{self.method} {self.uri} SIP/2.0", self.headers, self.body)


@dataclass(slots=True)
class Response:
    status: int
    reason: str
    headers: Headers
    body: bytes = b""

    def __bytes__(self) -> bytes:
        return _render(f"SIP/2.0 {self.status} {self.reason}", self.headers, self.body)


@dataclass(frozen=True, slots=True)
class Uri:
    """A SIP or SIPS URI (RFC 3261, 19.1). `user` is unescaped."""

    user: str
    host: str
    port: int | None = None
    params: dict[str, str] = field(default_factory=dict)
    scheme: str = "sip"

    @classmethod
    def parse(cls, text: str) -> Uri:
        """Raises SipError: 416 for another scheme, 400 for a broken URI."""
        if len(text) > 2048:
            raise SipError("the URI is too long", 414)
        found = _URI.fullmatch(text)
        if found is None:
            scheme = text.partition(":")[0].lower()
            raise SipError(f"not a SIP URI: {text[:60]!r}", 400 if scheme in ("sip", "sips") else 416)
        port = int(found["port"]) if found["port"] else None
        if port is not None and not 0 < port < 65536:
            raise SipError(f"no such port: {port}")
        params = parameters(found["params"])
        return cls(unquote(found["user"] or ""), found["host"].strip("[]"), port, params, found["scheme"].lower())


@dataclass(frozen=True, slots=True)
class Address:
    """A From, To, Contact or Route value: display name, URI and the header's own parameters (20.10)."""

    uri: str
    display: str = ""
    params: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Address:
        text = text.strip()
        display, start = "", 0
        if text.startswith('"'):
            quoted = re.match(r'"((?:[^"\\]|\\.)*)"\s*', text, re.DOTALL)
            if quoted is None:
                raise SipError("an unclosed quoted name")
            display, start = re.sub(r"\\(.)", r"\1", quoted[1]), quoted.end()
        opened = text.find("<", start)
        if opened < 0:
            if start:
                raise SipError("a name with no address")
            uri, _, params = text.partition(";")
            if not uri or re.search(r"\s", uri.strip()):
                raise SipError("not an address")
            return cls(uri.strip(), "", parameters(params))
        closed = text.find(">", opened)
        if closed < 0:
            raise SipError("an unclosed <address>")
        display = display or text[start:opened].strip()
        uri = text[opened + 1 : closed].strip()
        if not uri:
            raise SipError("an empty <address>")
        return cls(uri, display, parameters(text[closed + 1 :]))


@dataclass(frozen=True, slots=True)
class Via:
    """One Via value (20.42)."""

    transport: str
    host: str
    port: int | None
    params: dict[str, str]
    text: str

    @classmethod
    def parse(cls, text: str) -> Via:
        found = _VIA.fullmatch(text.strip())
        if found is None:
            raise SipError("a broken Via")
        transport, host, port, rest = found.groups()
        return cls(transport.upper(), host.strip("[]"), int(port) if port else None, parameters(rest or ""), text)


def canonical(name: str) -> str:
    """A header's usual spelling: compact forms expanded, Words-Like-This."""
    low = name.lower()
    return _COMPACT.get(low) or _NAMES.get(low) or "-".join(word.capitalize() for word in low.split("-"))


def split(text: str, separator: str) -> list[str]:
    """Split at a separator that stands outside "quotes" and <brackets>."""
    parts, begin, quoted, bracket, i = [], 0, False, False, 0
    while i < len(text):
        char = text[i]
        if char == "\\" and quoted:
            i += 1
        elif char == '"':
            quoted = not quoted
        elif not quoted and char in "<>":
            bracket = char == "<"
        elif char == separator and not quoted and not bracket:
            parts.append(text[begin:i].strip())
            begin = i + 1
        i += 1
    parts.append(text[begin:].strip())
    return parts


def parameters(text: str) -> dict[str, str]:
    """`;name=value;flag` as a dict: names in lower case, quotes taken off, a flag's value empty."""
    found: dict[str, str] = {}
    for part in split(text, ";"):
        name, _, value = part.partition("=")
        if name.strip():
            found.setdefault(name.strip().lower(), value.strip().strip('"'))
    return found


def parse(data: bytes) -> Request | Response:
    """One whole message, as a datagram or as framed from a stream. Raises SipError."""
    head, blank, body = data.lstrip(b"\r\n").partition(b"\r\n\r\n")
    if not blank:
        raise SipError("no empty line after the headers")
    if len(head) > MAX_HEAD:
        raise SipError("headers are too long", 513)
    lines = _unfold(head)
    headers = Headers()
    request, response = _REQUEST.fullmatch(lines[0]), _RESPONSE.fullmatch(lines[0])
    method = request[1] if request else ""
    try:
        _read_headers(lines[1:], headers)
        if request is None and response is None:
            raise SipError("neither a request nor a response")
        if (request[3] if request else response[1] if response else "") != "2.0":
            raise SipError("only SIP/2.0 is spoken here", 505)
        _check(headers, method)
        body = _body(headers, body)
    except SipError as error:
        error.headers, error.method = headers, method
        raise
    if request:
        return Request(request[1], request[2], headers, body)
    assert response is not None
    return Response(int(response[2]), response[3] or "", headers, body)


def _unfold(head: bytes) -> list[str]:
    """The head's lines, with continuation lines joined (7.3.1)."""
    lines: list[str] = []
    for line in head.decode("utf-8", "surrogateescape").split("\r\n"):
        if line[:1] in (" ", "\t") and len(lines) > 1:
            lines[-1] += " " + line.strip()
        else:
            lines.append(line)
    return lines


def _read_headers(lines: list[str], headers: Headers) -> None:
    for line in lines[:MAX_HEADERS]:
        found = _HEADER.fullmatch(line)
        if found is None or _CONTROL.search(line) or "\n" in line or "\r" in line:
            raise SipError("a broken header line")
        headers.add(found[1], found[2].strip())
    if len(lines) > MAX_HEADERS:
        raise SipError("too many headers", 513)


def _check(headers: Headers, method: str) -> None:
    """What every message must have, once (8.1.1)."""
    for name in _ONCE:
        if len(headers.all(name)) > 1:
            raise SipError(f"{name} is there more than once")
    for name in ("Via", "From", "To", "Call-ID", "CSeq"):
        if not headers.get(name):
            raise SipError(f"no {name}")
    cseq = _CSEQ.fullmatch(headers.get("CSeq"))
    if cseq is None or int(cseq[1]) >= 2**31 or (method and cseq[2] != method):
        raise SipError("a broken CSeq")
    Via.parse(headers.listed("Via")[0])
    for name in ("From", "To"):
        Address.parse(headers.get(name))


def _body(headers: Headers, body: bytes) -> bytes:
    length = headers.get("Content-Length")
    if not length:
        return body[:MAX_BODY]
    if not length.isascii() or not length.isdigit() or len(length) > 9 or int(length) > len(body):
        raise SipError("Content-Length does not fit the message")
    return body[: int(length)]


def _render(start: str, headers: Headers, body: bytes) -> bytes:
    lines = [start, *(f"{name}: {value}" for name, value in headers if name != "Content-Length")]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


class Framer:
    """Messages out of a byte stream (18.3): each as long as its Content-Length says. b"" stands for a keep-alive
    (an empty line; RFC 5626, 3.5.1)."""

    def __init__(self) -> None:
        self._held = bytearray()

    @property
    def torn(self) -> bool:
        """The beginning of a message is held."""
        return bool(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """Whole messages so far. Raises SipError when the stream cannot be followed any more: close it."""
        self._held += data
        found: list[bytes] = []
        while self._held:
            if self._held[:2] == b"\r\n":
                del self._held[:2]
                found.append(b"")
                continue
            end = self._held.find(b"\r\n\r\n")
            if end < 0:
                if len(self._held) > MAX_HEAD:
                    raise SipError("headers are too long", 513)
                return found
            if end > MAX_HEAD:
                raise SipError("headers are too long", 513)
            whole = end + 4 + _content_length(bytes(self._held[:end]))
            if len(self._held) < whole:
                return found
            found.append(bytes(self._held[:whole]))
            del self._held[:whole]
        return found


_LENGTH = re.compile(rb"\r\n(?:content-length|l)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)


def _content_length(head: bytes) -> int:
    values = {value.strip() for value in _LENGTH.findall(head)}
    if not values:
        return 0
    value = values.pop()
    if values or not value.isdigit() or len(value) > 9 or int(value) > MAX_BODY:
        raise SipError("a stream needs one Content-Length that can be believed")
    return int(value)
