"""A fake phone in a fake browser: offers SDP to the console's API and talks Opus through aiortc."""

from __future__ import annotations

import asyncio
from collections import deque
from fractions import Fraction

import aiohttp
import numpy as np
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av.audio.frame import AudioFrame
from numpy.typing import NDArray

from calls.audio import FRAME_S, FRAME_SAMPLES, SAMPLE_RATE, SILENT_FRAME, Frame
from calls.resample import Resampler
from offhook.phone.result import PhoneResult
from offhook.phone.script import Script

CONNECT_S = 15.0
OPUS_RATE = 48_000
MAX_HEARD = 10  # Frames (200 ms) that wait to be heard; older ones are dropped


class Microphone(MediaStreamTrack):  # type: ignore[misc]
    """What the script says, 20 ms at a time."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._frames: asyncio.Queue[Frame] = asyncio.Queue(maxsize=50)
        self._samples = 0

    def say(self, frame: Frame) -> None:
        if not self._frames.full():
            self._frames.put_nowait(frame)

    async def recv(self) -> AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        samples = np.frombuffer(await self._frames.get(), np.int16)
        frame = AudioFrame.from_ndarray(samples[None, :], "s16", "mono")
        frame.sample_rate = SAMPLE_RATE
        frame.time_base = Fraction(1, SAMPLE_RATE)
        frame.pts = self._samples
        self._samples += len(samples)
        return frame


class Earpiece:
    """What comes from the far end, as 16 kHz Frames; read all the time, for aiortc keeps whatever nobody reads."""

    def __init__(self) -> None:
        self._down = Resampler(OPUS_RATE, SAMPLE_RATE)
        self._rest = np.zeros(0, np.int16)
        self._frames: deque[Frame] = deque(maxlen=MAX_HEARD)

    async def listen(self, track: MediaStreamTrack) -> None:
        """Until the track ends."""
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            assert isinstance(frame, AudioFrame)
            samples = np.concatenate([self._rest, self._down(mono(frame))])
            whole = len(samples) // FRAME_SAMPLES * FRAME_SAMPLES
            self._frames.extend(samples[at : at + FRAME_SAMPLES].tobytes() for at in range(0, whole, FRAME_SAMPLES))
            self._rest = samples[whole:]

    def hear(self) -> Frame | None:
        return self._frames.popleft() if self._frames else None


def mono(frame: AudioFrame) -> NDArray[np.int16]:
    """A packed 16-bit frame of any channels as one."""
    samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    mixed: NDArray[np.int16] = samples.mean(axis=1).astype(np.int16)
    return mixed


class Browser:
    """One peer connection that offers."""

    def __init__(self) -> None:
        self.peer = RTCPeerConnection()
        self.microphone = Microphone()
        self.earpiece = Earpiece()
        self.track: MediaStreamTrack | None = None
        self._settled = asyncio.Event()
        self.closed = asyncio.Event()
        self.peer.addTrack(self.microphone)
        self.dtmf = self.peer.createDataChannel("dtmf")
        self.peer.on("connectionstatechange", self._state_changed)
        self.peer.on("track", self._track_came)

    async def offer(self) -> str:
        """The offer with all its candidates."""
        await self.peer.setLocalDescription(await self.peer.createOffer())
        sdp: str = self.peer.localDescription.sdp
        return sdp

    async def connect(self, answer: str) -> bool:
        """Take the answer. False when no connection came of it."""
        await self.peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._settled.wait()
        except TimeoutError:
            return False
        return bool(self.peer.connectionState == "connected")

    async def talk(self, script: Script) -> tuple[bytes, bool]:
        """Play the script on the clock: what was heard, and whether the script came to its end."""
        heard = bytearray()
        loop = asyncio.get_running_loop()
        start, ticks = loop.time(), 0
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self.earpiece.listen(self.track)) if self.track else None
            while not self.closed.is_set():
                hears = self.earpiece.hear()
                heard += hears or SILENT_FRAME
                says = script.tick(hears)
                if says is None:
                    break
                self.microphone.say(says)
                ticks += 1
                await asyncio.sleep(max(0.0, start + ticks * FRAME_S - loop.time()))
            if listening:
                listening.cancel()
        return bytes(heard), not self.closed.is_set()

    def _track_came(self, track: MediaStreamTrack) -> None:
        self.track = track

    def _state_changed(self) -> None:
        if self.peer.connectionState in ("connected", "failed", "closed"):
            self._settled.set()
        if self.peer.connectionState in ("failed", "closed"):
            self.closed.set()


async def place_call(
    *,
    url: str,
    password: str,
    script: Script,
    mode: str = "answer",
    role: str = "caller",
    reference: str = "",
    number: str = "",
    path: str = "/api/v1/webrtc/offer",
) -> PhoneResult:
    """One call through the console at `url`, in real time, until a side hangs up. The human agent's leg of an assist
    call is a second call with role "human_agent" and the caller's reference. `number` says who calls."""
    browser = Browser()
    try:
        body = {"sdp": await browser.offer(), "type": "offer", "mode": mode, "role": role, "reference": reference}
        body["from"] = number
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {password}"}) as http,
            http.post(url.rstrip("/") + path, json=body) as answer,
        ):
            if answer.status != 200:
                return PhoneResult(False, answer.status, (await answer.text())[:300])
            accepted = await answer.json()
        call_id = accepted["call_id"]
        if not await browser.connect(accepted["sdp"]):
            return PhoneResult(False, 408, "the media never connected", call_id)
        heard, finished = await browser.talk(script)
        reason = "the phone hung up" if finished else "the service hung up"
        return PhoneResult(browser.peer.connectionState != "failed", 200, reason, call_id, heard)
    except aiohttp.ClientError as error:
        return PhoneResult(False, 0, f"cannot reach the service at {url}: {error}")
    finally:
        await browser.peer.close()
