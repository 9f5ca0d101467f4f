"""A fake phone on SIP: baresip places the call, a Script speaks and listens on a 20 ms clock.

baresip (through baresip-python) shares nothing with the service's own SIP code, so a call between them is a call
between two strangers. It allows one runtime at a time in a process: a second call at the same time needs a process of
its own (`python -m offhook.phone`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from pathlib import Path

import numpy as np
from baresip import Account, BaresipError, Call, Config, Runtime, UserAgent
from baresip.audio import CallAudio
from baresip.errors import AudioNotActive, AudioRestarted, split_status
from baresip.events import Event, StackEvent

from calls.audio import FRAME_S, SAMPLE_BYTES, SAMPLE_RATE, SILENT_FRAME, Frame
from calls.resample import Resampler
from offhook.phone.result import PhoneResult
from offhook.phone.script import Script, from_pcm
from offhook.phone.wav import load

RING_S = 60.0  # seconds to wait for an answer
CODECS = ("pcmu", "pcma")
PREFILL = 2  # Frames of silence ahead of the script, so that baresip's own clock never runs dry
BACKLOG = 4  # Frames that may wait to be heard; older ones than that are heard two a tick

_CALL_ID = re.compile(r"^X-Offhook-Call-ID:\s*(\S+)", re.IGNORECASE | re.MULTILINE)
_LOST = ("rtp stream error", "connection timed out")  # a BYE is reported as "Connection reset by peer"


async def place_call(
    *,
    target: str,
    port: int,
    host: str = "127.0.0.1",
    number: str = "phone",
    script: Script | None = None,
    caller: bytes | str | Path = b"",
    linger_s: float = 2.0,
    codecs: tuple[str, ...] = CODECS,
    transport: str = "udp",
) -> PhoneResult:
    """Call `sip:target@host:port` and stay until the script is over or the service hangs up.

    Without a script, `caller` is said (16 kHz PCM, or the path of a WAV) and then listened for `linger_s`. `codecs` as
    baresip names them ("pcmu", "opus/48000/2"). Raises WavError; a call that fails is a result, not an exception.
    """
    if script is None:
        script = from_pcm(caller if isinstance(caller, bytes) else load(caller), linger_s)
    phone = _Phone(script)
    try:
        return await phone.run(f"sip:{target}@{_uri_host(host)}:{port};transport={transport}", host, number, codecs)
    except BaresipError as error:
        return PhoneResult(False, phone.status, str(error), phone.call_id, b"".join(phone.heard))


def _uri_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Trace(logging.Handler):
    """Reads the call's id off the SIP trace: baresip does not show a response's headers in another way."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.call_id = ""

    def emit(self, record: logging.LogRecord) -> None:
        found = _CALL_ID.search(record.getMessage())
        if found:
            self.call_id = found[1]


