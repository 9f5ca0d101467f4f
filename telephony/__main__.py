"""`python -m telephony`: the media plane, from settings to shutdown. Only wires."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys

import uvloop

from calls.bus import Bus
from calls.errors import OffhookError, SettingsError
from calls.log import setup
from calls.precedence import take_precedence
from calls.settings import Settings
from telephony.bridge import Bridge
from telephony.gateway import CallGateway
from telephony.http import MediaHttp
from telephony.mediastreams.bridge import MediaStreamsBridge, MediaStreamsConfig
from telephony.recorder import Recorder
from telephony.session import Parts
from telephony.sip.bridge import SipBridge
from telephony.ticker import Ticker
from telephony.voice_activity import SileroNet
from telephony.webrtc import WebRtcBridge

log = logging.getLogger("telephony")

# SIGTERM to exit: at most these three one after the other, 5 s together.
HANG_UP_S = 2.5
SEND_S = 1.0
CLOSE_S = 1.5

SPARE_LEGS = 16  # SIP legs that may ask for a place while every call has both of its own


def main() -> int:
    settings = Settings()
    setup(settings.log_level, "telephony")
    if not take_precedence():
        log.info("no real-time priority (calls/precedence.py): on a busy machine audio may stutter")
    status = 0
    try:
        uvloop.run(serve(settings))
    except* OffhookError as errors:
        print(f"telephony: {_first(errors)}", file=sys.stderr)
        status = 1
    return status


def _first(error: BaseException) -> BaseException:
    """The cause that a group of groups was raised for."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


async def serve(settings: Settings) -> None:
    """Take calls until SIGTERM or SIGINT. Raises OffhookError (in a group) when it cannot start."""
    if not settings.redis_url:
        raise SettingsError("OFFHOOK_REDIS_URL is empty: `offhook up` sets it, or name your Valkey or Redis")
    if not settings.secret:
        raise SettingsError("OFFHOOK_SECRET is empty: `offhook up` makes one; all services share it")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    bus = Bus(settings.redis_url)
    recorder = Recorder(settings.recordings)
    ticker = Ticker()
    gateway = CallGateway(
        bus,
        Parts(bus.post, ticker, recorder, SileroNet(), settings.interrupt_after_ms, instance_name()),
        max_calls=settings.max_calls,
        routes=settings.routes,
        default_mode=settings.default_mode,
        admission_timeout_s=settings.admission_timeout_s,
        bridges=(listeners := bridges(settings)),
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            inner = [tasks.create_task(work) for work in (bus.outbox.run(), ticker.run(), gateway.run())]
            outer = [tasks.create_task(bridge.run(gateway), name=f"bridge {bridge.name}") for bridge in listeners]
            await stop.wait()
            log.info("stopping: %d calls to hang up", len(gateway.sessions))
            await gateway.close(HANG_UP_S)
            for task in outer:
                task.cancel()
            await asyncio.wait(outer, timeout=CLOSE_S)
            if not await bus.outbox.flush(SEND_S):
                log.warning("the bus is away: the last events are lost")
            for task in inner:
                task.cancel()
    finally:
        recorder.close()
        await bus.close()


def instance_name() -> str:
    """Of this process and no other, before or after it."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def bridges(settings: Settings) -> tuple[Bridge, ...]:
    """Every way in that the settings open."""
    sip = SipBridge(
        settings.sip_host,
        settings.sip_port,
        settings.rtp_ports,
        2 * settings.max_calls + SPARE_LEGS,  # an assist call has two; when all lines are busy the gateway says so
        settings.rtp_timeout_s,
        settings.sip_registrar,
        public_host=settings.sip_public_host,
        trusted=settings.sip_trusted,
    )
    media_streams = MediaStreamsBridge(
        MediaStreamsConfig(
            secret=settings.secret,
            auth_token=settings.twilio_auth_token,
            public_url=settings.public_url,
            routes=settings.routes,
            default_mode=settings.default_mode,
            silence_timeout_s=settings.rtp_timeout_s,
        )
    )
    web = WebRtcBridge(settings.secret, settings.ice_servers, settings.rtp_timeout_s)
    return sip, MediaHttp(settings.media_host, settings.media_port, (media_streams, web))


if __name__ == "__main__":
    sys.exit(main())
