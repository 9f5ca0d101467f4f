"""How many calls one core of the media plane holds, with a model that does nothing.

python -m benchmarks.media_plane [--calls 20,40,80,120] [--seconds 10] [--talk 0.4]

Real Sessions on the real ticker: RTP is parsed, goes through the jitter buffer, G.711 and the resampler; Frames
become Chunks and go to a real Valkey; every call says an answer all the time, so the interruption path listens, while
the caller speaks a share `talk` of it; both sides are recorded. Legs are in the process: sockets are not in the
figures (uvloop takes about 10 us a packet pair). The process is pinned to one core, Valkey and a reader that throws
everything away take the others.

`lag` is how late the last call of a tick's quarter was served. The budget is p99 < 5 ms at 120 calls.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import uvloop

from calls import g711
from calls.audio import CHUNK_S, FRAME_S, SAMPLE_RATE, Frame
from calls.bus import FROM_START, Bus
from calls.events import Speech, audio_stream
from calls.model import Happening, Mode, Participant, Role
from offhook.servers import EmbeddedValkey
from telephony.bridge import LegEvents, Offer
from telephony.recorder import Recorder
from telephony.session import Parts, Session
from telephony.sip.media import MediaStream
from telephony.sip.rtp import Packet
from telephony.sip.sdp import Agreed, Codec
from telephony.ticker import Ticker
from telephony.voice_activity import SileroNet

VOICE = Path(__file__).resolve().parents[1] / "offhook/demo/garage-call/caller.wav"
CORES = os.sched_getaffinity(0)
OTHER_CORES = CORES - {min(CORES)} or CORES
PARTY = ("127.0.0.1", 4000)
READER = """
import asyncio, sys
from calls.bus import Bus
from calls.events import audio_stream
async def main():
    follower = Bus(sys.argv[1]).follower("bench")
    for name in sys.argv[2:]:
        follower.add(audio_stream(name))
    async for _ in follower.messages():
        pass
asyncio.run(main())
"""


class RtpLeg:
    """A caller whose packets come exactly on the tick."""

    def __init__(self, payloads: Iterator[bytes]) -> None:
        self.participant = Participant("caller", Role.CALLER)
        self._media = MediaStream(Agreed(Codec("PCMU", 0, 8000), None, PARTY, "sendrecv", False))
        self._payloads = payloads
        self._sequence = 0

    def read(self) -> Frame | None:
        packet = Packet(0, self._sequence & 0xFFFF, self._sequence * 160, 1, next(self._payloads))
        self._sequence += 1
        self._media.receive(bytes(packet), PARTY, 0.0)
        return self._media.take()

    def write(self, frame: Frame) -> None:
        self._media.make(frame)

    def flush(self) -> int:
        return 0

    def unplayed(self) -> int:
        return 0

    async def hang_up(self, reason: str) -> None:
        pass


def caller(voice: np.ndarray, talk: float, rng: np.random.Generator) -> Iterator[bytes]:
    """G.711 payloads: four seconds of a voice (or of line noise, with the probability 1 - talk), and again."""
    noise = (rng.standard_normal(4 * 8000) * 20).astype(np.int16)
    while True:
        start = int(rng.integers(0, max(1, len(voice) - 4 * 8000)))
        sound = voice[start : start + 4 * 8000] if rng.random() < talk else noise
        law = g711.encode(sound, "mulaw")
        yield from (law[at : at + 160] for at in range(0, len(law) - 159, 160))


def voice_8k(path: Path) -> np.ndarray:
    import wave

    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")[:: file.getframerate() // 8000]


async def measure(calls: int, seconds: float, talk: float, bus: Bus, voice: np.ndarray, root: Path) -> dict[str, float]:
    ticker, recorder = Ticker(), Recorder(root)
    parts = Parts(bus.post, ticker, recorder, SileroNet(), 700)
    rng = np.random.default_rng(0)
    names = [f"bench{calls}x{n}" for n in range(calls)]
    reader = await asyncio.create_subprocess_exec(sys.executable, "-c", READER, bus.url, *names)
    os.sched_setaffinity(reader.pid, OTHER_CORES)
    answer = np.repeat(voice[: int(8000 * min(60.0, seconds + 20))], 2).astype("<i2").tobytes()
    async with asyncio.TaskGroup() as tasks:
        clock = tasks.create_task(ticker.run())
        sessions = []
        for name in names:
            session = Session(name, Offer("bench", "1", "2"), Mode.ANSWER, parts)
            tasks.create_task(session.run())
            session.receive(Speech(call_id=name, answer_id="a", seq=0, piece=0, pcm=answer, text="x"))
            session.join(Role.CALLER, RtpLeg(caller(voice, talk, rng)), LegEvents())
            sessions.append(session)
            await asyncio.sleep(0.4 / calls)  # calls do not come in step
        await asyncio.sleep(1.0)
        gc.collect()
        gc.freeze()
        ticker._lags.clear()
        began, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(seconds)
        share = (time.process_time() - cpu) / (time.monotonic() - began)
        figures = {
            "lag_p50_ms": ticker.lag_s(0.5) * 1000,
            "lag_p99_ms": ticker.lag_s(0.99) * 1000,
            "lag_max_ms": ticker.lag_s(1.0) * 1000,
            "cpu": share,
            "skipped": ticker.skipped,
            "waiting": bus.outbox.waiting,
            "dropped": bus.outbox.dropped,
        }
        for session in sessions:
            session.end(Happening.HUNG_UP, "done")
        await asyncio.sleep(0.5)
        clock.cancel()
    recorder.close()
    reader.kill()
    await reader.wait()
    figures["silent_calls"] = sum([await bus.newest(audio_stream(name)) == FROM_START for name in names])
    return figures


async def run(arguments: argparse.Namespace) -> None:
    voice = voice_8k(arguments.voice)
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedValkey(Path(folder) / "valkey", password="bench")
        server.start()
        assert server.process is not None
        os.sched_setaffinity(server.process.pid, OTHER_CORES)
        os.sched_setaffinity(0, {min(CORES)})
        bus = Bus(server.url)
        sender = asyncio.create_task(bus.outbox.run())
        print(f"{SAMPLE_RATE} Hz, {FRAME_S * 1000:.0f} ms Frames, {CHUNK_S} s Chunks, talk {arguments.talk}")
        try:
            for calls in arguments.calls:
                figures = await measure(calls, arguments.seconds, arguments.talk, bus, voice, Path(folder) / "rec")
                print(
                    f"calls {calls:4d}  " + "  ".join(f"{name} {value:.2f}" for name, value in figures.items()),
                    flush=True,
                )
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            await bus.close()
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=lambda text: [int(n) for n in text.split(",")], default=[20, 40, 80, 120, 160])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--talk", type=float, default=0.4)
    parser.add_argument("--voice", type=Path, default=VOICE)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
