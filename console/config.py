"""What the console needs to know, handed in by `__main__` (settings are read nowhere else)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

if TYPE_CHECKING:
    from calls.bus import Bus
    from calls.store import Store
    from console.auth import Throttle
    from console.hub import LiveCalls
    from console.recordings import PeaksCache


@dataclass(frozen=True, slots=True)
class ConsoleConfig:
    password: str
    secret: str
    recordings: Path
    media_url: str = ""  # where telephony takes WebRTC offers, e.g. http://127.0.0.1:8001
    ice_servers: tuple[str, ...] = ()
    secure: bool = False  # served by HTTPS: cookies are Secure, browsers are told to stay on HTTPS
    company: str = ""
    sip_address: str = ""  # host:port of the softphone address, shown on the empty page
    max_body: int = 256 * 1024  # bytes of a request's body
    send_timeout_s: float = 5.0  # a browser that takes no data for so long is dropped


@dataclass(slots=True)
class Console:
    """Everything a request handler may use; lives in `app.state.console`."""

    config: ConsoleConfig
    bus: Bus
    store: Store
    hub: LiveCalls
    peaks: PeaksCache
    throttle: Throttle
    sockets: set[object] = field(default_factory=set)  # open WebSockets, for the count on /healthz


def console_of(connection: HTTPConnection) -> Console:
    """FastAPI dependency: the Console of this application."""
    console: Console = connection.app.state.console
    return console
