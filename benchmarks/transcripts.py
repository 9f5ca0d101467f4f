"""How well a running service writes down what was said, and when: real telephone prompts on real SIP calls (G.711).

    offhook bench transcripts --prompts 100 --data ./data

Start `offhook up` first. Word error rate of the live transcript as it stands at hang-up, and of the better one that the
job after the call writes; and how far the start and the end of what was written lie from where the prompt's speech
really is. Where it is comes from the call's own recording: the prompt is found there by correlation.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import wave
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.live import span_s
from benchmarks.speech import SOUNDS, prompts
from benchmarks.wer import errors, word_error_rate, words
from calls.audio import SAMPLE_RATE
from calls.errors import OffhookError
from calls.model import Mode
from offhook import local
from offhook.client import Client
from offhook.phone.wav import load
from offhook.place import Via, orders, run_phone

PAUSE_S = 1.2
LEAD_S, LINGER_S = 1.0, 4.0  # before the first prompt and after the last, so that the last one is written
SEARCH_S = (-1.0, 2.5)  # the call's clock against the phone's


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one prompt: its speech on the call's clock, and what live and after the call was written."""

    name: str
    start_s: float
    end_s: float
    live: list[dict[str, Any]]
    after: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Heard:
    """A call that is over: its prompts, when each was played on the phone's clock, and the transcript at hang-up."""

    call_id: str
    names: list[str]
    played_s: tuple[float, ...]
    live: list[dict[str, Any]]


def find(recording: npt.NDArray[np.float32], prompt: npt.NDArray[np.float32], around_s: float) -> float:
    """Where in the recording (16 kHz) the prompt begins, in seconds; looked for near `around_s`."""
    first = max(0, int((around_s + SEARCH_S[0]) * SAMPLE_RATE))
    heard = recording[first : int((around_s + SEARCH_S[1]) * SAMPLE_RATE) + len(prompt)]
    size = len(heard) + len(prompt)
    match = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(prompt, size)), size)
    return float(first + int(np.argmax(match[: max(1, len(heard) - len(prompt) + 1)]))) / SAMPLE_RATE


def samples(pcm: bytes) -> npt.NDArray[np.float32]:
    return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)


def caller_of(recording: Path) -> npt.NDArray[np.float32]:
    """The caller's channel at 16 kHz."""
    with wave.open(str(recording)) as file:
        assert (file.getframerate(), file.getnchannels()) == (SAMPLE_RATE, 2), file.getparams()
        return samples(file.readframes(file.getnframes())).reshape(-1, 2)[:, 0].copy()


async def one_call(running: local.Running, names: list[str]) -> Heard:
    """Say these prompts on one call, to its end. Raises OffhookError for a call that failed."""
    steps: list[dict[str, Any]] = [{"pause": LEAD_S}]
    for name in names:
        steps += [{"play": str(SOUNDS / f"{name}.wav")}, {"pause": PAUSE_S}]
    [order] = orders(Via.SIP, Mode.TRANSCRIBE, [[*steps, {"pause": LINGER_S}]])
    end = await run_phone(running, order)
    if not end.completed:
        raise OffhookError(f"a call was not completed: {end.reason}")
    client = Client(running)
    known = await asyncio.to_thread(client.calls, limit=50)
    call_id = end.call_id or next(call["id"] for call in known if order.number in call["from"])
    live: dict[str, dict[str, Any]] = {}
    async for event in client.events(call_id):
        if event["type"] == "Uttered":
            said = event["utterance"]
            if said["revision"] >= live.get(said["id"], said)["revision"]:
                live[said["id"]] = said
    return Heard(call_id, names, end.started_s[1::2], list(live.values()))


async def wrapped_up(running: local.Running, heard: Heard) -> list[Written]:
    """What was written on a call, once the job after it is done. Raises OffhookError if that failed."""
    story = await asyncio.to_thread(Client(running).wait_until_written, heard.call_id, 1800.0, wrapped_up=True)
    if story["wrap_up"] != "done":
        raise OffhookError(f"call {heard.call_id}: wrap-up {story['wrap_up']}")
    recording = caller_of(Path(running.data) / "recordings" / story["recording"]["path"])
    return assign(heard.names, heard.played_s, recording, heard.live, story["utterances"])


