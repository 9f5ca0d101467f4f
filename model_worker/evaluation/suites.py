"""`python -m model_worker.evaluation.suites DIR --sounds ... --digits ...`: the suites that `offhook eval` plays.

Each suite is DIR/NAME.jsonl with its audio in DIR/NAME/. The same sources and seed give the same files. soundflow
trains on none of the sounds, digits and prompts that are used. Models were chosen by looking at fold 4 and theo, never
at fold 5 and yweweler. Hold music is not kept apart: soundflow trains on four of the five pieces of the default folder.

    single          one sound in a stream
    five            five sounds in a stream, 0.8 to 2.4 s of quiet room between them
    concat-1 ... 5  so many sounds joined without a pause; the same sounds in each
    late-5s, late   the same sounds at second 5, and at minute 10 of a quiet line
    recognition     recorded telephone prompts
    digits          one spoken digit
    instruction     tell me when; count; find a word: with distractors, and streams without what is asked for
    silence, line-noise, hold-music, telephone   nothing to respond to, for an hour (the tones: ten minutes)
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from calls.errors import OffhookError
from model_worker.evaluation import composing, sources
from model_worker.evaluation.composing import Rng, Suite
from model_worker.evaluation.line import line_noise, quiet_room, tones
from model_worker.evaluation.sources import Clip

PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")  # Debian: asterisk-core-sounds-en-wav
TEXTS = Path(__file__).with_name("prompts.tsv")  # of PROMPTS
MUSIC = Path("/usr/share/asterisk/moh")  # Debian: asterisk-moh-opsound-wav

Fill = Callable[[Suite, Rng], None]
SOUND_ASKED = "Tell me when you hear this sound: {}. Stay silent at anything else."
SOUND_COUNTED = "Each time you hear this sound, say how many times it has come: {}. Stay silent at anything else."
WORD_ASKED = "When somebody says the number {}, repeat it. Stay silent at anything else."


def of_sounds(clips: Sequence[Clip], minutes: float, seed: int) -> Iterator[tuple[str, Fill]]:
    mixed = [clips[i] for i in np.random.default_rng(seed).permutation(len(clips))]
    few = composing.one_a_class(clips)
    yield "single", lambda suite, rng: composing.single(suite, clips)
    yield "five", lambda suite, rng: composing.several(suite, mixed, 5, True, rng)
    for count in range(1, 6):
        yield f"concat-{count}", lambda suite, rng, n=count: composing.several(suite, mixed, n, False, rng)  # type: ignore[misc]
    yield "late-5s", lambda suite, rng: composing.late(suite, few, 5.0, rng)
    yield "late", lambda suite, rng: composing.late(suite, few, minutes * 60, rng)


def of_instructions(clips: Sequence[Clip], words: Sequence[Clip]) -> Iterator[tuple[str, Fill]]:
    def fill(suite: Suite, rng: Rng) -> None:
        if clips:
            composing.one_wanted(suite, clips, SOUND_ASKED, rng)
            composing.counted(suite, clips, SOUND_COUNTED, rng)
        if words:
            composing.one_wanted(suite, words, WORD_ASKED, rng)

    if clips or words:
        yield "instruction", fill


def of_nothing(hours: float, music: Sequence[Path]) -> Iterator[tuple[str, Fill]]:
    yield "silence", lambda suite, rng: composing.nothing(suite, "silence", hours, quiet_room, rng)
    yield "line-noise", lambda suite, rng: composing.nothing(suite, "line_noise", hours, line_noise, rng)
    yield "telephone", lambda suite, rng: composing.nothing(suite, "telephone", hours / 6, tones, rng)
    if music:
        yield (
            "hold-music",
            lambda suite, rng: composing.nothing(suite, "hold_music", hours, composing.looped(music), rng),
        )


def build(options: argparse.Namespace) -> Iterator[Suite]:
    """Every suite for which there are sources, written. Raises SourceError, AudioError, OSError."""
    sounds = sources.sounds(options.sounds, options.fold) if options.sounds else []
    digits = sources.digits(options.digits, options.speaker) if options.digits else []
    prompts = sources.prompts(options.prompts, options.texts) if options.prompts.is_dir() else []
    music = sources.music(options.music) if options.music.is_dir() else []
    fills: list[tuple[str, Fill]] = []
    if sounds:
        fills += of_sounds(sounds, options.minutes, options.seed)
    if prompts:
        fills.append(("recognition", lambda suite, rng: composing.spoken(suite, prompts, "recognition")))
    if digits:
        fills.append(("digits", lambda suite, rng: composing.spoken(suite, digits, "digits")))
    fills += of_instructions(sounds, digits)
    fills += of_nothing(options.hours, music)
    for name, fill in fills:
        if options.only and name not in options.only:
            continue
        suite = Suite(options.folder, name)
        # A generator of its own: a suite does not depend on which others are built.
        fill(suite, np.random.default_rng([options.seed, zlib.crc32(name.encode())]))
        suite.save()
        yield suite


def main(given: Sequence[str] | None = None) -> int:
    text, _, table = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m model_worker.evaluation.suites",
        description=text,
        epilog=table,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--sounds", type=Path, help="ESC-50, or a folder a class of its ESC-10")
    parser.add_argument("--digits", type=Path, help="the recordings of free-spoken-digit-dataset")
    parser.add_argument(
        "--fold",
        type=int,
        choices=sources.FOLDS,
        default=sources.FOLDS[0],
        help="of ESC-50; by 4 models were chosen, by 5 none (default: %(default)s)",
    )
    parser.add_argument(
        "--speaker",
        choices=sources.SPEAKERS,
        default=sources.SPEAKERS[0],
        help="of the digits (default: %(default)s)",
    )
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="recorded prompts (default: %(default)s)")
    parser.add_argument("--texts", type=Path, default=TEXTS, help="what they say: name, tab, text")
    parser.add_argument(
        "--music",
        type=Path,
        default=MUSIC,
        help="hold music; soundflow trains on most of this one (default: %(default)s)",
    )
    parser.add_argument("--hours", type=float, default=1.0, help="of silence, line noise and music each")
    parser.add_argument("--minutes", type=float, default=10.0, help="before the late sounds")
    parser.add_argument("--only", nargs="*", help="these suites")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(given)
    try:
        for suite in build(options):
            print(f"{suite.folder / suite.name}.jsonl: {len(suite.lines)} items")
    except (OffhookError, OSError) as error:
        print(f"suites: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