class _Phone:
    """One call of one runtime."""

    def __init__(self, script: Script) -> None:
        self.heard: list[Frame] = []
        self.status = 0
        self._script = script
        self._trace = _Trace()
        self._answered = asyncio.Event()
        self._closed = asyncio.Event()
        self._reason = ""

    @property
    def call_id(self) -> str:
        return self._trace.call_id

    async def run(self, uri: str, host: str, number: str, codecs: tuple[str, ...]) -> PhoneResult:
        sip_log = logging.getLogger("baresip.native.sip")
        before = sip_log.level, sip_log.propagate
        sip_log.addHandler(self._trace)
        sip_log.setLevel(logging.DEBUG)
        sip_log.propagate = False
        runtime = Runtime()
        local = "127.0.0.1" if _is_loopback(host) else None
        listen = f"sip_listen {local or '0.0.0.0'}:0\n"
        await runtime.start(
            Config(
                net_interface=local,
                max_concurrent_calls=None,
                native_log_level="error",
                sip_trace=True,
                extra_config_text=listen + "audio_jitter_buffer_type off\naudio_buffer 20-100\n",
            )
        )
        try:
            return await self._call(runtime, uri, host, number, codecs)
        finally:
            await runtime.close()
            sip_log.removeHandler(self._trace)
            sip_log.setLevel(before[0])
            sip_log.propagate = before[1]

    async def _call(self, runtime: Runtime, uri: str, host: str, number: str, codecs: tuple[str, ...]) -> PhoneResult:
        account = Account(user=number, domain=host, password="", reg_interval=0, audio_codecs=codecs)
        agent = await UserAgent.create(runtime, account)
        agent.on(self._happened)  # before dialling: on loopback the answer is here before dial() returns
        call = await agent.dial(uri)
        try:
            async with asyncio.timeout(RING_S):
                await _either(self._answered, self._closed)
        except TimeoutError:
            await self._hang_up(call)
            return PhoneResult(False, 408, f"nobody answered in {RING_S:.0f} s", self.call_id)
        if not self._answered.is_set():
            self.status, reason = _refusal(self._reason)
            return PhoneResult(False, self.status, reason or "refused", self.call_id)
        self.status = 200
        await self._talk(call.audio)
        by_service = self._closed.is_set()
        await self._hang_up(call)
        lost = by_service and self._reason.lower().startswith(_LOST)
        reason = self._reason if lost else "the service hung up" if by_service else "the phone hung up"
        return PhoneResult(not lost, 200, reason, self.call_id, b"".join(self.heard))

    def _happened(self, event: StackEvent) -> None:
        if event.event is Event.CALL_ESTABLISHED:
            self._answered.set()
        elif event.event is Event.CALL_CLOSED:
            self._reason = event.text or ""
            self._closed.set()

    async def _talk(self, audio: CallAudio) -> None:
        """One tick of the script every 20 ms, until it is over or the call is."""
        line = _Line(audio)
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self._closed.is_set():
            heard = line.read()
            said = self._script.tick(heard)
            if said is None:
                return
            self.heard.append(heard or SILENT_FRAME)
            line.write(said)
            due += FRAME_S
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _hang_up(self, call: Call) -> None:
        if not self._closed.is_set():
            try:
                await call.hangup()
                await asyncio.wait_for(self._closed.wait(), 5.0)
            except (BaresipError, TimeoutError):
                pass  # gone already, or a service that does not answer a BYE: the phone is down either way
        await asyncio.sleep(0.1)  # the BYE, or its answer, is still to be sent


class _Line:
    """The call's audio as 16 kHz Frames, whatever the codec's rate and channels."""

    def __init__(self, audio: CallAudio) -> None:
        self._audio = audio
        self._held = bytearray()
        self._rates = (0, 0, 0, 0)
        self._up = self._down = Resampler(SAMPLE_RATE, SAMPLE_RATE)
        self._prefilled = False

    def read(self) -> Frame | None:
        """The next 20 ms; None when they are not here yet. A backlog is heard two Frames a tick: one is dropped."""
        if not self._open():
            return None
        _, _, rate, channels = self._rates
        size = int(rate * FRAME_S) * channels * SAMPLE_BYTES
        try:
            self._held += self._audio.read(size * 50)
        except (AudioNotActive, AudioRestarted):
            return None
        if len(self._held) > size * BACKLOG:
            del self._held[:size]
        if not size or len(self._held) < size:
            return None
        samples = np.frombuffer(bytes(self._held[:size]), np.int16)
        del self._held[:size]
        mono = samples.reshape(-1, channels).mean(axis=1).astype(np.int16)
        return self._up(mono).tobytes()

    def write(self, frame: Frame) -> None:
        if not self._open() or not self._rates[0]:
            return
        samples = self._down(np.frombuffer(frame, np.int16))
        pcm = np.repeat(samples, self._rates[1]).tobytes()
        try:
            if not self._prefilled:
                self._prefilled = True
                self._audio.write(bytes(len(pcm) * PREFILL))
            self._audio.write(pcm)
        except (AudioNotActive, AudioRestarted):
            return

    def _open(self) -> bool:
        """Learn the streams' rates; they are there a moment after the answer, and change with a re-INVITE."""
        try:
            info = self._audio.info()
        except AudioNotActive:
            return False
        rates = (info.tx_sample_rate, info.tx_channels, info.rx_sample_rate, info.rx_channels)
        if rates != self._rates:
            self._rates = rates
            self._held.clear()
            self._prefilled = False
            self._down = Resampler(SAMPLE_RATE, rates[0] or SAMPLE_RATE)
            self._up = Resampler(rates[2] or SAMPLE_RATE, SAMPLE_RATE)
        return True


def _refusal(reason: str) -> tuple[int, str]:
    status, text = split_status(reason)
    return int(status or 0), text or reason


async def _either(first: asyncio.Event, second: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in (first, second)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
