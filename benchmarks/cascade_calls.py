"""How many assist calls one worker's cascade holds without a missed deadline.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.cascade_calls [--calls 1,5,10] [--seconds 60] [--cores 2]

The recorded garage call is fed to the engine in real time, once a call, each call at its own point of the recording and
its own phase of the 0.4 s clock, as calls are. No bus and no telephony: this measures the model and the engine. Printed
are the steps' times, Decisions after their deadline, how old the words of a partial are when it is emitted, and how
many finals were left to the job after the call.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from agent.knowledge import GARAGE, Knowledge
from calls.audio import CHUNK_BYTES, CHUNK_S, SAMPLE_RATE, Chunk
from calls.events import Decided, Event, Partial, ResponseOpened, Uttered
from calls.model import Instruction, Mode, Participant, Role
from model_worker.cascade.load import load_parts
from model_worker.cascade.model import Cascade
from model_worker.catalogue import Catalogue
from model_worker.engine import Engine
from model_worker.stream import Past
from offhook.demo import FOLDER
from offhook.phone.wav import load

ROLES = {"caller": Role.CALLER, "human_agent": Role.HUMAN_AGENT}
TRACKS = {"caller": "caller.wav", "human_agent": "agent.wav"}


@dataclass
class Watch:
    """Counts what one call's model says. `clock_s` is the call's clock now."""

    began: float
    decided: int = 0
    late: int = 0
    finals: int = 0
    utterances: int = 0
    hints: list[str] = field(default_factory=list)
    ages_ms: list[float] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        match event:
            case Decided(late=late):
                self.decided += 1
                self.late += late
            case Partial(end_s=end_s):
                self.ages_ms.append((time.time() - self.began - end_s) * 1000)
            case Uttered(utterance=utterance):
                self.utterances += utterance.revision == 0
                self.finals += utterance.revision > 0
            case ResponseOpened(title=title):
                self.hints.append(title)
            case _:
                pass


def tracks(folder: Path) -> dict[str, bytes]:
    return {role: load(folder / name) for role, name in TRACKS.items()}


def place(engine: Engine, number: int, audio: dict[str, bytes], offset: int, phase_s: float, seconds: float) -> Watch:
    """One call in real time, from Chunk `offset` of the recording; returns when it is over."""
    call_id = f"call-{number}"
    people = tuple(Participant(name, role) for name, role in ROLES.items())
    instruction = Instruction(Mode.ASSIST, "Help.", people, Knowledge(GARAGE).cards())
    time.sleep(phase_s)
    watch = Watch(time.time())
    stream = engine.open(call_id, instruction, Past(), watch)
    watch.began = time.time()
    for index in range(int(seconds / CHUNK_S)):
        time.sleep(max(0.0, watch.began + (index + 1) * CHUNK_S - time.time()))
        for name, pcm in audio.items():
            at = (index + offset) * CHUNK_BYTES % (len(pcm) - CHUNK_BYTES)
            at -= at % 2
            engine.hear(stream, Chunk(call_id, name, index, pcm[at : at + CHUNK_BYTES]), time.time() + CHUNK_S)
    closed = threading.Event()
    engine.close(stream, closed.set)
    closed.wait(30)
    return watch


def measure(calls: int, seconds: float, audio: dict[str, bytes]) -> dict[str, float | int]:
    model = Cascade(load_parts(Catalogue()))
    model.parts.libraries.get(Knowledge(GARAGE).cards()).result()
    engine = Engine(model)
    stepping = threading.Thread(target=engine.run, daemon=True)
    stepping.start()
    chunks = min(len(pcm) for pcm in audio.values()) // CHUNK_BYTES
    watches: list[Watch] = []
    cpu = time.process_time()

    def one(number: int) -> None:
        watches.append(place(engine, number, audio, number * chunks // calls, number * CHUNK_S / calls, seconds))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.stop()
    stepping.join()
    model.shut_down()
    ages = np.concatenate([watch.ages_ms for watch in watches]) if watches else np.zeros(1)
    return {
        "calls": calls,
        "decisions": sum(watch.decided for watch in watches),
        "missed": sum(watch.late for watch in watches),
        "step_ms_p50": round(engine.books.quantile(0.5), 1),
        "step_ms_p99": round(engine.books.quantile(0.99), 1),
        "partial_age_ms_p50": round(float(np.percentile(ages, 50))),
        "partial_age_ms_p95": round(float(np.percentile(ages, 95))),
        "utterances": sum(watch.utterances for watch in watches),
        "finals": sum(watch.finals for watch in watches),
        "hints": sum(len(watch.hints) for watch in watches),
        "cpu_cores": round((time.process_time() - cpu) / seconds, 2),
        "load": round(model.load(), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", default="1,5,10", help="comma-separated numbers of calls at once")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cores", type=int, default=2, help="run on so many cores only")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    audio = tracks(FOLDER / "garage-call")
    assert len(next(iter(audio.values()))) > SAMPLE_RATE
    for calls in map(int, options.calls.split(",")):
        print(json.dumps(measure(calls, options.seconds, audio)), flush=True)


if __name__ == "__main__":
    main()
