"""How many live calls one engine of the Audio Interaction Model holds, and what a Chunk costs.

Three parts, with Serving itself (no bus, no telephony), in one process and on one network:

  ramp      more and more live calls in real time, each a Chunk every 0.4 s at its own phase, a share of them being
            written for at any time, as fast as a worker writes on this device, until one is answered late. Times are
            from the end of a Chunk until its control token is known to the host.
  baseline  the public reference server's behaviour (a batch of one, everything heard so far encoded again for every
            Chunk, the cache dropped after each reply and at 1,500 positions, deaf while it speaks) beside ours, at
            call ages of 10 s to 10 minutes: seconds measured, floating-point operations counted
  age       a Chunk of a call in minute 60 beside one in minute 1, in turns

Random weights do not decide to speak, so the outcome of decisions is replaced by a plan; every pass that a decision and
a response cost is done. The audio is the caller of the demo's garage call.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.engine_age import old_and_young
from benchmarks.engine_baseline import PublicServer, Work, compare, count_work, live
from benchmarks.engine_model import (
    KIB,
    MIB,
    SPARE,
    VOICE,
    Rehearsed,
    compiled,
    nothing_compiled_since,
    open_checkpoint,
    recording,
    rehearse,
    sized,
    slot_bytes,
)
from benchmarks.engine_ramp import PHASES, Figures, ramp, warm_up
from calls.audio import CHUNK_S
from model_worker.interaction.build import paced
from model_worker.interaction.checkpoint import Checkpoint
from model_worker.interaction.config import PRESETS, InteractionConfig
from model_worker.interaction.memory import BLOCK

EXAMPLES = """examples:
  offhook bench engine                                   compact, on this CPU: some minutes
  offhook bench engine --size test --seconds 4 --minutes 2 --ages 10,60
  offhook bench engine --dtype bfloat16 --parts ramp --speaking 0
  offhook bench engine --size 3b --window 2k             on a GPU: 32 to 512 calls
  offhook bench engine --size 3b --window 1k,2k,4k --p99 100 --json 3b.json
  scripts/bench_gpu                                      all of it for 3b, and its tests, where only a GPU and torch are
