"""A SipBridge on a free port with the tone gateway behind it, and a SIP phone made of bare sockets."""

from __future__ import annotations

import asyncio
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calls.audio import SAMPLE_RATE
from telephony.bridge import CallHandle, Leg, LegEvents, Offer
from telephony.sip.bridge import SipBridge
from tests.peers import free_port
from tests.telephony.sip.wire import close_all
from tests.telephony.tone_gateway import ToneCall, ToneGateway, tone, until


class SipGateway(ToneGateway):
    """Also keeps who was held when, and can take its time to admit a call."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[bool] = []
        self.admit = asyncio.Event()
        self.admit.set()
        self.rings: list[Offer] = []
        self.gave_up = 0

    async def ring(self, offer: Offer) -> CallHandle:
        self.rings.append(offer)
        try:
            await self.admit.wait()
        except asyncio.CancelledError:
            self.gave_up += 1
            raise
        return _Handle(self, await super().ring(offer))  # type: ignore[arg-type]


class _Handle:
    def __init__(self, gateway: SipGateway, call: ToneCall) -> None:
        self._gateway, self._call = gateway, call
        self.call_id = call.call_id
        self.participant = call.participant
        self.abandon = call.abandon

    def join(self, leg: Leg, events: LegEvents) -> None:
        events.held = self._gateway.held.append
        self._call.join(leg, events)


@asynccontextmanager
async def serving(gateway: SipGateway, **options: Any) -> AsyncIterator[SipBridge]:
    options = {"port": 0, "rtp_ports": f"{free_port(80)}-{65000}", **options}
    bridge = SipBridge("127.0.0.1", **options)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(bridge.run(gateway)), tasks.create_task(gateway.ticker.run())]
        await until(lambda: bridge.ready)
        try:
            yield bridge
        finally:
            running[0].cancel()
            await asyncio.gather(running[0], return_exceptions=True)
            running[1].cancel()
    assert not gateway.crashes
    assert bridge.live_calls == 0


@pytest.fixture(autouse=True)
async def sockets() -> AsyncIterator[None]:
    yield
    await close_all()


@pytest.fixture
async def gateway() -> SipGateway:
    return SipGateway()


@pytest.fixture
async def bridge(gateway: SipGateway) -> AsyncIterator[SipBridge]:
    async with serving(gateway) as bridge:
        yield bridge


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """Ten seconds of a 440 Hz tone as an 8 kHz WAV."""
    return write_wav(tmp_path / "spoken.wav", tone(440, 10), 8000)


def write_wav(path: Path, pcm: bytes, rate: int, channels: int = 1) -> Path:
    """16 kHz PCM at another rate by leaving out or repeating samples: good enough for the pitch of a tone."""
    samples = np.frombuffer(pcm, "<i2")
    samples = samples[:: SAMPLE_RATE // rate] if rate <= SAMPLE_RATE else np.repeat(samples, rate // SAMPLE_RATE)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(samples, channels).tobytes())
    return path


def read_wav(path: Path) -> bytes:
    """16-bit mono of any rate, brought to 16 kHz by repeating or leaving out samples (for pitch only)."""
    with wave.open(str(path), "rb") as file:
        rate, channels = file.getframerate(), file.getnchannels()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")[::channels]
    if rate > SAMPLE_RATE:
        return samples[:: rate // SAMPLE_RATE].tobytes()
    return np.repeat(samples, SAMPLE_RATE // rate).tobytes()


def first(gateway: SipGateway) -> ToneCall:
    return gateway.calls[0]


Condition = Callable[[], bool]
