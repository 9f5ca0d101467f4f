"""The telephony process itself, called by a real SIP phone."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from calls.bus import Bus
from calls.events import (
    CALLS,
    CallAccepted,
    CallEnded,
    CallOffered,
    Event,
    RecordingSaved,
    Speech,
    call_stream,
    speech_stream,
)
from calls.model import State
from calls.settings import Settings
from offhook.phone.script import Pause, Play, Script, WaitForSpeech
from offhook.phone.sip import place_call
from offhook.servers import free_port
from telephony.__main__ import SPARE_LEGS, bridges
from telephony.sip.bridge import SipBridge
from telephony.sip.dialog import Hop
from tests.telephony.sounds import spoken

pytestmark = pytest.mark.timeout(60)


def free_udp_range() -> str:
    """Some even ports in a row that are free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        low = probe.getsockname()[1] // 100 * 100
    return f"{low}-{low + 98}"


@dataclass
class Process:
    popen: subprocess.Popen[str]
    sip_port: int
    data: Path


@pytest.fixture
def process(bus_url: str, tmp_path: Path) -> Iterator[Process]:
    sip_port = free_port()
    environment = {
        **os.environ,
        "OFFHOOK_REDIS_URL": bus_url,
        "OFFHOOK_SECRET": "secret",
        "OFFHOOK_TWILIO_AUTH_TOKEN": "token",
        "OFFHOOK_DATA": str(tmp_path),
        "OFFHOOK_SIP_PORT": str(sip_port),
        "OFFHOOK_MEDIA_PORT": str(free_port()),
        "OFFHOOK_RTP_PORTS": free_udp_range(),
    }
    popen = subprocess.Popen([sys.executable, "-m", "telephony"], env=environment, stderr=subprocess.PIPE, text=True)
    yield Process(popen, sip_port, tmp_path)
    if popen.poll() is None:
        popen.kill()
    popen.communicate()


async def listening(bus: Bus) -> None:
    while "telephony" not in await bus.services():  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.05)


async def answer_calls(bus: Bus, found: asyncio.Future[str]) -> None:
    """A worker that accepts the first call and speaks on it for some seconds."""
    follower = bus.follower("test")
    follower.add(CALLS)
    async for message in follower.messages():
        if isinstance(message.event, CallOffered):
            call_id = message.event.call_id
            bus.post(call_stream(call_id), CallAccepted(call_id=call_id, worker="w", model="none"))
            pcm = spoken(20).astype("<i2").tobytes()
            bus.post(
                speech_stream(call_id), Speech(call_id=call_id, answer_id="a", seq=0, piece=0, pcm=pcm, text="Hi.")
            )
            found.set_result(call_id)


async def ended(bus: Bus, call_id: str) -> list[Event]:
    """The call's whole story."""
    while True:
        story: list[Event] = [message.event for message in await bus.read(call_stream(call_id))]
        if story and isinstance(story[-1], CallEnded):
            return story
        await asyncio.sleep(0.05)


async def test_sigterm_hangs_up_with_a_last_word_and_exits(process: Process, bus: Bus) -> None:
    await listening(bus)
    found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    worker = asyncio.create_task(answer_calls(bus, found))
    script = Script([WaitForSpeech(0.5), Play(spoken(2).astype("<i2").tobytes()), Pause(30)])
    phone = asyncio.create_task(place_call(target="200", port=process.sip_port, script=script))
    call_id = await found
    while script.now_s < 2.0:  # noqa: ASYNC110 - the phone talks
        await asyncio.sleep(0.05)
    process.popen.send_signal(signal.SIGTERM)
    await asyncio.to_thread(process.popen.wait)
    result = await phone
    worker.cancel()
    assert process.popen.returncode == 0
    assert script.last_audible_s is not None, "the phone heard the answer"
    story = await ended(bus, call_id)
    last = story[-1]
    assert isinstance(last, CallEnded)
    assert (last.state, last.reason) == (State.ENDED, "the service is stopping")
    (saved,) = [event for event in story if isinstance(event, RecordingSaved)]
    assert (process.data / "recordings" / saved.path).stat().st_size > 64_000
    assert result.completed
    assert not script.over, "it was hung up on"
    log = process.popen.stderr.read() if process.popen.stderr else ""
    assert f"call={call_id}" in log
    assert "Traceback" not in log


def test_sip_has_legs_for_every_call_and_some_who_ask() -> None:
    """Two of an assist call; the gateway counts the calls."""
    sip, _ = bridges(Settings(max_calls=5, secret="secret", twilio_auth_token="token"))
    assert isinstance(sip, SipBridge)
    assert sip._endpoint._max == 2 * 5 + SPARE_LEGS


def test_sip_tells_its_public_address() -> None:
    sip, _ = bridges(Settings(sip_public_host="198.51.100.7", secret="secret", twilio_auth_token="token"))
    assert isinstance(sip, SipBridge)
    assert sip._sockets.local_host("192.0.2.1") == "198.51.100.7"
    assert sip._contact(Hop("udp", "192.0.2.1", 5060)) == "198.51.100.7:5060"


async def test_a_port_that_is_taken_is_said_in_one_line(process: Process, bus: Bus) -> None:
    await listening(bus)
    environment = {**os.environ, "OFFHOOK_REDIS_URL": bus.url, "OFFHOOK_SECRET": "s", "OFFHOOK_DATA": str(process.data)}
    environment |= {"OFFHOOK_SIP_PORT": str(process.sip_port), "OFFHOOK_MEDIA_PORT": str(free_port())}
    second = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "telephony"], env=environment, capture_output=True, text=True
    )
    assert second.returncode == 1
    assert str(process.sip_port) in second.stderr.splitlines()[-1]
    assert "Traceback" not in second.stderr
