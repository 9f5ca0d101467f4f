"""What our answers are made of, and two small readings of requests: keys by INFO, session timers (RFC 4028)."""

from __future__ import annotations

from telephony.sip.dialog import Hop
from telephony.sip.message import Address, Headers, Request, SipError, Via

MIN_SESSION_S = 90  # RFC 4028, 4
MAX_SESSION_S = 1800  # what it recommends; who asks for more is to refresh as often as this
REASONS = {
    100: "Trying", 180: "Ringing", 200: "OK", 400: "Bad Request", 403: "Forbidden", 405: "Method Not Allowed",
    414: "Request-URI Too Long", 415: "Unsupported Media Type", 416: "Unsupported URI Scheme", 420: "Bad Extension",
    422: "Session Interval Too Small",
    481: "Call/Transaction Does Not Exist", 482: "Loop Detected", 483: "Too Many Hops", 486: "Busy Here",
    487: "Request Terminated", 488: "Not Acceptable Here", 491: "Request Pending", 500: "Server Internal Error",
    501: "Not Implemented", 503: "Service Unavailable", 505: "Version Not Supported", 513: "Message Too Large",
}  # fmt: skip


def reply_headers(headers: Headers, hop: Hop, tag: str) -> Headers:
    """What every response copies from its request (8.2.6), with where it really came from (RFC 3581, 4)."""
    vias = headers.listed("Via")
    via = Via.parse(vias[0])
    first = vias[0]
    if "rport" in via.params:
        first = ";".join(
            f"rport={hop.port}" if part.strip().lower().partition("=")[0] == "rport" else part
            for part in first.split(";")
        )
    if via.host != hop.host or "rport" in via.params:
        first += f";received={hop.host}"
    reply = Headers([("Via", first), *(("Via", text) for text in vias[1:])])
    for name in ("From", "To", "Call-ID", "CSeq"):
        value = headers.get(name)
        if name == "To" and tag and "tag" not in _tags(value):
            value += f";tag={tag}"
        if value:
            reply.add(name, value)
    reply.add("Server", "offhook")
    return reply


def _tags(value: str) -> dict[str, str]:
    try:
        return Address.parse(value).params
    except SipError:
        return {}


def info_digit(request: Request) -> str:
    """A key in application/dtmf-relay ("Signal=5") or application/dtmf ("5")."""
    kind = request.headers.get("Content-Type").partition(";")[0].strip().lower()
    text = request.body[:200].decode("ascii", "replace")
    if kind == "application/dtmf-relay":
        signal = next((line for line in text.splitlines() if line.lower().startswith("signal")), "")
        text = signal.partition("=")[2]
    elif kind != "application/dtmf":
        return ""
    digit = text.strip().upper()
    return digit if len(digit) == 1 and digit in "0123456789*#ABCD" else ""


def session_interval(request: Request) -> int:
    """The seconds within which the party will refresh its session, 0 if it does not (RFC 4028, 9). A party that wants
    us to refresh, or less often than every MAX_SESSION_S at all events (Min-SE), gets no session timer: that is its
    right to ask for and ours to leave out. Raises SipError 422."""
    headers = request.headers
    if "timer" not in headers.listed("Supported") + headers.listed("Require"):
        return 0
    value, _, params = headers.get("Session-Expires").partition(";")
    value = value.strip()
    if not value.isdigit() or len(value) > 6 or "refresher=uas" in params.replace(" ", "").lower():
        return 0
    if int(value) < MIN_SESSION_S:
        raise SipError("the session interval is too small", 422)
    least = headers.get("Min-SE").partition(";")[0].strip()
    if least.isdigit() and (len(least) > 6 or int(least) > MAX_SESSION_S):
        return 0
    return min(int(value), MAX_SESSION_S)
