"""What the console refuses, and how a reader of the API is told."""

from __future__ import annotations

from calls.errors import OffhookError


class ConsoleError(OffhookError):
    """A request that cannot be served. `status` is the HTTP status, `hint` says what to do about it."""

    def __init__(self, status: int, error: str, hint: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.hint = hint
        self.headers = headers or {}


class BadRecording(OffhookError):
    """A recording that is not there, lies outside the recordings folder, or is no 16-bit PCM WAV file."""
