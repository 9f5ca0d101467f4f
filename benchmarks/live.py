"""What the caller and the agent feel, measured from outside: fake phones on real SIP and RTP against a running service.

    offhook bench live answer --calls 4       end of the caller's speech -> first answer audio
    offhook bench live interrupt --calls 5    caller speaks over an answer -> last audible packet of it (as root)
    offhook bench live mhm --calls 5          how often "mhm" ends an answer (it should not)
    offhook bench live assist                 words spoken -> partial on the screen; trigger -> hint on the screen

Start `offhook up` first. Every figure comes from the phone's own audio, except those of `assist`, which are the arrival
of the live events that a browser would get, against the call's own clock.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import tempfile
import time
import wave
from dataclasses import replace
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np

from benchmarks.interruption import hummed
from benchmarks.wire import interruptions, sniff
from calls.audio import FRAME_S, FRAME_SAMPLES, SAMPLE_RATE
from calls.model import Mode
from offhook import local
from offhook.client import Client
from offhook.demo import FOLDER, assist_steps
from offhook.phone.script import AUDIBLE_RMS
from offhook.phone.wav import load
from offhook.place import PhoneEnd, Via, orders, place_orders, run_phone

CALLER = FOLDER / "caller"
QUESTIONS = [CALLER / f"{name}.wav" for name in ("1-hours", "2-oil-price", "4-loan-car")]
RTP_PORTS = range(20_000, 22_000)  # OFFHOOK_RTP_PORTS
ANSWERED: list[dict[str, Any]] = [{"wait_for_speech": 0.4}, {"wait_for_quiet": 1.5}]


def audible(pcm: bytes) -> np.ndarray:
    """Which 20 ms frames can be heard: bool [frames]."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float32)
    frames = samples[: samples.size // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    return np.sqrt((frames**2).mean(axis=1)) > AUDIBLE_RMS


def span_s(wav: Path) -> tuple[float, float]:
    """Where speech begins and ends in a WAV, in seconds."""
    heard = np.flatnonzero(audible(load(wav)))
    return float(heard[0] * FRAME_S), float((heard[-1] + 1) * FRAME_S)


def summary(name: str, values_ms: list[float], budget: str) -> None:
    if not values_ms:
        print(f"{name}: nothing was measured")
        return
    cuts = quantiles(values_ms, n=20, method="inclusive") if len(values_ms) > 1 else values_ms * 19
    print(
        f"{name}: n={len(values_ms)} p50={cuts[9]:.0f} ms p95={cuts[18]:.0f} ms "
        f"min={min(values_ms):.0f} max={max(values_ms):.0f}   (budget: {budget})"
    )


async def scripted(running: local.Running, steps: list[dict[str, Any]]) -> tuple[PhoneEnd, np.ndarray, dict[str, Any]]:
    """One answer call: how it ended, which frames the phone could hear, the story."""
    with tempfile.TemporaryDirectory() as folder:
        [order] = orders(Via.SIP, Mode.ANSWER, [steps])
        order = replace(order, keep=str(Path(folder) / "heard.pcm"))
        end = await run_phone(running, order)
        heard = audible(Path(order.keep).read_bytes()) if end.completed else np.zeros(0, bool)
    client = Client(running)
    if not end.completed:
        return end, heard, {}
    call_id = end.call_id or next(call["id"] for call in client.calls(limit=20) if order.number in call["from"])
    return end, heard, await asyncio.to_thread(client.wait_until_written, call_id)


async def answer(running: local.Running, calls: int) -> None:
    found: list[float] = []
    inside: list[float] = []
    for _ in range(calls):
        steps = [*ANSWERED]
        for wav in QUESTIONS:
            steps += [{"play": str(wav)}, *ANSWERED]
        end, heard, story = await scripted(running, [*steps, {"pause": 1}])
        if not end.completed:
            print("a call was not completed:", end.reason)
            continue
        for index, wav in enumerate(QUESTIONS):
            ended_s = end.started_s[2 + 3 * index] + span_s(wav)[1]
            after = np.flatnonzero(heard[int(ended_s / FRAME_S) :])
            if after.size:
                found.append(after[0] * FRAME_S * 1000)
        inside += [a["response_ms"] for a in story["answers"] if a["response_ms"] is not None]
        for said in story["answers"]:
            print(f"    {said['response_ms'] or 0:5d} ms  {said['text']}")
    summary("end of speech -> first answer audio, at the phone", found, "p50 <= 800, p95 <= 1500")
    summary("the same by the service's own clock", inside, "p50 <= 800, p95 <= 1500")


async def interrupt(running: local.Running, calls: int, tries: int = 4) -> None:
    found: list[float] = []
    marked = 0
    wav = CALLER / "3-interrupts.wav"
    onset_s, _ = span_s(wav)
    on_wire: list[float] = []
    for _ in range(calls):
        steps = [*ANSWERED]
        for question in itertools.islice(itertools.cycle(QUESTIONS), tries):
            steps += [{"play": str(question)}, {"wait_for_speech": 1.2}, {"play": str(wav)}, *ANSWERED]
        with sniff() as found_on_wire:
            end, heard, story = await scripted(running, [*steps, {"pause": 1}])
        on_wire += interruptions(found_on_wire, RTP_PORTS)
        for index in range(tries if end.completed else 0):
            spoke_s = end.started_s[2 + 5 * index + 2] + onset_s
            first = int(spoke_s / FRAME_S)
            quiet = _quiet_from(heard, first)
            found.append((quiet - first) * FRAME_S * 1000)
        marked += sum(a["interrupted"] for a in story.get("answers", []))
        for said in story.get("answers", []):
            if said["interrupted"]:
                print(f"    heard: {said['heard_text']!r} of {said['text']!r}")
    summary("caller's first audible packet -> last audible packet of the answer", on_wire, "p95 <= 200")
    summary("the same as the phone hears it, its own buffers included", found, "no budget")
    print(f"answers marked as interrupted: {marked} of {len(found)}")


def _quiet_from(heard: np.ndarray, first: int, quiet_frames: int = 15) -> int:
    """The first frame at or after `first` from which nothing can be heard for 0.3 s."""
    for frame in range(first, len(heard) - quiet_frames):
        if not heard[frame : frame + quiet_frames].any():
            return frame
    return len(heard)


async def mhm(running: local.Running, calls: int, tries: int = 2) -> None:
    answers = interrupted = 0
    with tempfile.TemporaryDirectory() as folder:
        for call, pitch_hz in zip(range(calls), itertools.cycle((110, 180, 140, 230, 95))):
            hum = hummed(pitch_hz, np.random.default_rng(call))
            wav = Path(folder) / f"mhm-{call}.wav"
            with wave.open(str(wav), "wb") as file:
                file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
                file.writeframes(hum.astype("<i2").tobytes())
            steps = [*ANSWERED]
            for question in itertools.islice(itertools.cycle(QUESTIONS), tries):
                steps += [{"play": str(question)}, {"wait_for_speech": 1.0}, {"play": str(wav)}, *ANSWERED]
            _, _, story = await scripted(running, [*steps, {"pause": 1}])
            for said in story.get("answers", []):
                interrupted += said["interrupted"]
                answers += said["response_ms"] is not None
    print(f'a hummed "mhm" over an answer ended {interrupted} of {answers}   (budget: at most 1 in 10)')


async def assist(running: local.Running) -> None:
    partials: list[float] = []
    hints: list[float] = []
    client = Client(running)
    placed = orders(Via.SIP, Mode.ASSIST, assist_steps())
    call = asyncio.create_task(place_orders(running, placed, None))
    call_id = ""
    while not call_id and not call.done():
        await asyncio.sleep(0.2)
        found = await asyncio.to_thread(client.calls, limit=50, live=True)
        call_id = next((row["id"] for row in found if placed[0].number in row["from"]), "")
    started = 0.0
    async for event in client.events(call_id):
        match event["type"]:
            case "CallStarted":
                started = event["started_at"]
            case "Partial":
                partials.append((time.time() - started - event["end_s"]) * 1000)
            case "HintShown":
                hint = event["hint"]
                hints.append((time.time() - started - hint["trigger_s"]) * 1000)
                print(f"    {hint['trigger_s']:6.1f} s  {hint['title']}  (score {hint['score']:.2f})")
    await call
    story = await asyncio.to_thread(client.wait_until_written, call_id)
    summary("speech -> partial on the screen", partials, "p95 <= 1000")
    summary("trigger -> hint on the screen", hints, "p95 <= 1200")
    print(f"decisions: {json.dumps(story['decisions'])}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="offhook bench live", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("answer", "interrupt", "mhm", "assist"))
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--data", type=Path, help="data folder of the service, if it is not the usual one")
    arguments = parser.parse_args()
    running = local.find(data=arguments.data)
    print(f"{os.cpu_count()} cores, sample rate {SAMPLE_RATE}, {running.url}")
    match arguments.what:
        case "answer":
            asyncio.run(answer(running, arguments.calls))
        case "interrupt":
            asyncio.run(interrupt(running, arguments.calls))
        case "mhm":
            asyncio.run(mhm(running, arguments.calls))
        case _:
            asyncio.run(assist(running))


if __name__ == "__main__":
    main()