"""
PARTS = ("ramp", "baseline", "age")
CALLS_CPU = "1,2,3,4,6,8,12,16,24,32"
CALLS_GPU = "32,64,128,192,256,384,512"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
OF_A_GPU = "cuda"


@dataclass(frozen=True, slots=True)
class Bench:
    """What all parts share."""

    checkpoint: Checkpoint
    config: InteractionConfig
    device: torch.device
    audio: Tensor
    work: Work
    options: argparse.Namespace

    def serve(self, slots: int, batch: int) -> Rehearsed:
        return rehearse(self.checkpoint, self.config, slots, batch)

    @property
    def element(self) -> int:
        """Bytes of a kept number."""
        return self.checkpoint.decoder["embed_tokens.weight"].dtype.itemsize


def say(text: str = "") -> None:
    print(text, flush=True)


# --- the three parts ----------------------------------------------------------------------------------------------


def run_ramp(bench: Bench) -> dict[str, Any]:
    options, one = bench.options, slot_bytes(bench.config, bench.element)
    slots = max(options.calls)
    if bench.device.type == OF_A_GPU:
        slots = min(slots, (torch.cuda.mem_get_info(bench.device)[0] - SPARE) // one)
    numbers = [calls for calls in options.calls if calls <= slots]
    talk = f"{options.speaking:.0%} speaking, phases {options.phases}"
    say(f"ramp: {one / MIB:,.1f} MiB a call, {talk}, {options.seconds:g} s for each number")
    for calls in sorted(set(options.calls) - set(numbers)):
        say(f"  {calls} calls do not fit into the memory, which holds {slots}")
    say("  calls    p50    p99    max ms  missed   chunks  tokens/s  speaking  batch  busy  CPU ms/call-s  memory MB")
    steps: list[Figures] = []
    serving = bench.serve(max(numbers, default=1), options.batch)
    built = compiled()
    warm_up(serving, bench.audio)
    for f in ramp(
        serving,
        bench.device,
        bench.audio,
        numbers,
        seconds=options.seconds,
        speaking=options.speaking,
        batch=options.batch,
        phases=options.phases,
        p99_ms=options.p99,
    ):
        nothing_compiled_since(built)
        steps.append(f)
        given_up = "   given up: hopelessly late" if f.given_up else ""
        say(
            f"  {f.calls:5d} {f.p50_ms:6.1f} {f.p99_ms:6.1f} {f.max_ms:9.1f} {f.missed:7d} {f.chunks:8d} "
            f"{f.tokens_per_s:9.1f} {f.speaking:9.2f} {f.batch:6.1f} {f.busy:5.2f} {f.cpu_ms:14.1f} "
            f"{f.memory_mb:10,.0f}{given_up}"
        )
    holds = max((f.calls for f in steps if f.holds(options.p99)), default=0)
    limit = "no missed deadline" + (f" and p99 <= {options.p99:g} ms" if options.p99 else "")
    say(f"  holds {holds} calls: {limit}")
    return {"holds": holds, "slot_bytes": one, "steps": [f.as_dict() for f in steps]}


def run_baseline(bench: Bench) -> dict[str, Any]:
    options, work = bench.options, bench.work
    say("baseline: one call; the public server's behaviour beside ours")
    say(
        f"  counted: tower {work.tower / 1e9:.2f} GFLOP a Chunk, decide {work.decide / 1e9:.2f}, "
        f"wake {work.wake / 1e9:.2f}, write {work.write / 1e9:.2f} a token"
    )
    say("     age   ours ms  theirs ms   times  CPU times  our GFLOP  their GFLOP   times  the call so far  in time")
    serving = bench.serve(2, 1)
    public = PublicServer(bench.checkpoint, bench.config)
    built = compiled()
    ages = []
    for row in compare(serving, public, bench.device, bench.audio, options.ages, work):
        ages.append(row)
        say(
            f"  {row['age_s']:4d} s {row['ours_ms']:9.2f} {row['theirs_ms']:10.1f} {row['times']:7.1f} "
            f"{row['cpu_times']:10.1f} {row['ours_gflop']:10.2f} {row['theirs_gflop']:12.1f} {row['work']:7.1f} "
            f"{row['work_of_the_call']:16.1f} {'yes' if row['in_time'] else 'no':>8}"
        )
    nothing_compiled_since(built)
    spoken = live(public, bench.audio, options.seconds, options.speaking)
    say(
        f"  theirs, live for its first {spoken['seconds']:g} s: p50 {spoken['p50_ms']} ms, p99 {spoken['p99_ms']} ms, "
        f"{spoken['refused']} of {spoken['chunks']} Chunks refused, cache dropped {spoken['dropped']} times"
    )
    return {"ages": ages, "live": spoken}


def run_age(bench: Bench) -> dict[str, Any]:
    options = bench.options
    say(f"age: one call hears {options.minutes} minutes by real passes, as fast as it can, responding every 5 minutes")
    serving = bench.serve(2, 1)
    built = compiled()
    figures = old_and_young(
        serving, bench.device, bench.audio, options.minutes, options.cycles, lambda text: say(f"  {text}")
    )
    nothing_compiled_since(built)
    for what in ("silent", "speaking"):
        pair = figures[what]
        say(
            f"  a Chunk, {what:8}: minute {options.minutes}: {pair['old_ms']:.2f} ms, minute 1: {pair['young_ms']:.2f} "
            f"ms; ratio {pair['ratio']:.3f} (median of pairs), {pair['quiet_ratio']:.3f} (fastest tenths), "
            f"{pair['cpu_ratio']:.3f} (processor time)"
        )
    say(f"  memory {figures['memory_before_mb']:,} MB before, {figures['memory_after_mb']:,} MB after")
    return figures


RUN: dict[str, Callable[[Bench], dict[str, Any]]] = {"ramp": run_ramp, "baseline": run_baseline, "age": run_age}

# --- the command line ---------------------------------------------------------------------------------------------


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def windows(text: str) -> list[int]:
    """1k is 1,024."""
    return [int(w.removesuffix("k")) * (KIB if w.endswith("k") else 1) for w in text.lower().split(",")]


def read(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="offhook bench engine",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", choices=tuple(PRESETS), default="compact", help="with random weights")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="real weights instead; decisions stay planned")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--window", type=windows, default=[0], help="tokens of audio kept: 2048, 2k, or 1k,2k,4k")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--calls", type=numbers, help=f"to ramp through: {CALLS_CPU}; on a GPU {CALLS_GPU}")
    parser.add_argument("--seconds", type=float, default=12.0, help="for each number of calls, beside its warm-up")
    parser.add_argument("--speaking", type=float, default=0.25, help="share of the calls that are being written for")
    parser.add_argument("--phases", choices=PHASES, default=PHASES[0], help="of the calls within each 0.4 s")
    parser.add_argument("--words", type=int, help="tokens a Chunk of those; default: as a worker writes on this device")
    parser.add_argument("--p99", type=float, metavar="MS", help="more than that does not hold either")
    parser.add_argument("--batch", type=int, default=32, help="Chunks a pass at most: 32 is what the worker takes")
    parser.add_argument("--ages", type=numbers, default=[10, 60, 120, 300, 600], help="seconds, for the baseline")
    parser.add_argument("--minutes", type=int, default=60, help="of the old call")
    parser.add_argument("--cycles", type=int, default=5, help="of 20 Chunks and one response, old and young in turns")
    parser.add_argument("--device", choices=("cpu", OF_A_GPU), help="default: a GPU if there is one")
    parser.add_argument("--dtype", choices=tuple(DTYPES), help="default: bfloat16 on a GPU, float32 on a CPU")
    parser.add_argument("--threads", type=int, default=2, help="on a CPU, as OFFHOOK_WORKER_THREADS")
    parser.add_argument("--voice", type=Path, default=VOICE, help="a WAV: what all callers say")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    options = parser.parse_args(arguments)
    options.parts = options.parts.split(",")
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    if not 0 <= options.speaking <= 1 or options.batch < 1 or options.minutes < 1 or options.cycles < 2:
        parser.error("--speaking is 0 to 1, --batch and --minutes at least 1, --cycles at least 2")
    options.device = options.device or (OF_A_GPU if torch.cuda.is_available() else "cpu")
    on_gpu = options.device == OF_A_GPU
    options.dtype = options.dtype or ("bfloat16" if on_gpu else "float32")
    options.calls = options.calls or numbers(CALLS_GPU if on_gpu else CALLS_CPU)
    return options


def machine(options: argparse.Namespace) -> str:
    load = f"load {os.getloadavg()[0]:.1f}"
    if options.device == OF_A_GPU:
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {load}"
    return f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads, torch {torch.__version__}, {load}"


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    options = read(arguments)
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(options.threads)
    checkpoint, line = open_checkpoint(options.checkpoint, options.size, options.seed, device, DTYPES[options.dtype])
    config = paced(checkpoint, device.type == OF_A_GPU)
    checkpoint = replace(checkpoint, config=replace(config, words_a_chunk=options.words or config.words_a_chunk))
    say(f"{line}, {options.dtype}, {checkpoint.config.words_a_chunk} tokens a Chunk; {machine(options)}")
    found: dict[str, Any] = {"model": line, "machine": machine(options), "dtype": options.dtype}
    found["windows"] = []
    audio = recording(options.voice)
    for window in options.window:
        config = sized(checkpoint.config, window)
        held = config.memory
        say(
            f"\nwindow: {held.chunks * BLOCK:,} tokens of audio ({held.chunks * CHUNK_S:.1f} s), {held.prefix} of the "
            f"Instruction, {held.text} of text; the Instruction fills its room"
        )
        bench = Bench(checkpoint, config, device, audio, count_work(config), options)
        figures: dict[str, Any] = {"audio_tokens": held.chunks * BLOCK, "places": held.places}
        for part in options.parts:
            figures[part] = RUN[part](bench)
            gc.collect()
            if device.type == OF_A_GPU:
                torch.cuda.empty_cache()
        found["windows"].append(figures)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    main()
