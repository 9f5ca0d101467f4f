"""`offhook soundflow wake FOLDER`: streams for the tier that decides, out of whole recordings."""

from __future__ import annotations

import argparse
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from calls.audio import SAMPLE_RATE
from calls.settings import Settings
from soundflow import config, synth, tones
from soundflow.clips import DIGITS, Clips, Rules
from soundflow.commands.shared import MODEL, add_home, bar, material, natural, parser, share
from soundflow.errors import SoundflowError
from soundflow.items import Item, Split
from soundflow.material import Material
from soundflow.policy import SOUNDS
from soundflow.shards import Shard, begin, finished, shard_path, write
from soundflow.speech import NotUnderstood
from soundflow.wake import CARRIED, DIGIT, MUSIC, QUIET, SOUND, SPEECH, TELEPHONE, Heard, Pcm, line, stream
from soundflow.whole import sweep

log = logging.getLogger(__name__)
T = TypeVar("T")

PER_SHARD = 25
BEGUN = "wake.json"  # what a folder was begun with
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
_SYNTHETIC = 10  # examples of each synthesised tone
_MADE = 24  # of each synthesised sound
_MUSIC = 400  # pieces of music; 28 s of one are 2 MB
TRIED = 40  # streams for each hard one, before it is said that there are no more
_MOST_HARD = 20_000  # streams of one seed: each shard tries seeds of its own
_SPOKEN = 10  # sentences a voice
_LONGEST_S = 8  # of a recording of speech
_SOUNDS_MADE = (
    *("smoke_alarm", "siren", "fire_crackling", "chainsaw"),
    *("crackle", "rain", "wind", "sea_waves", "clock_tick", "engine", "helicopter", "hum"),
)
"""Classes that are synthesised as well: alarms, of which there are few recordings, fires and chainsaws, which are hard
to tell through a telephone, and what they are mistaken for."""


