"""Registration with a registrar (RFC 3261 section 10) and digest authentication (RFC 7616, RFC 8760), sans-IO."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from telephony.sip.dialog import Hop
from telephony.sip.message import Address, Headers, Request, Response, SipError, split
from telephony.sip.transaction import Transactions

EXPIRES = 300  # seconds asked for
FIRST_RETRY = 2.0  # seconds; doubles up to LAST_RETRY (RFC 5626, 4.5 in spirit)
LAST_RETRY = 120.0
_REGISTRAR = re.compile(
    r"(?P<scheme>sip):(?P<user>[^:@;]+)(?::(?P<password>[^@]*))?@(?P<host>[^:;@\[\]]+|\[[^\]]+\])(?::(?P<port>\d+))?"
    r"(?:;transport=(?P<transport>udp|tcp))?",
    re.IGNORECASE,
)
_HASHES = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}


@dataclass(frozen=True, slots=True)
class Registrar:
    """Where and as whom to register."""

    user: str
    host: str
    port: int = 5060
    password: str = field(default="", repr=False)
    transport: str = "udp"

    @classmethod
    def parse(cls, text: str) -> Registrar:
        """`sip:USER:PASSWORD@HOST[:PORT][;transport=tcp]`. Raises SipError; the text never repeats the password."""
        found = _REGISTRAR.fullmatch(text)
        if found is None:
            raise SipError("the registrar is written sip:USER:PASSWORD@HOST[:PORT][;transport=tcp]")
        transport = (found["transport"] or "udp").lower()
        host = found["host"].strip("[]")
        return cls(found["user"], host, int(found["port"] or 5060), found["password"] or "", transport)


class Registration:
    """Keeps one binding alive: registers, answers the challenge, refreshes in good time, retries with back-off.

    `find_hop` gives the way to the registrar; None while there is none (no address, no connection): it is tried later.
    `changed` hears every outcome: registered or not, and why.
    """

    def __init__(
        self,
        registrar: Registrar,
        transactions: Transactions,
        find_hop: Callable[[], Hop | None],
        contact: Callable[[Hop], str],
        changed: Callable[[bool, str], None],
    ) -> None:
        self.registered = False
        self._registrar = registrar
        self._transactions = transactions
        self._find_hop = find_hop
        self._contact = contact
        self._changed = changed
        self._call_id = secrets.token_hex(12)
        self._tag = secrets.token_hex(8)
        self._cseq = 0
        self._counts: dict[str, int] = {}  # how often each nonce was used
        self._retry = FIRST_RETRY
        self._stopping = False

    def start(self, now: float) -> None:
        self._send(now, EXPIRES)

    def stop(self, now: float) -> None:
        """Take the binding away, if there is one."""
        self._stopping = True
        if self.registered:
            self._send(now, 0)

    def _refresh(self, now: float) -> None:
        if not self._stopping:
            self._send(now, EXPIRES)

    def _send(self, now: float, expires: int, challenge: tuple[str, str] | None = None, tries: int = 0) -> None:
        hop = self._find_hop()
        if hop is None:
            self._failed("no way to the registrar", now)
            return
        registrar = self._registrar
        domain = registrar.host if registrar.port == 5060 else f"{registrar.host}:{registrar.port}"
        self._cseq += 1
        address = f"sip:{registrar.user}@{domain}"
        contact = self._contact(hop)
        transport = ";transport=tcp" if hop.transport == "tcp" else ""
        headers = Headers(
            [
                ("Max-Forwards", "70"),
                ("From", f"<{address}>;tag={self._tag}"),
                ("To", f"<{address}>"),
                ("Call-ID", self._call_id),
                ("CSeq", f"{self._cseq} REGISTER"),
                ("Contact", f"<sip:{registrar.user}@{contact}{transport}>"),
                ("Expires", str(expires)),
                ("User-Agent", "offhook"),
            ]
        )
        if challenge is not None:
            headers.add(*challenge)
        request = Request("REGISTER", f"sip:{domain}", headers)

        def done(response: Response | None, at: float) -> None:
            self._done(response, at, expires, tries)

        self._transactions.send(request, hop, contact, done, now)

    def _done(self, response: Response | None, now: float, expires: int, tries: int) -> None:
        if response is None:
            self._failed("the registrar does not answer", now)
        elif response.status in (401, 407) and self._again(response, tries):
            try:
                self._send(now, expires, self._authorization(response), tries + 1)
            except SipError as error:
                self._failed(str(error), now)
        elif response.status == 423 and expires:
            least = response.headers.get("Min-Expires")
            self._send(now, int(least) if least.isdigit() and len(least) < 7 else EXPIRES * 2)
        elif 200 <= response.status < 300:
            self._registered(response, now, expires)
        else:
            self._failed(f"{response.status} {response.reason}", now)

    def _again(self, response: Response, tries: int) -> bool:
        """Worth another try: the first challenge, or a nonce that only was too old."""
        stale = "stale=true" in (self._challenge_text(response) or "").lower().replace('"', "")
        return tries == 0 or (tries < 3 and stale)

    def _registered(self, response: Response, now: float, expires: int) -> None:
        self._retry = FIRST_RETRY
        if not expires:
            self.registered = False
            return
        granted = _granted(response, self._registrar.user, expires)
        self.registered = True
        self._changed(True, f"for {granted} s")
        self._transactions.at(now + max(granted * 0.5, min(granted - 5.0, 30.0), 1.0), self._refresh)

    def _failed(self, reason: str, now: float) -> None:
        self.registered = False
        self._changed(False, reason)
        if not self._stopping:
            self._transactions.at(now + self._retry, self._refresh)
            self._retry = min(self._retry * 2, LAST_RETRY)

    def _challenge_text(self, response: Response) -> str | None:
        name = "WWW-Authenticate" if response.status == 401 else "Proxy-Authenticate"
        return next((text for text in response.headers.all(name) if text[:7].lower() == "digest "), None)

    def _authorization(self, response: Response) -> tuple[str, str]:
        """The answer to a challenge. Raises SipError when it asks for what we cannot do."""
        text = self._challenge_text(response)
        if text is None:
            raise SipError("the registrar asks for an unknown kind of authentication")
        name = "Authorization" if response.status == 401 else "Proxy-Authorization"
        values = {}
        for part in split(text[7:], ","):
            key, _, value = part.partition("=")
            values[key.strip().lower()] = value.strip().strip('"')
        domain = (
            self._registrar.host if self._registrar.port == 5060 else f"{self._registrar.host}:{self._registrar.port}"
        )
        count = self._counts[values.get("nonce", "")] = self._counts.get(values.get("nonce", ""), 0) + 1
        if len(self._counts) > 64:
            self._counts.pop(next(iter(self._counts)))
        return name, digest(values, "REGISTER", f"sip:{domain}", self._registrar, secrets.token_hex(8), count)


def digest(challenge: dict[str, str], method: str, uri: str, who: Registrar, cnonce: str, count: int) -> str:
    """A Digest credentials value (RFC 7616, 3.4). Raises SipError for an algorithm or qop that we lack."""
    algorithm = challenge.get("algorithm", "MD5").upper()
    if algorithm not in _HASHES:
        raise SipError(f"the registrar asks for {algorithm[:20]}, which we do not speak")
    make = _HASHES[algorithm]

    def hashed(text: str) -> str:
        return make(text.encode()).hexdigest()

    realm, nonce = challenge.get("realm", ""), challenge.get("nonce", "")
    secret = hashed(f"{who.user}:{realm}:{who.password}")
    asked = hashed(f"{method}:{uri}")
    offered = [part.strip().lower() for part in challenge.get("qop", "").split(",") if part.strip()]
    fields = [f'username="{who.user}"', f'realm="{realm}"', f'nonce="{nonce}"', f'uri="{uri}"']
    if not offered:
        fields.append(f'response="{hashed(f"{secret}:{nonce}:{asked}")}"')
    elif "auth" in offered:
        nc = f"{count:08x}"
        fields.append(f'response="{hashed(f"{secret}:{nonce}:{nc}:{cnonce}:auth:{asked}")}"')
        fields += ["qop=auth", f"nc={nc}", f'cnonce="{cnonce}"']
    else:
        raise SipError("the registrar asks for a protection that we do not speak")
    fields.append(f"algorithm={algorithm}")
    if "opaque" in challenge:
        fields.append(f'opaque="{challenge["opaque"]}"')
    return "Digest " + ", ".join(fields)


def _granted(response: Response, user: str, asked: int) -> int:
    """The seconds that the registrar grants our Contact, else its Expires, else what we asked for (10.2.4)."""
    for text in response.headers.listed("Contact"):
        try:
            address = Address.parse(text)
        except SipError:
            continue
        granted = address.params.get("expires", "")
        if f":{user}@" in address.uri and granted.isdigit() and len(granted) < 7:
            return int(granted)
    expires = response.headers.get("Expires")
    return int(expires) if expires.isdigit() and len(expires) < 7 else asked
