"""Strangers call the whole service: SIPp, the Debian baresip and a browser, each checked in `offhook show --json`."""

from __future__ import annotations

import asyncio
import json
import os
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.async_api import Browser, async_playwright

from benchmarks.live import audible, span_s
from benchmarks.transcripts import caller_of, find, samples
from benchmarks.wer import errors, words
from calls import g711
from calls.audio import FRAME_BYTES, FRAME_S, SAMPLE_RATE
from calls.resample import Resampler
from offhook.demo import FOLDER
from offhook.phone.wav import load
from tests import peers
from tests.console.test_pages import CHROMIUM, FLAGS, Seat, comes
from tests.system.conftest import PROMPTS, System, write_wav
from tests.system.test_calls import check_story, text_of
from tests.telephony.tone_gateway import until

QUESTION = FOLDER / "caller" / "1-hours.wav"
PROMPT = "queue-periodic-announce"
SAID = (
    "All of our representatives are currently busy. Please stay on the line and your call will be answered by the next "
    "available representative."
)
PICTURES = Path(__file__).resolve().parents[2] / "artefacts" / "peers"
AFTER_GREETING_S = 9.0


async def calls_of(system: System) -> set[str]:
    """All calls there are, living and past."""
    past, live = (
        await asyncio.to_thread(system.client.calls, limit=200),
        await asyncio.to_thread(system.client.calls, limit=200, live=True),
    )
    return {call["id"] for call in (*past, *live)}


async def new_call(system: System, before: set[str]) -> str:
    """The id of the one call that came since."""
    for _ in range(200):
        if found := await calls_of(system) - before:
            [call_id] = found
            return call_id
        await asyncio.sleep(0.1)
    raise AssertionError("no call came in")


async def shown(system: System, call_id: str) -> dict[str, Any]:
    """What `offhook show --json` says of a call once it is over and written."""
    await asyncio.to_thread(system.client.wait_until_written, call_id)
    for _ in range(200):  # the last words come after the end; then the agent says what is next
        if (await asyncio.to_thread(system.client.call, call_id))["wrap_up"]:
            break
        await asyncio.sleep(0.1)
    done = await asyncio.to_thread(system.offhook, "show", call_id, "--json")
    story = json.loads(done.stdout)
    check_story(story, system)
    return dict(story)


async def answered(system: System, call_id: str) -> None:
    """Until an answer that is not the greeting was heard, to its end or to where it was interrupted."""
    async with asyncio.timeout(60):
        async for event in system.client.events(call_id):
            if event["type"] == "PlayoutEnded" and event["answer_id"] != "greeting" and event["heard_text"]:
                return
    raise AssertionError("the call ended without an answer")


