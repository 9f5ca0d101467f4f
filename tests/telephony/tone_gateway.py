"""A Gateway for bridge tests: admits (or refuses) every call, records what each leg hears and plays a tone to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np

from calls.audio import FRAME_S, FRAME_SAMPLES, SAMPLE_RATE, SILENT_FRAME, Frame
from calls.model import Participant, Role
from telephony.bridge import CallHandle, Gateway, Leg, LegEvents, Offer, Refused
from telephony.http import HttpBridge, MediaHttp
from telephony.ticker import Ticker


def tone_frame(hertz: float, n: int, amplitude: float = 8000.0) -> Frame:
    """The n-th Frame of a tone that goes on and on."""
    t = (np.arange(FRAME_SAMPLES) + n * FRAME_SAMPLES) / SAMPLE_RATE
    return (amplitude * np.sin(2 * np.pi * hertz * t)).astype(np.int16).tobytes()


def tone(hertz: float, seconds: float) -> bytes:
    return b"".join(tone_frame(hertz, n) for n in range(round(seconds / FRAME_S)))


def pitch(pcm: bytes) -> float:
    """The strongest frequency of some 16 kHz audio, in Hz; 0 for silence."""
    samples = np.frombuffer(pcm, np.int16).astype(float)
    if not samples.size or np.sqrt((samples**2).mean()) < 300:
        return 0.0
    return float(np.abs(np.fft.rfft(samples)).argmax()) * SAMPLE_RATE / samples.size


def share_of(pcm: bytes, hertz: float) -> float:
    """The share of some audio's 100 ms stretches whose strongest frequency is within 5 % of `hertz`."""
    step = SAMPLE_RATE // 10 * 2
    pitches = [pitch(pcm[at : at + step]) for at in range(0, len(pcm) - step + 1, step)]
    return sum(abs(p - hertz) <= 0.05 * hertz for p in pitches) / max(len(pitches), 1)


def once_heard(pcm: bytes | bytearray, seconds: float = 1.0) -> bytes:
    """So much audio from the first sound on: how long a transport takes to connect is not the point."""
    samples = np.abs(np.frombuffer(bytes(pcm), "<i2").astype(np.int32))
    first = int(np.argmax(samples > 300)) * 2
    return bytes(pcm[first : first + int(seconds * SAMPLE_RATE) * 2])


class ToneCall:
    """One admitted call: ticks its legs; `heard` holds each participant's audio, with silence where nothing came."""

    def __init__(self, gateway: ToneGateway, call_id: str, offer: Offer) -> None:
        self.call_id = self.id = call_id
        self.offer = offer
        self._gateway = gateway
        self.legs: dict[str, Leg] = {}
        self.heard: dict[str, bytearray] = {}
        self.missing: dict[str, int] = {}
        self.digits: list[str] = []
        self.closed: list[tuple[str, bool]] = []
        self.abandoned: list[str] = []
        self.acknowledged = 0
        self.ticks = 0
        self.talking = True
        self.over = asyncio.Event()

    def participant(self, role: Role) -> Participant:
        return Participant(role.value, role)

    def join(self, leg: Leg, events: LegEvents) -> None:
        id_ = leg.participant.id
        self.legs[id_] = leg
        self.heard[id_] = bytearray()
        self.missing[id_] = 0
        events.dtmf = self.digits.append
        events.closed = self._closed
        events.acknowledged = self._acknowledged
        self._gateway.ticker.add(self)

    def abandon(self, reason: str) -> None:
        self.abandoned.append(reason)
        self.over.set()

    def tick(self) -> None:
        for id_, leg in self.legs.items():
            frame = leg.read()
            self.missing[id_] += frame is None
            self.heard[id_] += frame or SILENT_FRAME
            leg.write(tone_frame(self._gateway.hertz, self.ticks) if self.talking else SILENT_FRAME)
        self.ticks += 1

    def crashed(self, error: Exception) -> None:
        self._gateway.crashes.append(error)

    def _acknowledged(self) -> None:
        self.acknowledged += 1

    def _closed(self, reason: str, lost: bool) -> None:
        self.closed.append((reason, lost))
        self._gateway.ticker.drop(self)
        self.over.set()


class ToneGateway(Gateway):
    """`refuse`: turn calls away. Calls with a reference that is known join the same ToneCall."""

    def __init__(self, hertz: float = 600.0) -> None:
        self.hertz = hertz
        self.ticker = Ticker()
        self.calls: list[ToneCall] = []
        self.crashes: list[Exception] = []
        self.refuse: Refused | None = None

    async def ring(self, offer: Offer) -> CallHandle:
        await asyncio.sleep(0)
        if self.refuse is not None:
            raise self.refuse
        for call in self.calls:
            if offer.reference and call.offer.reference == offer.reference:
                return call
        call = ToneCall(self, f"call-{len(self.calls)}", offer)
        self.calls.append(call)
        return call


@asynccontextmanager
async def serving(gateway: ToneGateway, *bridges: HttpBridge, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """The bridges behind a real HTTP server on a free port; gives its base URL."""
    http = MediaHttp(host, 0, bridges)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(http.run(gateway)), tasks.create_task(gateway.ticker.run())]
        while not http.ready:  # noqa: ASYNC110 - a property, not an event
            await asyncio.sleep(0.01)
        try:
            yield f"http://{http.address[0]}:{http.address[1]}"
        finally:
            for task in running:
                task.cancel()
    assert not gateway.crashes


async def until(condition: object, timeout_s: float = 20.0) -> None:
    """Wait for a condition (a function without arguments) to come true; fails the test by TimeoutError."""
    assert callable(condition)
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.01)
