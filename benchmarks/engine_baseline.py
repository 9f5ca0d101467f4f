"""The public reference server's behaviour, with our network: to see what ours is worth.

As its code is said to do: one call, a batch of one; all that was heard so far is encoded again for every Chunk; the
cache is dropped after each reply and at 1,500 positions; a Chunk that comes while it speaks is refused. What it then
does with the newest features is ours, pass for pass, and its tower gets all Chunks in large batches: the difference is
the behaviour and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.engine_model import (
    SPEAKS,
    Rehearsed,
    checkpoint_of,
    instruction,
    rehearse,
    timed,
    with_chunks,
)
from calls.audio import CHUNK_S, CHUNK_SAMPLES
from model_worker.interaction.build import build
from model_worker.interaction.checkpoint import Checkpoint
from model_worker.interaction.config import CHUNK_FRAMES, InteractionConfig
from model_worker.interaction.ears import Judged
from model_worker.interaction.formats.shapes import model_shapes
from model_worker.interaction.mel import CARRIED, QUIETEST, Mel, MelState
from model_worker.interaction.memory import BLOCK
from model_worker.interaction.padded import Padded
from model_worker.interaction.perception import Perception
from model_worker.interaction.tier import NOTHING

POSITIONS = 1500  # of the cache, until it is dropped
TOGETHER = 64  # Chunks that the tower encodes in one pass
REPEATS = 3
ENOUGH_S = 4.0  # of repeating


class Everything:
    """In the place of perception: encodes all that it has ever heard, and gives the newest Chunk's features."""

    largest = 1

    def __init__(self, checkpoint: Checkpoint) -> None:
        weight = checkpoint.decoder["embed_tokens.weight"]
        self._device, self._dtype = weight.device, weight.dtype
        self._config = checkpoint.config.tower
        perception = Perception(checkpoint.config, 1, self._device, self._dtype)
        perception.load(checkpoint.tower)
        self._tower = perception.tower
        self._mel = Mel(self._config.mels, self._config.level, self._device)
        self.heard: list[Tensor] = []

    @torch.inference_mode()
    def __call__(self, numbers: Sequence[Sequence[int]], pcm: Tensor, repeat: int = 1) -> Tensor:
        self.heard.append(pcm[0])
        return self.encode(torch.stack(self.heard))[-1:]

    @torch.inference_mode()
    def encode(self, pcm: Tensor) -> Tensor:
        """[n, 6400], a whole call -> the features of all its Chunks, [n, 10, width]."""
        pcm = pcm.to(self._device)
        chunks, state = len(pcm), MelState.fresh(len(pcm), self._device)
        state.tail[1:] = pcm[:-1, -CARRIED:]
        raw = self._mel.hear(state, torch.arange(chunks, device=self._device), pcm)
        state.loudest.fill_(state.loudest.max())
        context = self._config.context * CHUNK_FRAMES
        silence = raw.new_full((self._config.mels, context), QUIETEST)
        whole = torch.cat([silence, raw.transpose(0, 1).flatten(1)], dim=1)
        windows = whole.unfold(1, context + CHUNK_FRAMES, CHUNK_FRAMES).transpose(0, 1)
        scaled = self._mel.scale(state, torch.arange(chunks, device=self._device), windows).to(self._dtype)
        return torch.cat([self._tower(part) for part in torch.split(scaled, TOGETHER)])


