"""What the dialled number asks for: a mode, an assist call's reference, or the human agent's seat in one."""

from __future__ import annotations

import ipaddress

from calls.errors import SettingsError
from calls.model import Mode, Role
from telephony.bridge import Offer
from telephony.sip.message import Address, Request, SipError, Uri

MAX_TEXT = 128  # characters kept of anything a stranger wrote
_KEPT = ("User-Agent", "Call-ID", "Diversion", "P-Asserted-Identity", "Subject")


class Networks:
    """The addresses that are trusted to be the house's own phones."""

    def __init__(self, setting: str) -> None:
        """`setting`: "192.0.2.0/24, 2001:db8::/32"; a lone address is a network of one. Raises SettingsError."""
        try:
            self._networks = tuple(ipaddress.ip_network(part.strip()) for part in setting.split(",") if part.strip())
        except ValueError as error:
            raise SettingsError(f"OFFHOOK_SIP_TRUSTED: {error}") from None

    def __contains__(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address  # an IPv4 peer of a socket that listens on ::
        return any(address in network for network in self._networks)


def offer(request: Request, own_user: str, trusted: bool = False) -> Offer:
    """The Offer that an INVITE makes. `own_user`: under which name we are registered; behind a PBX the Request-URI
    holds that name and To the number that was dialled. `trusted`: it came from an address of the house."""
    asked = _user(request.uri)
    to = asked if asked and asked != own_user else _user(_uri(request.headers.get("To"))) or asked
    mode, roles, reference = meaning(to)
    headers = {name: clean(value) for name, value in request.headers if name in _KEPT or name.startswith("X-")}
    return Offer(
        bridge="sip",
        from_=_party(request.headers.get("From")),
        to=to,
        mode=mode,
        reference=reference,
        roles=roles,
        headers=dict(list(headers.items())[:16]),
        trusted=trusted,
    )


def meaning(number: str) -> tuple[Mode | None, tuple[Role, ...], str]:
    """`answer`, `transcribe`, `assist` and `assist+REF` name the mode; `agent` and `agent+REF` are the human agent's
    leg of an assist call. Any other number is for the gateway's routes."""
    word, _, reference = number.partition("+")
    match word.lower():
        case "answer" | "transcribe" | "assist" as mode:
            return Mode(mode), (Role.CALLER,), reference
        case "agent":
            return Mode.ASSIST, (Role.HUMAN_AGENT,), reference
        case _:
            return None, (Role.CALLER,), ""


def clean(text: str) -> str:
    """A stranger's text made fit for logs, rows and JSON: valid UTF-8, printable, short."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(char if char.isprintable() else " " for char in text)[:MAX_TEXT]


def _uri(header: str) -> str:
    try:
        return Address.parse(header).uri
    except SipError:
        return ""


def _user(uri: str) -> str:
    try:
        return clean(Uri.parse(uri).user)
    except SipError:
        return clean(uri.partition(":")[2].partition(";")[0]) if uri.lower().startswith("tel:") else ""


def _party(header: str) -> str:
    """Who calls: the user part, else the host, else what stands there."""
    uri = _uri(header)
    try:
        return _user(uri) or clean(Uri.parse(uri).host)
    except SipError:
        return clean(uri)