def assign(
    names: list[str],
    played_s: Iterable[float],
    recording: npt.NDArray[np.float32],
    live: list[dict[str, Any]],
    after: list[dict[str, Any]],
) -> list[Written]:
    """Utterances to the prompts in whose time (and half the pause around it) their middle lies."""
    found = []
    for name, around_s in zip(names, played_s, strict=False):
        path = SOUNDS / f"{name}.wav"
        begin_s = find(recording, samples(load(path)), around_s)
        start_s, end_s = (begin_s + at_s for at_s in span_s(path))
        found.append((name, start_s, end_s))
    edges = [0.0, *((a[2] + b[1]) / 2 for a, b in itertools.pairwise(found)), float("inf")]

    def between(low: float, high: float, utterances: list[dict[str, Any]]) -> list[dict[str, Any]]:
        own = [u for u in utterances if u["text"] and low <= (u["start_s"] + u["end_s"]) / 2 < high]
        return sorted(own, key=lambda u: float(u["start_s"]))

    return [
        Written(name, start_s, end_s, between(*span, live), between(*span, after))
        for (name, start_s, end_s), span in zip(found, itertools.pairwise(edges), strict=True)
    ]


def text_of(utterances: list[dict[str, Any]]) -> str:
    return " ".join(u["text"] for u in utterances)


def report(title: str, pairs: list[tuple[Written, list[dict[str, Any]]]]) -> None:
    texts = prompts()
    missing = sum(not said for _, said in pairs)
    rate = word_error_rate((texts[written.name], text_of(said)) for written, said in pairs)
    total = sum(len(words(texts[written.name])) for written, _ in pairs)
    print(f"\n{title}: WER {100 * rate:.2f} % of {total} words in {len(pairs)} prompts; {missing} not written at all")
    for written, said in pairs:
        if wrong := errors(words(texts[written.name]), words(text_of(said))):
            print(f"    {wrong:2d}  {written.name}: {texts[written.name]!r} -> {text_of(said)!r}")
    heard = [(written, said) for written, said in pairs if said]
    times("start", [(written.name, said[0]["start_s"] - written.start_s) for written, said in heard])
    times("end", [(written.name, said[-1]["end_s"] - written.end_s) for written, said in heard])


def times(which: str, off: list[tuple[str, float]]) -> None:
    """Distances in seconds; the sign of the median says late (+) or early (-)."""
    if not off:
        return
    far = np.abs([seconds for _, seconds in off])
    worst = sorted(off, key=lambda one: -abs(one[1]))[:4]
    print(
        f"  {which}: |error| p50={np.percentile(far, 50):.2f} s p95={np.percentile(far, 95):.2f} s "
        f"max={far.max():.2f} s; "
        f"median {np.median([seconds for _, seconds in off]):+.2f} s; {int((far > 0.5).sum())} over 0.5 s; worst: "
        + ", ".join(f"{name} {seconds:+.2f}" for name, seconds in worst)
    )


async def run(running: local.Running, count: int, a_call: int, at_once: int) -> None:
    names = list(prompts())[:count]
    lots = [names[start : start + a_call] for start in range(0, len(names), a_call)]
    room = asyncio.Semaphore(at_once)

    async def in_turn(lot: list[str]) -> list[Written]:
        async with room:
            heard = await one_call(running, lot)
        texts = prompts()
        pair = (" ".join(texts[name] for name in lot), text_of(sorted(heard.live, key=lambda u: float(u["start_s"]))))
        print(f"call {heard.call_id}: live WER {100 * word_error_rate([pair]):.1f} %", flush=True)
        return await wrapped_up(running, heard)

    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(in_turn(lot)) for lot in lots]
    written = [one for call in calls for one in call.result()]
    print(
        f"{len(written)} prompts in {len(lots)} calls, {at_once} at a time; G.711 over SIP, {PAUSE_S} s between prompts"
    )
    report("live, as it stands at hang-up", [(one, one.live) for one in written])
    report("after the wrap-up", [(one, one.after) for one in written])


def main() -> None:
    parser = argparse.ArgumentParser(prog="offhook bench transcripts", description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--a-call", type=int, default=10, help="prompts said on one call")
    parser.add_argument("--at-once", type=int, default=2, help="calls at the same time")
    parser.add_argument("--data", type=Path, help="data folder of the service, if it is not the usual one")
    arguments = parser.parse_args()
    running = local.find(data=arguments.data)
    print(f"{os.cpu_count()} cores, {running.url}", flush=True)
    asyncio.run(run(running, arguments.prompts, arguments.a_call, arguments.at_once))


if __name__ == "__main__":
    main()