def main(arguments: Sequence[str], settings: Settings) -> int:
    options = parser(
        "wake",
        "Streams that teach when to wake: whole recordings at any onset. Goes on where it was.",
        "--dev-fold 3 wake-dev",
        "--whole --items 4000 wake",
        "--whole --hard small --carried 0.8 --items 400 --seed 2 hard",
    )
    add_home(options)
    options.add_argument("folder", type=Path, help="where the shards go")
    options.add_argument("--config", default="compact", help="whose recordings and voices to use (%(default)s)")
    options.add_argument("--items", type=natural, default=600, help="train streams of 28 s (%(default)s)")
    options.add_argument("--dev", type=natural, default=100, help="dev streams (%(default)s)")
    options.add_argument("--dev-fold", type=int, help="this fold of ESC-10 is dev, instead of some of all sources")
    options.add_argument(
        "--whole", action="store_true", help="nothing aside for dev: the last run, when all is chosen; test stays aside"
    )
    options.add_argument(
        "--carried", type=share, default=CARRIED, metavar="SHARE",
        help="of the streams that carry one thing all along: music, a bad line (%(default)s)",
    )  # fmt: skip
    options.add_argument(
        "--telephone", type=share, default=TELEPHONE, metavar="SHARE",
        help="of the streams that go through G.711 (%(default)s)",
    )  # fmt: skip
    options.add_argument(
        "--hard", default="", metavar="MODEL", help=f"only streams that this model ({MODEL}) gets wrong"
    )
    options.add_argument("--seed", type=natural, default=1, help="another seed, other streams (%(default)s)")
    given = options.parse_args(arguments)
    rules = Rules(dev_folds=() if given.dev_fold is None else (given.dev_fold,))
    if given.whole:
        rules = Rules(dev_share=0.0, dev_speakers=())
    if given.hard and given.items > _MOST_HARD:
        options.error(f"--hard finds {_MOST_HARD} streams at most: take another --seed and another folder for more")
    choose = _chooser(given.hard, settings) if given.hard else None
    chosen = material(config.load(given.config), given.home, settings, rules)
    if not (given.folder / BEGUN).is_file() and any(given.folder.glob("*.shard")):
        raise SoundflowError(f"{given.folder} holds shards of something else; name an empty or a new folder")
    begin(given.folder / BEGUN, _told(given, chosen))
    sweep(given.folder)
    if unknown := Counter(c.label for c in chosen.clips.clips if c.group == "sound" and c.label not in SOUNDS):
        listed = ", ".join(f"{label} ({count})" for label, count in sorted(unknown.items()))
        print(f"the sound policy says nothing of these recordings, so they are not used: {listed}")
    plan: list[tuple[Split, int]] = [("train", given.items), ("dev", 0 if given.whole else given.dev)]
    for split, count in plan:
        shards = -(-count // PER_SHARD)
        sizes = [min(PER_SHARD, count - number * PER_SHARD) for number in range(shards)]
        missing = [number for number, size in enumerate(sizes) if not _is_there(given, split, number, size)]
        if not missing:
            continue
        with bar(f"{split}: recordings and voices") as tell:
            pools = pools_of(chosen, split, given.seed, tell)
        few = 0
        with bar(f"{split} streams") as tell:
            step = _Steps(sum(sizes[number] for number in missing), tell)
            for number in missing:
                # What is measured on is as it comes: only what is learnt from is chosen.
                made = _streams(given, pools, split, number, sizes[number], choose if split == "train" else None)
                items = list(step(made))
                if not items:
                    raise SoundflowError(
                        f"{given.hard} got none of {sizes[number] * TRIED} streams wrong: it needs other ones"
                    )
                few += sizes[number] - len(items)
                write(given.folder, split, number, items)
        if few:
            print(f"{given.hard} gets too little wrong: {few} of {count} {split} streams were not found")
    return 0


def _is_there(given: argparse.Namespace, split: Split, number: int, size: int) -> bool:
    """Whether a shard is finished: one that is damaged is made anew, as is one that ended a shorter run when more
    streams are asked for. Of the hard ones there may be no more, so a short shard of them stays."""
    path = shard_path(given.folder, split, number)
    return finished(path) and (len(Shard(path)) >= size or bool(given.hard and split == "train"))


def _streams(
    given: argparse.Namespace,
    pools: Mapping[str, Sequence[Heard]],
    split: Split,
    number: int,
    count: int,
    choose: Callable[[Sequence[Item]], list[Item]] | None,
) -> Iterator[Item]:
    """Of one shard: `count` streams, or as many as `choose` finds hard."""
    base = (given.seed * 2 + (split == "dev")) * 1_000_000

    def make(seed: int) -> Item:
        name = f"wake-{split}-{seed}"
        return stream(name, pools, seed, split, carried=given.carried, telephone_share=given.telephone)

    if choose is None:
        return (make(base + number * PER_SHARD + n) for n in range(count))
    from soundflow.hard import draw  # with torch, which composing does without

    return draw(make, base + number * PER_SHARD * TRIED, count, count * TRIED, choose)


def _told(given: argparse.Namespace, chosen: Material) -> dict[str, Any]:
    """What must not change while a folder is being filled; that there are to be more streams may."""
    configured = json.loads(json.dumps(config.load(given.config).as_dict()))
    told = {"clips": chosen.clips.fingerprint(), "hard": "", "config": configured}
    if given.hard:
        from soundflow.train.start import fingerprint  # with torch

        told["hard"] = fingerprint(given.hard)
    return told | {name: getattr(given, name) for name in ("seed", "carried", "telephone")}


def _chooser(model: str, settings: Settings) -> Callable[[Sequence[Item]], list[Item]]:
    """Which streams the model gets wrong. Imports torch."""
    from model_worker.catalogue import Catalogue
    from soundflow.hard import Judge
    from soundflow.train.start import trained

    return Judge(trained(model, Catalogue(settings.models).path)).hard


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
        Heard(SOUND, label, "", _faded(rng, synth.SYNTHESISED[label](rng, float(rng.uniform(3, 5)))), "synth")
        for label in _SOUNDS_MADE
        for _ in range(_MADE)
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
        except NotUnderstood as error:
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