def asks_after_the_greeting(path: Path, rate: int) -> Path:
    """A WAV of a caller who lets the greeting end, asks for the opening hours, and listens."""
    pcm = bytes(int(AFTER_GREETING_S * SAMPLE_RATE) * 2) + load(QUESTION) + bytes(30 * SAMPLE_RATE * 2)
    pcm = pcm[: len(pcm) // FRAME_BYTES * FRAME_BYTES]
    if rate == SAMPLE_RATE:
        return write_wav(path, pcm)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(Resampler(SAMPLE_RATE, rate)(np.frombuffer(pcm, "<i2")).tobytes())
    return path


def check_question_was_answered(story: dict[str, Any]) -> None:
    assert story["mode"] == "answer"
    assert {"time", "open", "saturday", "saturdays", "hours"} & set(words(text_of(story, "caller"))), story[
        "utterances"
    ]
    greeting, *answers = story["answers"]
    assert "recorded" in greeting["text"].lower()
    assert not greeting["interrupted"]
    assert any(answer["heard_text"] for answer in answers), story["answers"]
    assert story["decisions"]["answer"] >= 1, story


async def test_a_voice_from_sipp_is_written_where_it_was(system: System, tmp_path: Path) -> None:
    with wave.open(str(PROMPTS / f"{PROMPT}.wav")) as file:
        assert file.getframerate() == 8000
        spoken = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    mulaw = tmp_path / "prompt.ulaw"
    mulaw.write_bytes(g711.encode(spoken))
    length_ms = len(spoken) // 8
    play = f'<nop><action><exec rtp_stream="{mulaw},1,0"/></action></nop><pause milliseconds="{length_ms + 3000}"/>'
    text = peers.sipp_call('<pause milliseconds="1500"/>', play).replace("[media_port]", "[rtpstream_audio_port]")
    before = await calls_of(system)
    result = await peers.sipp(tmp_path, text, system.running.sip_port, service="transcribe")
    assert result.code == 0, result.output
    story = await shown(system, await new_call(system, before))
    assert story["mode"] == "transcribe"
    assert "ann" in story["from"]
    said = sorted(story["utterances"], key=lambda utterance: float(utterance["start_s"]))
    assert {utterance["participant"] for utterance in said} == {"caller"}
    expected = words(SAID)
    assert errors(expected, words(text_of(story, "caller"))) <= 0.15 * len(expected), text_of(story, "caller")
    recording = caller_of(system.data / "recordings" / story["recording"]["path"])
    path = PROMPTS / f"{PROMPT}.wav"
    begin_s = find(recording, samples(load(path)), 2.0)
    start_s, end_s = (begin_s + at_s for at_s in span_s(path))
    assert said[0]["start_s"] == pytest.approx(start_s, abs=0.5)
    assert said[-1]["end_s"] == pytest.approx(end_s, abs=0.5)


async def test_baresip_asks_and_hears_the_answer(system: System, tmp_path: Path) -> None:
    says = asks_after_the_greeting(tmp_path / "says.wav", 8000)
    before = await calls_of(system)
    async with peers.baresip(tmp_path / "phone", says, codecs="pcmu") as phone:
        await phone.command("dial", f"sip:answer@{peers.HOST}:{system.running.sip_port}")
        call_id = await new_call(system, before)
        await answered(system, call_id)
        await phone.command("hangup")
        await until(lambda: phone.happened("CALL_CLOSED"))
        [heard_wav] = phone.heard()
    story = await shown(system, call_id)
    assert story["bridge"] == "sip"
    check_question_was_answered(story)
    heard = load(heard_wav)
    assert audible(heard).sum() * FRAME_S > 3.0
    # What came back is the voice that the service recorded as its own.
    with wave.open(str(system.data / "recordings" / story["recording"]["path"])) as file:
        right = samples(file.readframes(file.getnframes())).reshape(-1, 2)[:, 1].copy()
    first = int(np.flatnonzero(np.abs(right) > 0.02)[0])
    assert likeness(samples(heard), right[first : first + 3 * SAMPLE_RATE]) > 0.8


def likeness(heard: np.ndarray, piece: np.ndarray) -> float:
    """How much of `piece` is in `heard` at the best place: 1 is all of it, at any loudness."""
    size = len(heard) + len(piece)
    match = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(piece, size)), size)
    at = int(np.argmax(match[: len(heard)]))
    there = heard[at : at + len(piece)]
    scale = float(np.linalg.norm(there) * np.linalg.norm(piece))
    return float(match[at]) / scale if scale else 0.0


@pytest.fixture
async def talker(tmp_path: Path) -> AsyncIterator[Browser]:
    """A browser whose microphone hears the caller, once."""
    microphone = asks_after_the_greeting(tmp_path / "microphone.wav", SAMPLE_RATE)
    flags = [flag for flag in FLAGS if flag != "--mute-audio"]
    flags += [
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
        "--disable-features=WebRtcHideLocalIpsWithMdns",
        "--autoplay-policy=no-user-gesture-required",
    ]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        await browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
async def test_a_browser_asks_and_hears_the_answer(system: System, talker: Browser) -> None:
    url = system.running.url
    context = await talker.new_context(viewport={"width": 1360, "height": 860}, locale="en-GB", timezone_id="UTC")
    page = await context.new_page()
    seat = Seat(page, url, context)
    seat.listen()
    await page.goto(f"{url}/call")
    await page.fill("#password", system.running.password)
    await page.press("#password", "Enter")
    await page.wait_for_url(f"{url}/call")
    before = await calls_of(system)
    await page.check("input[name=mode][value=answer]", force=True)
    await page.click("#dial")
    call_id = await new_call(system, before)
    await comes(page, "document.querySelector('#status').textContent === 'connected'")
    await comes(page, "document.querySelector('#voice').srcObject?.getAudioTracks().length === 1")

    watched = await context.new_page()  # somebody watches meanwhile
    await watched.goto(f"{url}/live/{call_id}")
    await answered(system, call_id)
    await comes(watched, "/open|saturday|hours/i.test(document.querySelector('#talk').textContent)")
    await picture(watched, "live")
    await page.bring_to_front()
    await picture(page, "call-in")
    await page.click("#hangup")
    await page.wait_for_selector("#talk a[href^='/calls/']")

    story = await shown(system, call_id)
    assert story["bridge"] == "webrtc"
    check_question_was_answered(story)
    await page.click("#talk a[href^='/calls/']")
    await page.wait_for_url(f"**/calls/{call_id}")
    await page.wait_for_selector(".turn .w")
    await comes(page, "document.querySelector('audio').readyState > 0")
    await comes(page, "/recorded/i.test(document.querySelector('#talk').textContent)")
    await picture(page, "review")
    assert not seat.complaints
    await context.close()


async def picture(page: Any, name: str) -> None:
    if os.environ.get("OFFHOOK_PICTURES") != "0":
        await page.wait_for_timeout(300)
        await page.screenshot(path=PICTURES / f"{name}.png")
