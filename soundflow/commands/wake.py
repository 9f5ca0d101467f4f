"""`offhook soundflow wake FOLDER`: streams for the tier that decides, out of whole recordings."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from calls.audio import SAMPLE_RATE
from calls.settings import Settings
from soundflow import config, synth, tones
from soundflow.clips import DIGITS, Clips, Rules
from soundflow.commands.shared import bar, material, parser
from soundflow.items import Split
from soundflow.material import Material
from soundflow.policy import SOUNDS
from soundflow.shards import shard_path, sweep, write
from soundflow.speech import SpeechError
from soundflow.wake import DIGIT, MUSIC, QUIET, SOUND, SPEECH, Heard, Pcm, line, stream

log = logging.getLogger(__name__)
T = TypeVar("T")

PER_SHARD = 25
SENTENCES = (
    "Good morning, I would like to speak to someone about my bill.",
    "Can you tell me when my parcel arrives?",
    "Hello?",
    "Yes, that is right.",
    "No, thank you.",
    "My internet has not worked since Monday evening.",
    "Could you please repeat that?",
    "I want to cancel my contract.",
    "Thank you very much, goodbye.",
    "Is there anybody there?",
    "How much does it cost?",
    "Please connect me to a colleague.",
    "Why was I charged twice?",
    "One moment, I have to look for it.",
)
_SYNTHETIC = 10  # examples of each synthesised sound and tone
_MUSIC = 400  # pieces of music; 28 s of one are 2 MB
_SPOKEN = 10  # sentences a voice
_LONGEST_S = 8  # of a recording of speech
_ALARMS = {"smoke_alarm": synth.smoke_alarm, "siren": synth.siren}


def main(arguments: Sequence[str], settings: Settings) -> int:
    options = parser("wake", "Streams that teach when to wake: whole recordings at any onset. Goes on where it was.")
    options.add_argument("folder", type=Path, help="where the shards go")
    options.add_argument("--config", default="compact", help="whose recordings and voices to use (%(default)s)")
    options.add_argument("--items", type=int, default=600, help="train streams of 28 s (%(default)s)")
    options.add_argument("--dev", type=int, default=100, help="dev streams (%(default)s)")
    options.add_argument("--dev-fold", type=int, help="this fold of ESC-10 is dev, instead of some of all sources")
    options.add_argument(
        "--whole", action="store_true", help="nothing aside for dev: the last run, when all is chosen; test stays aside"
    )
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args(arguments)
    rules = Rules(dev_folds=() if given.dev_fold is None else (given.dev_fold,))
    if given.whole:
        rules = Rules(dev_share=0.0, dev_speakers=())
    chosen = material(config.load(given.config), given.home, settings, rules)
    given.folder.mkdir(parents=True, exist_ok=True)
    sweep(given.folder)
    if unknown := Counter(c.label for c in chosen.clips.clips if c.group == "sound" and c.label not in SOUNDS):
        listed = ", ".join(f"{label} ({count})" for label, count in sorted(unknown.items()))
        print(f"the sound policy says nothing of these recordings, so they are not used: {listed}")
    plan: list[tuple[Split, int]] = [("train", given.items), ("dev", 0 if given.whole else given.dev)]
    for split, count in plan:
        shards = -(-count // PER_SHARD)
        missing = [number for number in range(shards) if not shard_path(given.folder, split, number).is_file()]
        if not missing:
            continue
        with bar(f"{split}: recordings and voices") as tell:
            pools = pools_of(chosen, split, given.seed, tell)
        with bar(f"{split} streams") as tell:
            for number in missing:
                numbers = range(number * PER_SHARD, min((number + 1) * PER_SHARD, count))
                seeds = [(given.seed * 2 + (split == "dev")) * 1_000_000 + n for n in numbers]
                items = [stream(f"wake-{split}-{seed}", pools, seed, split) for seed in seeds]
                write(given.folder, split, number, items)
                tell(missing.index(number) + 1, len(missing), "")
    return 0


def pools_of(
    chosen: Material, split: Split, seed: int, progress: Callable[[int, int, str], None] | None = None
) -> dict[str, list[Heard]]:
    """The recordings of one split, and what is synthesised for it. `progress`: (done, in all, what), in recordings and
    sentences."""
    rng = np.random.default_rng([seed, split == "dev"])
    clips: Clips = chosen.clips
    known = [clip for clip in clips.of("sound", split) if clip.label in SOUNDS]
    numbers, talk, voices = clips.of("digit", split), clips.of("speech", split), chosen.cast.voices(split)
    step = _Steps(len(known) + len(numbers) + len(talk) + len(voices) * (len(DIGITS) + _SPOKEN) + _MUSIC, progress)
    sounds = [Heard(SOUND, c.label, "", clips.audio(c), c.source) for c in step(known)]
    sounds += [
        Heard(SOUND, label, "", _faded(rng, make(rng, float(rng.uniform(3, 5)))), "synth")
        for label, make in _ALARMS.items()
        for _ in range(_SYNTHETIC)
    ]
    digits = [Heard(DIGIT, c.text, c.text, clips.audio(c), c.source) for c in step(numbers)]
    longest = _LONGEST_S * SAMPLE_RATE
    speech = [Heard(SPEECH, "speech", c.text or "speech", clips.audio(c)[:longest], c.source) for c in step(talk)]
    for voice in voices:
        digits += [Heard(DIGIT, d, d, pcm, voice) for d, pcm in _said(chosen, voice, step(DIGITS), "{}.")]
        some = [SENTENCES[n] for n in rng.choice(len(SENTENCES), _SPOKEN, replace=False)]
        speech += [Heard(SPEECH, "speech", text, pcm, voice) for text, pcm in _said(chosen, voice, step(some))]
    return {SOUND: sounds, DIGIT: digits, SPEECH: speech, QUIET: list(_quiet(chosen, split, rng, step))}


class _Steps:
    """Counts what is gone through, all loops together."""

    def __init__(self, total: int, progress: Callable[[int, int, str], None] | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def __call__(self, things: Iterable[T]) -> Iterator[T]:
        for thing in things:
            yield thing
            self._done += 1
            if self._progress:
                self._progress(self._done, self._total, "")


def _said(chosen: Material, voice: str, texts: Iterable[str], form: str = "{}") -> Iterator[tuple[str, Pcm]]:
    """What a voice said of these texts; without what was not understood."""
    for text in texts:
        try:
            yield text, chosen.speech.say(form.format(text), [voice]).pcm
        except SpeechError as error:
            log.info("%s", error)


def _quiet(chosen: Material, split: Split, rng: np.random.Generator, step: _Steps) -> Iterator[Heard]:
    """What a line carries when nobody means anything."""
    countries = sorted(tones.PLANS)
    for _ in range(_SYNTHETIC):
        for name in ("ringback", "busy", "dial"):
            country = countries[int(rng.integers(len(countries)))]
            if name in tones.PLANS[country]:
                yield _tone(name, _faded(rng, tones.progress_tone(country, name, float(rng.uniform(4, 7)))))
        yield _tone("fax", _faded(rng, tones.fax_calling(4.0)))
        yield _tone("fax_answer", _faded(rng, tones.fax_answer()))
        yield _tone("voicemail_beep", _faded(rng, tones.voicemail_beep(rng.uniform(800, 1_400), rng.uniform(0.3, 1.0))))
        keys = "".join(rng.choice(list("0123456789*#"), int(rng.integers(1, 8))))
        yield _tone("dtmf", _faded(rng, tones.dtmf(keys)))
        yield _tone("line_noise", _faded(rng, line(rng, int(rng.uniform(2, 8) * SAMPLE_RATE)) + np.float32(1e-6)))
    for _ in step(range(_MUSIC)):
        event = chosen.music(rng, split, float(rng.uniform(3, 11) if rng.random() < 0.7 else 28.0))
        yield _tone(MUSIC, event.pcm, *event.sources)


def _tone(label: str, pcm: Pcm, source: str = "synth", *_: str) -> Heard:
    return Heard(QUIET, label, "", pcm, source)


def _faded(rng: np.random.Generator, pcm: Pcm) -> Pcm:
    """At any level that a line has."""
    peak = float(np.abs(pcm).max()) or 1.0
    return np.asarray(pcm * (rng.uniform(0.03, 0.4) / peak), np.float32)
