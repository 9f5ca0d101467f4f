"""What each part of the cascade costs on this machine, and how well the recognisers hear a telephone.

python -m benchmarks.parts [--prompts N] [--skip finals,kokoro,...] [--json FILE]

Prints a table, and one JSON document to FILE (or as the last line). Times are medians of a few runs, beside whatever
else the machine is doing; `rtf` is computing time over audio time. The audio is Debian's telephone prompts in G.711.
Set OPENBLAS_NUM_THREADS=1, as the worker does: numpy's threads only get into each other's way here.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.speech import Pcm, prompts, read_prompt
from benchmarks.wer import word_error_rate
from calls.clauses import clauses
from model_worker.cascade.finals import FinalRecogniser
from model_worker.cascade.language import LocalLanguageModel
from model_worker.cascade.partials import PartialRecogniser
from model_worker.cascade.retrieval import Embedder
from model_worker.cascade.turn_end import TurnEnd
from model_worker.cascade.vad import VoiceActivity, VoiceState
from model_worker.catalogue import Catalogue
from model_worker.phonemes import phonemes
from model_worker.voice import ClauseVoice, KokoroVoice, PiperVoice

RATE = 16_000
SECONDS = (1, 2, 4, 8)
REPLY = "Sure, we open at 8:30 on Monday. Would you like me to book a visit for you?"
INSTRUCTION = (
    "You answer calls for Bright Dental, in one short sentence. Open Monday to Friday 8:30 to 17:00, Saturday 9 to 12. "
    "Parking is behind the building. A check-up costs 90 dollars, whitening 200. Cancel a day before. "
) * 3
Row = dict[str, Any]
Models = Callable[[str], Path]


def median_ms(work: Callable[[], object], runs: int = 5) -> float:
    work()  # the first run pays for allocation
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return round(statistics.median(times), 2)


def vad(models: Models, speech: list[tuple[str, Pcm]]) -> Iterator[Row]:
    detector = VoiceActivity(models("silero-vad"))
    chunk = speech[0][1][: 6_400 // 512 * 512]
    for streams in (1, 16):
        states = [VoiceState() for _ in range(streams)]
        ms = median_ms(lambda states=states: detector.feed_many([(s, chunk) for s in states]))  # type: ignore[misc]
        each = ms / streams
        yield {"part": "vad", "case": f"0.4 s chunk, batch {streams}", "ms": round(each, 2), "rtf": each / 384}


def partials(models: Models, speech: list[tuple[str, Pcm]]) -> Iterator[Row]:
    recogniser = PartialRecogniser(models("moonshine-tiny"))
    talk = np.concatenate([pcm for _, pcm in speech])
    for seconds in SECONDS:
        pcm = talk[: seconds * RATE]
        ms = median_ms(lambda pcm=pcm: recogniser.transcribe([pcm]))  # type: ignore[misc]
        yield {"part": "partials", "case": f"{seconds} s", "ms": ms, "rtf": ms / 1e3 / seconds}
    batch = [pcm[: 4 * RATE] for _, pcm in speech if len(pcm) > 3 * RATE][:8]
    ms = median_ms(lambda: recogniser.transcribe(batch)) / len(batch)
    yield {"part": "partials", "case": f"4 s, one of a batch of {len(batch)}", "ms": ms, "rtf": ms / 4e3}
    yield accuracy("partials", speech, lambda pcm: recogniser.transcribe([pcm])[0].text)


def finals(models: Models, speech: list[tuple[str, Pcm]]) -> Iterator[Row]:
    recogniser = FinalRecogniser(models("whisper-base"), nice=0)
    talk = np.concatenate([pcm for _, pcm in speech])
    for seconds in SECONDS:
        pcm = talk[: seconds * RATE]
        ms = median_ms(lambda pcm=pcm: recogniser.transcribe(pcm), 3)  # type: ignore[misc]
        yield {"part": "finals", "case": f"{seconds} s", "ms": ms, "rtf": ms / 1e3 / seconds}
    yield accuracy("finals", speech, lambda pcm: recogniser.transcribe(pcm).text)


def accuracy(part: str, speech: list[tuple[str, Pcm]], hear: Callable[[Pcm], str]) -> Row:
    start = time.perf_counter()
    pairs = [(text, hear(pcm)) for text, pcm in speech]
    took = time.perf_counter() - start
    audio = sum(len(pcm) for _, pcm in speech) / RATE
    case = f"{len(pairs)} prompts, {audio:.0f} s, G.711"
    return {"part": part, "case": case, "wer": word_error_rate(pairs), "rtf": took / audio}


def turn_end(models: Models, speech: list[tuple[str, Pcm]]) -> Iterator[Row]:
    judge = TurnEnd(models("smart-turn"))
    pause = np.zeros(RATE // 5, np.float32)
    long = [pcm for _, pcm in speech if len(pcm) > 1.5 * RATE]
    whole = [judge.probability(np.concatenate([pcm, pause])) > 0.5 for pcm in long]
    broken = [judge.probability(np.concatenate([pcm[: int(len(pcm) * 0.55)], pause])) < 0.5 for pcm in long]
    ms = median_ms(lambda: judge.probability(long[0]))
    case = f"complete {np.mean(whole):.0%}, cut off recognised {np.mean(broken):.0%} of {len(long)}"
    yield {"part": "turn end", "case": case, "ms": ms}


def retrieval(models: Models, speech: list[tuple[str, Pcm]]) -> Iterator[Row]:
    embedder = Embedder(models("minilm"))
    query = median_ms(lambda: embedder.embed(["what time do you open on saturday please"]))
    yield {"part": "retrieval", "case": "a query of eight words", "ms": query}
    texts = [text for text, _ in speech][:32]
    yield {"part": "retrieval", "case": f"{len(texts)} cards", "ms": median_ms(lambda: embedder.embed(texts), 3)}


def language(models: Models, name: str) -> Iterator[Row]:
    start = time.perf_counter()
    model = LocalLanguageModel(models(name) / "model.gguf")
    yield {"part": name, "case": "load", "ms": round((time.perf_counter() - start) * 1e3)}
    system = {"role": "system", "content": INSTRUCTION}
    start = time.perf_counter()
    model.warm([system])
    yield {"part": name, "case": "read the instruction once", "ms": round((time.perf_counter() - start) * 1e3)}
    firsts, rates = [], []
    for question in ("Where can I park?", "How much is a check-up?", "When do you open on Saturday, and for how long?"):
        start, first, count = time.perf_counter(), 0.0, 0
        for _ in model.stream([system, {"role": "user", "content": question}], max_tokens=60, stop=threading.Event()):
            first, count = first or time.perf_counter() - start, count + 1
        firsts.append(first)
        rates.append((count - 1) / max(time.perf_counter() - start - first, 1e-6))
    case = f"first token, instruction known; then {statistics.median(rates):.0f} tokens/s"
    yield {"part": name, "case": case, "ms": round(statistics.median(firsts) * 1e3), "tokens_per_s": max(rates)}


def voice(name: str, make: Callable[[], ClauseVoice]) -> Iterator[Row]:
    list(make().say("Warm up."))
    speaker = make()
    start, first, samples = time.perf_counter(), 0.0, 0
    for pcm in (pcm for clause in clauses(REPLY) for pcm in speaker.say(clause)):
        first, samples = first or time.perf_counter() - start, samples + len(pcm)
    rtf = (time.perf_counter() - start) / (samples / RATE)
    yield {"part": name, "case": "first clause of a reply", "ms": round(first * 1e3), "rtf": rtf}
    yield {"part": name, "case": "a phrase said before", "ms": median_ms(lambda: list(speaker.say(REPLY)))}


def espeak() -> Iterator[Row]:
    phonemes.cache_clear()
    counter = iter(range(100))
    yield {"part": "espeak-ng", "case": "a clause", "ms": median_ms(lambda: phonemes(f"we open at {next(counter)}"))}


def rows(models: Models, speech: list[tuple[str, Pcm]], skip: set[str]) -> Iterator[Row]:
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "vad": lambda: vad(models, speech),
        "partials": lambda: partials(models, speech),
        "finals": lambda: finals(models, speech),
        "turn-end": lambda: turn_end(models, speech),
        "retrieval": lambda: retrieval(models, speech),
        "qwen-0.5b": lambda: language(models, "qwen-0.5b"),
        "qwen-1.5b": lambda: language(models, "qwen-1.5b"),
        "smollm2-135m": lambda: language(models, "smollm2-135m"),
        "espeak": espeak,
        "piper": lambda: voice("piper", lambda: PiperVoice(models("piper-joe"))),
        "kokoro": lambda: voice("kokoro", lambda: KokoroVoice(models("kokoro"))),
    }
    for name, run in parts.items():
        if name not in skip:
            yield from run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1_000, help="how many prompts to recognise")
    parser.add_argument("--skip", default="", help="parts to leave out, by comma")
    parser.add_argument("--json", type=Path, help="where to write the JSON")
    arguments = parser.parse_args()
    speech = [(text, read_prompt(name)) for name, text in list(prompts().items())[: arguments.prompts]]
    found = list(rows(Catalogue(overrides=dict(os.environ)).pull, speech, set(arguments.skip.split(","))))
    table = Table("part", "case", "ms", "rtf", "WER", box=None, header_style="dim", pad_edge=False)
    for row in found:
        cells = (f"{row['ms']:g}" if "ms" in row else "", f"{row['rtf']:.3f}" if "rtf" in row else "")
        table.add_row(row["part"], row["case"], *cells, f"{row['wer']:.1%}" if "wer" in row else "")
    Console(width=110).print(table)
    text = json.dumps({"cores": os.cpu_count(), "load": os.getloadavg()[0], "rows": found})
    if arguments.json:
        arguments.json.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
