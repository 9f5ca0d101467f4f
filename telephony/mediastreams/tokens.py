"""Calls that the webhook admitted and whose stream has not come yet, each with a one-time, expiring, signed token."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from calls.errors import OffhookError
from calls.model import Role
from telephony.bridge import CallHandle

TOKEN_S = 60  # seconds a token is good for


class TokenError(OffhookError):
    """The token is not ours, is used up, is too old, or is another call's."""


@dataclass(frozen=True, slots=True)
class Admission:
    handle: CallHandle
    call_sid: str
    roles: tuple[Role, ...]


class Admissions:
    """Bounded by the gateway: each entry is a call that it gave room to."""

    def __init__(self, secret: str, clock: Callable[[], float] = time.time) -> None:
        if not secret:
            raise ValueError("stream tokens need a secret")
        self._key = hashlib.sha256(b"media stream token\0" + secret.encode()).digest()
        self._clock = clock
        self._waiting: dict[str, Admission] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, admission: Admission) -> str:
        """Keep it until its stream comes. Returns the token, which `take` accepts once."""
        nonce = secrets.token_urlsafe(16)
        self._waiting[nonce] = admission
        return self._signed(nonce, int(self._clock()) + TOKEN_S)

    def take(self, token: str, call_sid: str) -> Admission:
        """The call that this token stands for. Raises TokenError."""
        nonce, _, rest = token.partition(".")
        expires, _, _ = rest.partition(".")
        if not (token.isascii() and expires.isdecimal() and len(expires) < 13):
            raise TokenError("no token")
        if not hmac.compare_digest(token.encode(), self._signed(nonce, int(expires)).encode()):
            raise TokenError("this token was not signed here")
        if self._clock() >= int(expires):
            raise TokenError("this token is too old")
        admission = self._waiting.get(nonce)
        if admission is None:
            raise TokenError("this token was used before")
        if admission.call_sid != call_sid:
            raise TokenError("this token is another call's")
        del self._waiting[nonce]
        return admission

    def forget(self, admission: Admission) -> bool:
        """Its stream will not be waited for. False when it has come already."""
        for nonce, waiting in self._waiting.items():
            if waiting is admission:
                del self._waiting[nonce]
                return True
        return False

    def of_call(self, call_sid: str) -> Admission | None:
        """The waiting admission of this call, if its webhook was asked before."""
        return next((waiting for waiting in self._waiting.values() if waiting.call_sid == call_sid), None)

    def _signed(self, nonce: str, expires: int) -> str:
        body = f"{nonce}.{expires}"
        return f"{body}.{hmac.new(self._key, body.encode(), hashlib.sha256).hexdigest()[:32]}"
