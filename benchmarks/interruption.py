"""How fast a caller who speaks over an answer is noticed, and how often something else pauses or stops it.

    offhook bench interruption [--voices DIR] [--noises DIR ...] [--answer agent.wav] [--echo-db -20]

The voices default to Debian's telephone prompts (package asterisk-core-sounds-en-wav), the answer to the demo
call's agent.

Every sound is laid over a playing answer and goes through the real interruption path Frame by Frame (no network, no
wall clock: latencies are sample counts, from the sound's own onset to the verdict). Voices are expected to pause it,
noises are not; hummed and whispered acknowledgements may pause it but must not stop it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks.speech import SOUNDS
from calls.audio import FRAME_SAMPLES, SAMPLE_RATE
from offhook.demo import FOLDER
from telephony.barge_in import Interruption, Verdict
from telephony.voice_activity import SileroNet

LEAD_S, TAIL_S = 3.0, 1.6
SILENT = 200  # of 32,768: a recording that never gets louder has nothing to notice
Samples = NDArray[np.int16]


def load(path: Path) -> Samples:
    """Any audio file as 16 kHz mono."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    with av.open(str(path)) as file:
        frames = [out for frame in file.decode(audio=0) for out in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def hummed(pitch_hz: float, rng: np.random.Generator) -> Samples:
    """ "mhm": two short hums, the second higher, about 450 ms."""
    hums = []
    for length_s, factor in ((0.18, 1.0), (0.25, 1.15)):
        t = np.arange(int(length_s * SAMPLE_RATE)) / SAMPLE_RATE
        phase = 2 * np.pi * pitch_hz * factor * (1 + 0.02 * np.sin(2 * np.pi * 5 * t)) * t
        tone = sum(np.sin(k * phase) / k**2 for k in range(1, 8))
        hums += [tone * np.hanning(len(t)) * 4000, np.zeros(320)]
    return (np.concatenate(hums) + rng.standard_normal(sum(map(len, hums))) * 10).astype(np.int16)


def onset(sound: Samples) -> int:
    """The first sample of the first 10 ms whose level is within 20 dB of the loudest."""
    blocks = sound[: len(sound) // 160 * 160].reshape(-1, 160).astype(np.float64)
    levels = np.sqrt((blocks**2).mean(axis=1))
    return int(np.flatnonzero(levels > levels.max() / 10)[0]) * 160


@dataclass(frozen=True, slots=True)
class Trial:
    name: str
    pause_ms: float | None  # from the onset
    stopped: bool
    pauses: int
    early: int  # pauses before the sound began: the line's echo, or an onset set too late


def trial(
    name: str,
    sound: Samples,
    answer: Samples,
    net: SileroNet,
    echo_db: float | None,
    after_ms: int,
    begins: int,
    noise: float = 25.0,
) -> Trial:
    """One sound, which begins at its sample `begins`, over one answer."""
    rng = np.random.default_rng(1)
    lead = int(LEAD_S * SAMPLE_RATE)
    caller = rng.standard_normal(lead + len(sound) + int(TAIL_S * SAMPLE_RATE)) * noise
    caller[lead : lead + len(sound)] += sound
    start = lead + begins
    path = Interruption(net, after_ms)
    echo = np.zeros(len(caller) + FRAME_SAMPLES)
    gain, delay = 10 ** ((echo_db if echo_db is not None else -200) / 20), int(0.14 * SAMPLE_RATE)
    at, paused, first, pauses, early = 0, False, None, 0, 0
    for now in range(0, len(caller) - FRAME_SAMPLES, FRAME_SAMPLES):
        heard = caller[now : now + FRAME_SAMPLES] + echo[now : now + FRAME_SAMPLES]
        verdict = path.hear(np.clip(heard, -32768, 32767).astype("<i2").tobytes(), answering=True)
        if verdict is Verdict.PAUSE:
            paused = True
            if now < start:
                early += 1
            else:
                pauses += 1
                first = (now + FRAME_SAMPLES - start) / 16 if first is None else first
        elif verdict is Verdict.RESUME:
            paused = False
        elif verdict is Verdict.INTERRUPT:
            return Trial(name, first, True, pauses, early)
        said = np.zeros(FRAME_SAMPLES, np.int16)
        if not paused:
            said = answer[at : at + FRAME_SAMPLES]
            at += FRAME_SAMPLES
        path.said(said.astype("<i2").tobytes())
        place = now + delay
        room = min(FRAME_SAMPLES, len(echo) - place)
        if room > 0:
            echo[place : place + room] += gain * said[:room]
    return Trial(name, first, False, pauses, early)


def report(kind: str, trials: list[Trial]) -> None:
    found = sorted(t.pause_ms for t in trials if t.pause_ms is not None)
    line = f"{kind:24s} n {len(trials):4d}  paused {len(found):4d}  stopped {sum(t.stopped for t in trials):4d}"
    if found:
        line += f"  onset->pause p50 {np.percentile(found, 50):5.0f} p95 {np.percentile(found, 95):5.0f} ms"
    print(line + f"  paused early {sum(t.early for t in trials)}")


def sounds(folder: Path, limit: int, longest_s: float) -> Iterator[tuple[str, Samples]]:
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in (".wav", ".ogg", ".flac")]
    for path in paths[:: max(1, len(paths) // limit)][:limit]:
        sound = load(path)[: int(longest_s * SAMPLE_RATE)]
        if len(sound) and np.abs(sound).max() > SILENT:  # among prompts there are seconds of silence
            yield path.name, sound


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voices", type=Path, default=SOUNDS)
    parser.add_argument("--noises", type=Path, nargs="*", default=[])
    parser.add_argument("--answer", type=Path, default=FOLDER / "garage-call" / "agent.wav")
    parser.add_argument("--echo-db", type=float)
    parser.add_argument("--interrupt-after-ms", type=int, default=700)
    parser.add_argument("--limit", type=int, default=60)
    arguments = parser.parse_args()
    net, answer = SileroNet(), load(arguments.answer)
    answer = answer[onset(answer) :]

    def run(name: str, sound: Samples, begins: int | None = None) -> Trial:
        begins = onset(sound) if begins is None else begins
        return trial(name, sound, answer, net, arguments.echo_db, arguments.interrupt_after_ms, begins)

    voices = list(sounds(arguments.voices, arguments.limit, 4.0))
    report("one spoken word", [run(*voice) for voice in voices])
    rng = np.random.default_rng(2)
    # A train begins where its first word does: a louder word later must not hide a quiet first one.
    trains = [[voices[i][1] for i in rng.choice(len(voices), 5)] for _ in range(arguments.limit)]
    report("five spoken words", [run("train", np.concatenate(train), onset(train[0])) for train in trains])
    report("hummed 'mhm'", [run(f"{p:.0f} Hz", hummed(p, rng)) for p in np.linspace(90, 260, 20)])
    for folder in arguments.noises:
        report(folder.name, [run(*noise) for noise in sounds(folder, arguments.limit, 4.0)])


if __name__ == "__main__":
    main()
