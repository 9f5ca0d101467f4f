"""Who may use the console: one password, a signed session cookie for browsers, a bearer token for programs.

Everything needs one of them except the paths in OPEN: a guard in front of the whole application, so a route added
later is closed until somebody opens it. A request that changes something and comes with the cookie must also come
from our own pages (Origin or Sec-Fetch-Site), as must every WebSocket of a browser.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections import OrderedDict
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from console.config import Console

COOKIE = "offhook_session"
SESSION_S = 12 * 3600
OPEN = ("/healthz", "/login", "/static/", "/favicon.ico")

FREE_FAILURES = 5  # wrong passwords before an address has to wait
LONGEST_WAIT_S = 60.0
ADDRESSES = 4096  # remembered; the one that failed longest ago is forgotten first


class Sessions:
    """Cookies of the form `expiry.nonce.signature`. Changing the password or the secret ends every session."""

    def __init__(self, secret: str, password: str) -> None:
        self._key = hmac.digest(secret.encode(), b"offhook console session\0" + password.encode(), hashlib.sha256)

    def issue(self, now: float) -> str:
        """A cookie that is valid for SESSION_S seconds from `now` (Unix time)."""
        body = f"{int(now) + SESSION_S}.{secrets.token_urlsafe(12)}"
        return f"{body}.{self._sign(body)}"

    def valid(self, cookie: str, now: float) -> bool:
        body, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(body).encode()):
            return False
        expiry = body.partition(".")[0]
        return expiry.isdigit() and now < int(expiry)

    def _sign(self, body: str) -> str:
        digest = hmac.digest(self._key, body.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class Throttle:
    """Slows down guessing: after FREE_FAILURES wrong passwords an address waits 1, 2, 4 ... LONGEST_WAIT_S seconds
    before its next try is looked at. A right password wipes the slate."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()  # address -> (failures, locked until)

    def wait_s(self, address: str, now: float) -> float:
        """Seconds until this address may try again; 0: now."""
        return max(0.0, self._failures.get(address, (0, 0.0))[1] - now)

    def failed(self, address: str, now: float) -> None:
        count = self._failures.pop(address, (0, 0.0))[0] + 1
        over = count - FREE_FAILURES
        wait_s = min(2.0 ** min(over, 16), LONGEST_WAIT_S) if over >= 0 else 0.0
        self._failures[address] = (count, now + wait_s)
        while len(self._failures) > ADDRESSES:
            self._failures.popitem(last=False)

    def succeeded(self, address: str) -> None:
        self._failures.pop(address, None)


def same_password(given: str, password: str) -> bool:
    """Compared in a time that depends on neither; an empty password opens nothing."""
    a = hashlib.sha256(given.encode()).digest()
    b = hashlib.sha256(password.encode()).digest()
    return hmac.compare_digest(a, b) and bool(password)


def from_own_page(headers: Headers) -> bool:
    """The browser says that one of our own pages made this request."""
    origin = headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc == headers.get("host")
    return headers.get("sec-fetch-site") == "same-origin"


def safe_next(target: str) -> str:
    """A path on this site to go to after the login; anything else becomes the home page."""
    plain = target.startswith("/") and not target.startswith("//") and "\\" not in target and target.isprintable()
    return target if plain else "/"


def address_of(connection: HTTPConnection) -> str:
    return connection.client.host if connection.client else "unknown"


class Guard:
    """ASGI middleware: closed unless proven open."""

    def __init__(self, app: ASGIApp, console: Console, sessions: Sessions) -> None:
        self.app = app
        self._console = console
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or self._is_open(scope["path"]):
            await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        refusal = self._refusal(connection)
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 4401, "reason": refusal[1]})  # before accept: HTTP 403
        else:
            await _refuse(connection, send, *refusal)

    @staticmethod
    def _is_open(path: str) -> bool:
        return any(path == place or (place.endswith("/") and path.startswith(place)) for place in OPEN)

    def _refusal(self, connection: HTTPConnection) -> tuple[int, str, dict[str, str]] | None:
        """None: let it in. Else the HTTP status, the error and headers to send."""
        headers = connection.headers
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._bearer(address_of(connection), token.strip())
        if not self._sessions.valid(connection.cookies.get(COOKIE, ""), time.time()):
            return 401, "not signed in", {"www-authenticate": "Bearer"}
        changes = connection.scope["type"] == "websocket" or connection.scope["method"] not in ("GET", "HEAD")
        if changes and not from_own_page(headers):
            return 403, "the request does not come from this site's own pages", {}
        return None

    def _bearer(self, address: str, token: str) -> tuple[int, str, dict[str, str]] | None:
        throttle = self._console.throttle
        wait_s = throttle.wait_s(address, time.monotonic())
        if wait_s > 0:
            return 429, "too many wrong passwords", {"retry-after": str(int(wait_s) + 1)}
        if not same_password(token, self._console.config.password):
            throttle.failed(address, time.monotonic())
            return 401, "wrong password", {"www-authenticate": "Bearer"}
        throttle.succeeded(address)
        return None


async def _refuse(connection: HTTPConnection, send: Send, status: int, error: str, headers: dict[str, str]) -> None:
    path = connection.url.path
    if status == 401 and not path.startswith("/api/") and connection.scope["method"] in ("GET", "HEAD"):
        target = path + (f"?{connection.url.query}" if connection.url.query else "")
        status, headers = 303, {"location": f"/login?next={quote(safe_next(target), safe='')}"}
    hints = {
        401: "Sign in, or send the header 'Authorization: Bearer PASSWORD'.",
        429: "Wait, then try again with the right password.",
        403: "Use 'Authorization: Bearer PASSWORD' from programs.",
    }
    body = json.dumps({"error": error, "hint": hints.get(status, "")}).encode()
    raw = [(key.encode(), value.encode()) for key, value in headers.items()]
    raw += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": b"" if connection.scope["method"] == "HEAD" else body})
