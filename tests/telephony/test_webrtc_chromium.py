"""A real browser calls: headless Chromium with a WAV as its microphone, two-way audio measured on both sides."""

from __future__ import annotations

import asyncio
import shutil
import wave
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from telephony.bridge import Gateway
from telephony.webrtc import WebRtcBridge
from tests.telephony.tone_gateway import ToneGateway, serving, share_of, tone, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECRET = "secret"
PAGE = """<!doctype html><title>call</title><script>
async function call() {
  const plain = {echoCancellation: false, noiseSuppression: false, autoGainControl: false};
  const microphone = await navigator.mediaDevices.getUserMedia({audio: plain});
  const peer = window.peer = new RTCPeerConnection();
  window.dtmf = peer.createDataChannel("dtmf");
  const heard = new Promise(resolve => peer.ontrack = event => resolve(new MediaStream([event.track])));
  peer.addTrack(microphone.getTracks()[0], microphone);
  await peer.setLocalDescription(await peer.createOffer());
  while (peer.iceGatheringState !== "complete") await new Promise(resolve => setTimeout(resolve, 20));
  const body = {sdp: peer.localDescription.sdp, type: "offer", mode: "answer", role: "caller", reference: ""};
  const answer = await fetch("/webrtc/offer", {
    method: "POST", body: JSON.stringify(body), headers: {authorization: "Bearer SECRET"}});
  const {sdp, call_id} = await answer.json();
  await peer.setRemoteDescription({type: "answer", sdp});
  const stream = await heard, player = new Audio();
  player.srcObject = stream; player.muted = true; player.play();
  const context = new AudioContext({sampleRate: 48000}), analyser = context.createAnalyser();
  analyser.fftSize = 8192;
  context.createMediaStreamSource(stream).connect(analyser);
  window.pitch = () => {
    const bins = new Float32Array(analyser.frequencyBinCount);
    analyser.getFloatFrequencyData(bins);
    const loudest = bins.indexOf(Math.max(...bins));
    return bins[loudest] > -50 ? loudest * 48000 / 8192 : 0;
  };
  return call_id;
}
</script>""".replace("SECRET", SECRET)


class Page:
    """The test page, beside the bridge, so that it is one origin."""

    name = "page"
    ready = True

    def routes(self) -> list[web.RouteDef]:
        async def page(request: web.Request) -> web.Response:
            return web.Response(text=PAGE, content_type="text/html")

        return [web.get("/", page)]

    async def run(self, gateway: Gateway) -> None:
        await asyncio.Event().wait()


def microphone(path: Path, hertz: float) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(tone(hertz, 10.0))
    return path


def flags(sound: Path) -> list[str]:
    return [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={sound}",
        "--disable-features=WebRtcHideLocalIpsWithMdns",
        "--autoplay-policy=no-user-gesture-required",
    ]


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
async def test_a_browser_calls_and_is_heard_and_hears(tmp_path: Path) -> None:
    from playwright.async_api import async_playwright

    gateway = ToneGateway(hertz=600)
    sound = microphone(tmp_path / "microphone.wav", 1000)
    async with serving(gateway, WebRtcBridge(SECRET), Page()) as base, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=flags(sound))
        page = await browser.new_page()
        await page.goto(base)
        call_id = await page.evaluate("call()")
        [call] = gateway.calls
        assert call_id == call.call_id
        await until(lambda: call.legs)

        pitches: list[float] = []

        async def listen() -> Any:
            while len(pitches) < 20:
                pitches.append(await page.evaluate("pitch()"))
                await asyncio.sleep(0.1)

        await asyncio.wait_for(listen(), 30)
        await page.evaluate("dtmf.send('7')")
        await until(lambda: call.digits == ["7"])
        await until(lambda: call.ticks >= 200)
        await page.evaluate("peer.close()")
        await call.over.wait()
        await browser.close()
    assert sum(abs(pitch - 600) < 20 for pitch in pitches[5:]) >= 12, pitches
    assert share_of(bytes(call.heard["caller"][32_000:128_000]), 1000) > 0.7
    assert call.closed == [("hung up", False)]
