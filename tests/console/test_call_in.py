"""A call from the page with the microphone, through the real telephony service; the test plays the model."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import Browser, async_playwright

from calls.bus import Bus
from calls.events import (
    CALLS,
    CallAccepted,
    CallEnded,
    CallOffered,
    Dtmf,
    PlayoutEnded,
    PlayoutStarted,
    Say,
    Speech,
    Uttered,
    call_stream,
    speech_stream,
)
from calls.model import Utterance
from calls.store import Store
from offhook.servers import free_port
from tests.console import seed
from tests.console.conftest import Served, serving
from tests.console.test_pages import CHROMIUM, FLAGS, Seat, comes, sign_in

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
SECRET = "signing secret"


@pytest.fixture
async def telephony(bus_url: str, tmp_path: Path) -> AsyncIterator[str]:
    """`python -m telephony`; gives the address of its WebRTC offers."""
    port = free_port()
    env = {
        **os.environ,
        "OFFHOOK_REDIS_URL": bus_url,
        "OFFHOOK_SECRET": SECRET,
        "OFFHOOK_DATA": str(tmp_path),
        "OFFHOOK_SIP_PORT": str(free_port()),
        "OFFHOOK_MEDIA_PORT": str(port),
        "OFFHOOK_TWILIO_AUTH_TOKEN": "token",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "telephony", cwd=tmp_path, env=env)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    await process.wait()


@pytest.fixture
async def house(bus: Bus, store: Store, tmp_path: Path, telephony: str) -> AsyncIterator[Served]:
    async with serving(bus, store, tmp_path / "recordings", media_url=telephony) as served:
        await _listening(telephony)
        yield served


async def _listening(url: str) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
            return
        await asyncio.sleep(0.05)


@pytest.fixture
async def talker(tmp_path: Path) -> AsyncIterator[Browser]:
    """A browser whose microphone hears the garage call."""
    sound = tmp_path / "microphone.wav"
    seed.record(sound, 30.0)
    flags = [f for f in FLAGS if f != "--mute-audio"]
    flags += [f"--use-file-for-fake-audio-capture={sound}", "--disable-features=WebRtcHideLocalIpsWithMdns"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        await browser.close()


async def accept(bus: Bus) -> str:
    """Be the model worker: take the first call that is offered. Gives its id."""
    follower = bus.follower("test-worker")
    follower.add(CALLS)
    async for message in follower.messages():
        if isinstance(message.event, CallOffered):
            call_id = message.event.call_id
            bus.post(call_stream(call_id), CallAccepted(call_id=call_id, worker="test", model="none"))
            return call_id
    raise AssertionError


async def event(bus: Bus, call_id: str, kind: type) -> object:
    """The first event of this kind on the call."""
    while True:
        for message in await bus.read(call_stream(call_id)):
            if isinstance(message.event, kind):
                return message.event
        await asyncio.sleep(0.05)


async def test_a_call_by_microphone(house: Served, bus: Bus, talker: Browser) -> None:
    worker = asyncio.create_task(accept(bus))
    context = await talker.new_context(viewport={"width": 1360, "height": 860})
    page = await context.new_page()
    seat = Seat(page, house.url, context)
    seat.listen()
    await sign_in(seat)
    await page.goto(f"{house.url}/call")
    await page.click("#dial")
    call_id = await worker
    await comes(page, "document.querySelector('#status').textContent === 'connected'")
    await comes(page, "Number(document.querySelector('#meter').getAttribute('aria-valuenow')) > 20")

    # The voice agent speaks, and the page shows it.
    tone = (8000 * np.sin(np.arange(16000 * 3) * 0.1)).astype("<i2").tobytes()
    text = "Good afternoon, how can I help you?"
    bus.post(call_stream(call_id), Say(call_id=call_id, answer_id="greeting", seq=0, text=text))
    bus.post(call_stream(call_id), Say(call_id=call_id, answer_id="greeting", seq=1, text="", last=True))
    speech = Speech(call_id=call_id, answer_id="greeting", seq=0, piece=0, pcm=tone, text=text, last=True)
    bus.post(speech_stream(call_id), speech)
    await event(bus, call_id, PlayoutStarted)
    said = Utterance("u1", "caller", 3.0, 5.0, "Yeah, hi, Terry. My name is Suzanne.")
    bus.post(call_stream(call_id), Uttered(call_id=call_id, utterance=said))
    await comes(page, "document.querySelector('#talk').textContent.includes('Suzanne')")
    await comes(page, "document.querySelector('#talk').textContent.includes('how can I help you')")
    await comes(page, "document.querySelector('#voice').srcObject?.getAudioTracks().length === 1")

    await page.click("[data-digit='5']")
    pressed = await event(bus, call_id, Dtmf)
    assert isinstance(pressed, Dtmf)
    assert (pressed.digit, pressed.participant_id) == ("5", "caller")
    await page.keyboard.press("m")
    assert await page.get_attribute("#mute", "aria-pressed") == "true"
    await seat.picture("call-in-talking")
    await event(bus, call_id, PlayoutEnded)

    await page.click("#hangup")
    ended = await event(bus, call_id, CallEnded)
    assert isinstance(ended, CallEnded)
    assert ended.state == "ended"
    await page.wait_for_selector("#talk a[href^='/calls/']")
    async with house.client() as api:
        call = (await api.get(f"/api/v1/calls/{call_id}")).json()
        assert call["bridge"] == "webrtc"
        assert call["recording"]["channels"] == 2
        peaks = (await api.get(f"/api/v1/calls/{call_id}/peaks", params={"bins": 100})).json()
        assert max(peaks["channels"][0]["max"]) > 0.05  # the microphone
        assert max(peaks["channels"][1]["max"]) > 0.05  # the voice agent
    assert not [text for text in seat.complaints if "503" not in text]
    await context.close()


async def test_no_room_is_said(house: Served, talker: Browser) -> None:
    context = await talker.new_context()
    page = await context.new_page()
    seat = Seat(page, house.url, context)
    await sign_in(seat)
    await page.goto(f"{house.url}/call")
    await page.click("#dial")  # nobody accepts the call
    await page.wait_for_selector("#trouble:not([hidden])")
    assert await page.is_visible("#dial")
    assert len(await page.inner_text("#trouble")) > 10
    await context.close()