class PublicServer:
    """One call. `refused` and `dropped` count Chunks and caches."""

    def __init__(self, checkpoint: Checkpoint, config: InteractionConfig) -> None:
        # It writes a reply in one go, and its window is its cache.
        config = replace(with_chunks(config, POSITIONS // BLOCK), words_a_chunk=config.longest + 2)
        self.serving: Rehearsed = rehearse(checkpoint, config, 1, 1)
        self.everything = Everything(checkpoint)
        self.serving._perceive = cast(Padded, self.everything)
        self.prefix = instruction(config)
        self.ear = self.serving.open(self.prefix)
        self.positions = len(self.prefix)
        self.refused = self.dropped = 0

    def hear(self, pcm: Tensor) -> Judged:
        """The next Chunk. What it responds is still to be spoken."""
        index = self.ear.due or 0
        [judged], _ = self.serving.hear([(self.ear, index, pcm)])
        assert judged is not None
        self.positions += BLOCK
        if self.positions + BLOCK > POSITIONS and not judged.respond:
            self._drop()
        return judged

    def speak(self) -> None:
        """A whole reply, and the cache is gone."""
        while self.serving.busy:
            self.serving.write()
        self._drop()

    def _drop(self) -> None:
        self.serving.release(self.ear)
        self.ear = self.serving.open(self.prefix)
        self.positions = len(self.prefix)
        self.dropped += 1


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations, counted on tensors without data."""

    tower: int  # a Chunk
    decide: int  # a Chunk, in the tier that decides
    wake: int  # a Chunk that the tier that speaks hears later; 0 if it is the same tier
    write: int  # a token

    def ours(self) -> int:
        return self.tower + self.decide

    def theirs(self, chunks: int) -> int:
        """At a call that is so many Chunks old."""
        return self.tower * chunks + self.decide


def count_work(config: InteractionConfig) -> Work:
    """Of one call alone, in the very passes that serve it."""
    device = torch.device("meta")
    tensors = {name: torch.empty(shape, device=device) for name, shape in model_shapes(config).items()}
    with device:  # also for what `build` makes only to load weights into it
        serving = build(checkpoint_of(config, tensors), 1, sizes=[1])
    pcm = torch.empty(1, CHUNK_SAMPLES, device=device)
    features = serving._perceive([(0,)], pcm)
    hear = _flops(lambda: serving._decoder.hear([(0, 0, NOTHING)], features))
    write = _flops(lambda: serving._decoder.write([(0, 0, 0, 0, 0, 1)], 1))
    perceive = _flops(lambda: serving._perceive([(0,)], pcm))
    if (ear := serving._ear) is None:
        return Work(perceive, hear, 0, write)
    return Work(perceive, _flops(lambda: ear.hear([(0, 0, NOTHING)], features)), hear, write)


def _flops(work: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def compare(
    serving: Rehearsed, public: PublicServer, device: torch.device, audio: Tensor, ages_s: Sequence[int], work: Work
) -> Iterator[dict[str, Any]]:
    """A Chunk at different ages of one call: ours and theirs, in turns. Ours has heard every Chunk before it."""
    serving.plan = public.serving.plan = lambda ear, index: False
    ear = serving.open(public.prefix)
    for age in ages_s:
        chunks = round(age / CHUNK_S)
        for index in range(ear.due or 0, chunks):
            serving.hear([(ear, index, audio[index % len(audio)])])
        public.everything.heard = [audio[index % len(audio)] for index in range(chunks)]
        ours, theirs, until = [], [], time.perf_counter() + ENOUGH_S
        for repeat in range(REPEATS):
            if repeat and time.perf_counter() > until:
                break
            pcm, index = audio[(chunks + repeat) % len(audio)], ear.due or 0
            ours.append(timed(device, lambda: serving.hear([(ear, index, pcm)])))  # noqa: B023 - called at once
            theirs.append(timed(device, lambda: public.hear(pcm)))  # noqa: B023
        yield _compared(age, chunks, _medians(ours), _medians(theirs), work)
    serving.release(ear)


def _medians(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return median(wall for wall, _ in pairs), median(cpu for _, cpu in pairs)


def _compared(
    age: int, chunks: int, ours: tuple[float, float], theirs: tuple[float, float], work: Work
) -> dict[str, Any]:
    now = work.theirs(chunks + 1)
    until_now = work.tower * chunks * (chunks + 1) / 2 + work.decide * chunks
    return {
        "age_s": age,
        "ours_ms": round(ours[0] * 1e3, 2),
        "theirs_ms": round(theirs[0] * 1e3, 1),
        "times": round(theirs[0] / ours[0], 1),
        "ours_cpu_ms": round(ours[1] * 1e3, 2),
        "theirs_cpu_ms": round(theirs[1] * 1e3, 1),
        "cpu_times": round(theirs[1] / ours[1], 1),
        "ours_gflop": round(work.ours() / 1e9, 3),
        "theirs_gflop": round(now / 1e9, 1),
        "work": round(now / work.ours(), 1),
        "work_of_the_call": round(until_now / (work.ours() * chunks), 1),
        "in_time": theirs[0] <= CHUNK_S,
    }


def live(public: PublicServer, audio: Tensor, seconds: float, speaking: float) -> dict[str, Any]:
    """One call from its first second on, in real time, on the same plan as ours."""
    cycle = max(SPEAKS, round(SPEAKS / speaking)) if speaking else 0
    public.everything.heard.clear()
    public.refused = public.dropped = 0
    late: list[float] = []
    chunks, respond, spoke_until = round(seconds / CHUNK_S), False, 0.0
    public.serving.plan = lambda ear, index: respond
    start = time.perf_counter() + CHUNK_S
    for index in range(chunks):
        complete = start + index * CHUNK_S
        respond |= bool(cycle) and index % cycle == SPEAKS
        if complete < spoke_until:
            public.refused += 1
            continue
        time.sleep(max(0.0, complete - time.perf_counter()))
        judged = public.hear(audio[index % len(audio)])
        late.append((time.perf_counter() - complete) * 1e3)
        if judged.respond:
            respond = False
            public.speak()
            spoke_until = time.perf_counter()
    return {
        "seconds": seconds,
        "p50_ms": round(float(np.percentile(late, 50)), 1),
        "p99_ms": round(float(np.percentile(late, 99)), 1),
        "missed": sum(ms > CHUNK_S * 1e3 for ms in late),
        "refused": public.refused,
        "chunks": chunks,
        "dropped": public.dropped,
    }
