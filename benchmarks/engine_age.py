"""What a Chunk costs in minute 60 of a call, beside what it costs in minute 1."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.engine_model import SPEAKS, Rehearsed, instruction, memory_mb, timed
from calls.audio import CHUNK_S
from model_worker.interaction.ears import Ear

MINUTE = round(60 / CHUNK_S)  # Chunks
Timed = tuple[float, float]  # seconds: on the wall, of the processor
CYCLE = 4 * SPEAKS  # Chunks from one response to the next while it is measured
TALKS = 5 * MINUTE  # ... and while a call grows old: what it says in an hour fills the text ring more than once


def old_and_young(
    serving: Rehearsed,
    device: torch.device,
    audio: Tensor,
    minutes: int,
    cycles: int,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Two ears: one hears `minutes` of audio, as fast as it can, the other one minute. Then both hear on in turns.

    Every Chunk of the old one's life is a real pass through tower and decoder. Both respond in the same Chunks.
    """
    old, young = (serving.open(instruction(serving.config)) for _ in range(2))
    serving.plan = lambda ear, index: index % TALKS == TALKS - 1
    began, before = time.perf_counter(), memory_mb(device)
    for minute in range(minutes):
        if minute in (1, *range(10, minutes, 10)):
            tell(f"minute {minute} after {time.perf_counter() - began:.0f} s")
        _listen(serving, old, audio, MINUTE)
    aged_s, after = time.perf_counter() - began, memory_mb(device)
    _listen(serving, young, audio, MINUTE)
    took = _in_turns(serving, device, audio, old, young, cycles * CYCLE)
    serving.release(old)
    serving.release(young)
    figures: dict[str, Any] = {"minutes": minutes, "aged_s": round(aged_s), "samples": cycles * CYCLE}
    for what in ("silent", "speaking"):
        pairs = [(a[0], b[0]) for kind, a, b in took if kind == what]
        cpu = [(a[1], b[1]) for kind, a, b in took if kind == what]
        ages = [median(pair[n] for pair in pairs) * 1e3 for n in (0, 1)]
        figures[what] = {
            "old_ms": round(ages[0], 3),
            "young_ms": round(ages[1], 3),
            "ratio": round(median(a / b for a, b in pairs), 3),
            "cpu_ratio": round(median(a for a, _ in cpu) / median(b for _, b in cpu), 3),
            "quiet_ratio": round(_fast(a for a, _ in pairs) / _fast(b for _, b in pairs), 3),
        }
    return figures | {"memory_before_mb": round(before, 1), "memory_after_mb": round(after, 1)}


def _fast(seconds: Iterable[float]) -> float:
    """The tenth that nothing else on the machine held up."""
    return float(np.percentile(list(seconds), 10))


def _listen(serving: Rehearsed, ear: Ear, audio: Tensor, chunks: int) -> None:
    for _ in range(chunks):
        index = ear.due or 0
        serving.hear([(ear, index, audio[index % len(audio)])])


def _in_turns(
    serving: Rehearsed, device: torch.device, audio: Tensor, old: Ear, young: Ear, chunks: int
) -> list[tuple[str, Timed, Timed]]:
    """(silent or speaking, time of the old one's Chunk, of the young one's). Before a Chunk is heard, what is due
    of a response is written: so the time of a Chunk in a response is that of 8 tokens too."""
    start = {old: old.due or 0, young: young.due or 0}
    serving.plan = lambda ear, index: (index - start[ear]) % CYCLE == 0
    took = []
    for n in range(chunks):
        seconds: dict[Ear, Timed] = {}
        kind = "speaking" if 0 < n % CYCLE <= SPEAKS else "silent"
        for ear in (old, young) if n % 2 else (young, old):
            index = start[ear] + n
            pcm = audio[index % len(audio)]
            seconds[ear] = timed(device, lambda: serving.hear([(ear, index, pcm)]))  # noqa: B023 - called at once
        if kind == "silent" or n > CYCLE:  # the first response wakes a decoder that has slept for different times
            took.append((kind, seconds[old], seconds[young]))
    return took
