"""Live calls, more and more of them, until one is answered late."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.engine_model import SPEAKS, Rehearsed, instruction, memory_mb
from calls.audio import CHUNK_S
from model_worker.interaction.ears import Ear, Said

HOPELESS_S = 4.0  # so late, a number of calls is given up
PHASES = ("chance", "even", "together")  # within each 0.4 s: when the Chunks of a call are complete
SPREAD = 7  # prime to most cycles: neighbours in time do not respond together


@dataclass(slots=True)
class Figures:
    """What was seen at one number of calls. Times from the end of a Chunk until its control token is known."""

    calls: int
    chunks: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    missed: int = 0  # later than 0.4 s
    tokens_per_s: float = 0.0
    speaking: float = 0.0  # share of the calls that were being written for, when a Chunk came
    batch: float = 0.0  # Chunks a pass, mean
    busy: float = 0.0  # share of the time in which something was computed
    cpu_ms: float = 0.0  # processor time of a call's second, all threads
    memory_mb: float = 0.0
    given_up: bool = False

    def holds(self, p99_ms: float | None) -> bool:
        return not self.missed and not self.given_up and (p99_ms is None or self.p99_ms <= p99_ms)

    def as_dict(self) -> dict[str, Any]:
        return {name: round(value, 3) for name, value in asdict(self).items()}


@dataclass(slots=True)
class _Tally:
    """Of the Chunks that count, those after the warm-up."""

    late: list[float] = field(default_factory=list)
    passes: int = 0
    tokens: int = 0
    speaking: int = 0
    worked: float = 0.0
    began: float = 0.0
    cpu: float = 0.0


def ramp(
    serving: Rehearsed,
    device: torch.device,
    audio: Tensor,
    numbers: Sequence[int],
    *,
    seconds: float,
    speaking: float,
    batch: int,
    phases: str,
    p99_ms: float | None,
) -> Iterator[Figures]:
    """One number of calls after the other, up to the first that does not hold."""
    for calls in numbers:
        figures = measure(serving, device, audio, calls, seconds, speaking, batch, phases)
        yield figures
        if not figures.holds(p99_ms):
            return


def phases_of(calls: int, phases: str) -> list[float]:
    """Seconds, in order: by chance, as calls begin when they will, but the same in each run; evenly; or all at once."""
    if phases == "together":
        return [0.0] * calls
    if phases == "even":
        return [CHUNK_S * call / calls for call in range(calls)]
    chance = random.Random(calls)
    return sorted(chance.uniform(0, CHUNK_S) for _ in range(calls))


def measure(
    serving: Rehearsed,
    device: torch.device,
    audio: Tensor,
    calls: int,
    seconds: float,
    speaking: float,
    batch: int,
    phases: str = "chance",
) -> Figures:
    """`calls` in real time, each with the phase that `phases_of` gives it.

    Every call responds once in a cycle that makes `speaking` the share of its time in which it is written for. The
    first cycle is not counted: only after it have the responses their steady rate.
    """
    cycle = max(SPEAKS, round(SPEAKS / speaking)) if speaking else 0
    prefix = instruction(serving.config)
    ears = [serving.open(prefix) for _ in range(calls)]
    first = {ear: SPREAD * number % cycle for number, ear in enumerate(ears)} if cycle else {}
    serving.plan = lambda ear, index: bool(first) and index % cycle == first[ear]
    warm_up = cycle or SPEAKS
    gc.collect()
    gc.freeze()
    try:
        total = (warm_up + round(seconds / CHUNK_S)) * calls
        tally = _live(serving, ears, phases_of(calls, phases), audio, warm_up * calls, total, batch)
        used = memory_mb(device)
    finally:
        gc.unfreeze()
        for ear in ears:
            serving.release(ear)
    return _figures(calls, tally, used)


def _live(
    serving: Rehearsed,
    ears: Sequence[Ear],
    phases: Sequence[float],
    audio: Tensor,
    warm_up: int,
    total: int,
    batch: int,
) -> _Tally:
    """Bring `total` Chunks, of all ears in turn, each when it is complete; write in between. As the worker's engine
    does: whatever has come is one batch, the oldest first, then a little is written.

    Returns early when the Chunks wait for longer than HOPELESS_S.
    """
    tally = _Tally()
    calls = len(ears)
    start, heard = time.perf_counter() + CHUNK_S, 0

    def complete(number: int) -> float:
        return start + number // calls * CHUNK_S + phases[number % calls]

    while heard < total:
        most, now = min(total, heard + min(batch, calls, serving.largest)), time.perf_counter()
        take = range(heard, next((number for number in range(heard, most) if complete(number) > now), most))
        counts = heard >= warm_up
        if counts and not tally.began:
            tally.began, tally.cpu = time.perf_counter(), time.process_time()
        worked = time.perf_counter()
        if take:
            chunks = [_chunk(ears, audio, n) for n in take]
            talking = sum(ear.text is not None for ear, _, _ in chunks)
            _, said = serving.hear(chunks)
            now = time.perf_counter()
            late = [now - complete(n) for n in take]
            heard = take.stop
            if late[0] > HOPELESS_S:
                tally.late.append(late[0])
                return tally
            if counts:
                tally.late += late
                tally.passes += 1
                tally.speaking += talking
                tally.tokens += _count(said)
        if serving.busy:
            said = serving.write()
            tally.tokens += _count(said) if counts else 0
        elif not take:
            time.sleep(max(0.0, complete(heard) - time.perf_counter()))
            continue
        tally.worked += time.perf_counter() - worked if counts else 0.0
    return tally


def _chunk(ears: Sequence[Ear], audio: Tensor, number: int) -> tuple[Ear, int, Tensor]:
    """Of all ears in turn. Each hears the recording from another place on."""
    index, ear = divmod(number, len(ears))
    return ears[ear], index, audio[(index + ear * len(audio) // len(ears)) % len(audio)]


def warm_up(serving: Rehearsed, audio: Tensor) -> None:
    """One short call: libraries set themselves up in the first passes."""
    ear = serving.open(instruction(serving.config))
    serving.plan = lambda ear, index: index == 1
    for index in range(2 * SPEAKS):
        serving.hear([(ear, index, audio[index % len(audio)])])
    serving.release(ear)


def _count(said: Sequence[Said]) -> int:
    return sum(len(one.tokens) for one in said)


def _figures(calls: int, tally: _Tally, used_mb: float) -> Figures:
    late = np.array(tally.late) * 1e3
    figures = Figures(calls, memory_mb=used_mb, given_up=bool(late[-1] > HOPELESS_S * 1e3))
    figures.chunks, figures.missed = len(late), int((late > CHUNK_S * 1e3).sum())
    figures.p50_ms, figures.p99_ms, figures.max_ms = (float(np.percentile(late, q)) for q in (50, 99, 100))
    if tally.passes:
        took = time.perf_counter() - tally.began
        figures.tokens_per_s = tally.tokens / took
        figures.speaking, figures.batch = tally.speaking / len(late), len(late) / tally.passes
        figures.busy = tally.worked / took
        figures.cpu_ms = (time.process_time() - tally.cpu) * 1e3 / (len(late) * CHUNK_S)
    return figures
