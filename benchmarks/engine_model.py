"""What benchmarks.engine measures: a model of some size, ears that respond when they are told to, and a recording."""

from __future__ import annotations

import os
import wave
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from calls.audio import CHUNK_SAMPLES, SAMPLE_RATE
from calls.resample import Resampler
from model_worker.interaction.build import build
from model_worker.interaction.checkpoint import Checkpoint, load
from model_worker.interaction.config import PRESETS, InteractionConfig, MemoryConfig
from model_worker.interaction.ears import Ear, Judged
from model_worker.interaction.make import make_tokenizer
from model_worker.interaction.memory import BLOCK
from model_worker.interaction.random_weights import RandomWeights
from model_worker.interaction.serving import Serving

VOICE = Path(__file__).resolve().parents[1] / "offhook/demo/garage-call/caller.wav"
SPEAKS = 5  # Chunks that a response takes to be written
KIB = 1024
MIB = KIB * KIB
SPARE = 6 << 30  # bytes of a GPU left to the passes: activations, graphs, work spaces
Part = Sequence[tuple[Ear, int, Tensor]]


class Rehearsed(Serving):
    """Serving that responds where `plan` says so, because random weights have nothing to say.

    All that a decision costs is done: its passes, and the wait for the score. Only the outcome is another one. Wakes,
    responses and what is remembered are Serving's own.
    """

    def __init__(self, built: Serving) -> None:
        vars(self).update(vars(built))
        self.plan: Callable[[Ear, int], bool] = lambda ear, index: False

    def _decide(self, part: Part, features: Tensor) -> dict[Ear, Judged]:
        judged = super()._decide(part, features)
        markers = (self._ear or self._decoder).markers
        for ear, index, _ in part:
            respond = self.plan(ear, index)
            ear.judge.control = markers.control(respond)
            judged[ear] = replace(judged[ear], respond=respond)
        return judged


def rehearse(checkpoint: Checkpoint, config: InteractionConfig, slots: int, batch: int) -> Rehearsed:
    """`checkpoint` with the memory of `config`, put to work."""
    on_gpu = checkpoint.decoder["embed_tokens.weight"].is_cuda
    sizes = [1 << power for power in range(batch.bit_length()) if 1 << power < batch] + [batch] if on_gpu else None
    return Rehearsed(build(replace(checkpoint, config=config), slots, sizes))


def sized(config: InteractionConfig, window: int | None) -> InteractionConfig:
    """With a window of `window` tokens of audio, and responses that take exactly SPEAKS Chunks."""
    longest = SPEAKS * config.words_a_chunk - 2  # beside TEXT_BEGIN and TEXT_END
    config = replace(config, longest=longest)
    return with_chunks(config, max(2, window // BLOCK)) if window else config


def with_chunks(config: InteractionConfig, chunks: int) -> InteractionConfig:
    """With an audio memory of so many Chunks, in both tiers."""
    ear: MemoryConfig | None = config.ear_memory and replace(config.ear_memory, chunks=chunks)
    return replace(config, memory=replace(config.memory, chunks=chunks), ear_memory=ear)


def slot_bytes(config: InteractionConfig, element: int) -> int:
    """What one ear's keys and values take."""
    tiers = [(config.decoder, config.memory), (config.ear, config.ear_memory)]
    numbers = sum(2 * d.layers * d.kv_heads * d.head_width * m.places for d, m in tiers if d and m)
    return numbers * element


def random_checkpoint(size: str, seed: int, device: torch.device, dtype: torch.dtype) -> Checkpoint:
    """A preset with the weights that model_worker.interaction.make writes for the same seed."""
    weights = RandomWeights(PRESETS[size], seed)

    def make(item: tuple[str, tuple[int, ...]]) -> tuple[str, Tensor]:
        return item[0], weights.make(*item).to(device, dtype)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = dict(pool.map(make, weights.shapes.items()))

    return checkpoint_of(weights.config, made)


def checkpoint_of(config: InteractionConfig, tensors: dict[str, Tensor]) -> Checkpoint:
    """Of all tensors by their whole names."""

    def part(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(name): tensor for key, tensor in tensors.items() if key.startswith(name)}

    return Checkpoint("native", config, part("tower."), part("decoder."), part("ear."), make_tokenizer())


def open_checkpoint(
    directory: Path | None, size: str, seed: int, device: torch.device, dtype: torch.dtype
) -> tuple[Checkpoint, str]:
    """And a line that says what it is."""
    began = perf_counter()
    checkpoint = load(directory, device, dtype) if directory else random_checkpoint(size, seed, device, dtype)
    tensors = [*checkpoint.tower.values(), *checkpoint.decoder.values(), *checkpoint.ear.values()]
    count = sum(tensor.numel() for tensor in tensors)
    what = str(directory) if directory else f"random weights of seed {seed}"
    took = perf_counter() - began
    return checkpoint, f"{checkpoint.config.name}: {count / 1e6:,.1f} M parameters, {what}, ready after {took:.0f} s"


def instruction(config: InteractionConfig) -> list[int]:
    """A prefix that fills its room: ordinary words between the markers."""
    tokens = config.tokens
    begin = [tokens.online, tokens.english, tokens.system, tokens.text_begin]
    return [*begin, *(5 + n % 300 for n in range(config.memory.prefix - len(begin) - 1)), tokens.text_end]


def recording(path: Path) -> Tensor:
    """A WAV (mono, 16 bit, 8 or 16 kHz) as Chunks: [n, 6400] float32 in -1..1."""
    with wave.open(str(path)) as file:
        if (file.getnchannels(), file.getsampwidth()) != (1, 2) or file.getframerate() not in (8_000, SAMPLE_RATE):
            raise SystemExit(f"{path}: a mono WAV of 16 bit and 8 or 16 kHz is wanted")
        pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)
        if file.getframerate() != SAMPLE_RATE:
            pcm = Resampler(file.getframerate(), SAMPLE_RATE)(pcm[: len(pcm) // 160 * 160])
    whole = pcm[: len(pcm) // CHUNK_SAMPLES * CHUNK_SAMPLES].astype(np.float32) / 32768
    return torch.from_numpy(whole).view(-1, CHUNK_SAMPLES)


def compiled() -> int:
    """Graphs that torch has compiled in this process."""
    return int(counters["stats"]["unique_graphs"])


def nothing_compiled_since(built: int) -> None:
    """Raises SystemExit if more graphs were compiled than `built`: figures would be of compiling, not of serving."""
    if (more := compiled() - built) > 0:
        raise SystemExit(
            f"STOP: torch compiled {more} graphs after the model was built; TORCH_LOGS=recompiles says why"
        )


def wait_for(device: torch.device) -> None:
    """Until the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(device: torch.device, work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock on the wall, and of processor time: what other work on the machine hardly changes."""
    wait_for(device)
    began, cpu = perf_counter(), process_time()
    work()
    wait_for(device)
    return perf_counter() - began, process_time() - cpu


def memory_mb(device: torch.device) -> float:
    """Of this process: what is allocated on the GPU, or what is resident on the machine."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / MIB
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB
