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
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from calls.errors import OffhookError
from model_worker.evaluation import sources
from model_worker.evaluation.composing import Suite
from model_worker.evaluation.plans import NEEDS, Material, Plan, choose, plans
from model_worker.evaluation.shared import Told, bar, natural, positive
from model_worker.evaluation.sources import Clip, SourceError

PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")  # Debian: asterisk-core-sounds-en-wav
TEXTS = Path(__file__).with_name("prompts.tsv")  # of PROMPTS
MUSIC = Path("/usr/share/asterisk/moh")  # Debian: asterisk-moh-opsound-wav


def gather(options: argparse.Namespace) -> Material:
    """What is in the folders that were given and in the default ones. Only a default one may lack what it should hold.
    Raises SourceError, OSError."""
    missing = {option: f"--{option}" for option in ("sounds", "digits") if getattr(options, option) is None}
    prompts: Sequence[Clip] = []
    music: Sequence[Path] = []
    try:
        prompts = sources.prompts(options.prompts or PROMPTS, options.texts or TEXTS)
    except SourceError as error:
        if options.prompts or options.texts:
            raise
        missing["prompts"] = f"--prompts ({error})"
    try:
        music = sources.music(options.music or MUSIC)
    except SourceError as error:
        if options.music:
            raise
        missing["music"] = f"--music ({error})"
    return Material(
        sounds=sources.sounds(options.sounds, options.fold) if options.sounds else [],
        digits=sources.digits(options.digits, options.speaker) if options.digits else [],
        prompts=prompts,
        music=music,
        missing=missing,
    )


def make(plan: Plan, folder: Path, seed: int, told: Told) -> Suite:
    """The suite, written. Raises AudioError, NotWritten."""
    suite = Suite(folder, plan.name, told)
    suite.begin()
    # A generator of its own: a suite does not depend on which others are made.
    plan.fill(suite, np.random.default_rng([seed, zlib.crc32(plan.name.encode())]))
    suite.save()
    return suite


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
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
    parser.add_argument("--prompts", type=Path, help=f"recorded prompts (default: {PROMPTS})")
    parser.add_argument("--texts", type=Path, help="what they say: name, tab, text (default: of the default prompts)")
    parser.add_argument(
        "--music", type=Path, help=f"hold music; soundflow trains on most of this one (default: {MUSIC})"
    )
    parser.add_argument("--hours", type=positive, default=1.0, help="of silence, line noise and music each")
    parser.add_argument("--minutes", type=positive, default=10.0, help="before the late sounds")
    parser.add_argument("--only", nargs="+", choices=list(NEEDS), default=[], metavar="SUITE", help="these suites")
    parser.add_argument("--seed", type=natural, default=0)
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(given)
    try:
        material = gather(options)
        all_plans = plans(material, options.hours, options.minutes, options.seed)
        chosen, skipped = choose(all_plans, options.only, material.missing)
        for line in skipped:
            print(f"suites: skipped {line}", file=sys.stderr)
        for plan in chosen:
            with bar(plan.name, plan.items, keep=False) as told:
                suite = make(plan, options.folder, options.seed, told)
            print(f"{suite.folder / suite.name}.jsonl: {len(suite.lines)} items", flush=True)
    except (OffhookError, OSError) as error:
        print(f"suites: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
