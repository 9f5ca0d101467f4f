"""`python -m model_worker.evaluation --manifest FILE.jsonl`: what `offhook eval` runs.

Exit status 1: the model or its weights cannot be had; 2: the manifest or its audio is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from rich.console import Console

from calls.audio import SAMPLE_RATE
from calls.errors import OffhookError
from calls.log import setup
from calls.settings import Settings
from model_worker.chosen import bound_threads
from model_worker.evaluation import manifest, picture
from model_worker.evaluation.audio import AudioError, Channel, chunks_of, samples
from model_worker.evaluation.figures import Figures, figures
from model_worker.evaluation.listening import listen
from model_worker.evaluation.manifest import Item, ManifestError
from model_worker.evaluation.models import Loaded, load
from model_worker.evaluation.report import show
from model_worker.evaluation.scoring import score
from model_worker.evaluation.shared import Told, bar


def lengths(path: Path, items: Sequence[Item]) -> list[int]:
    """Samples of each item's audio. Raises ManifestError with every item whose audio cannot be played, or ends before
    what is expected in it."""
    known: dict[Path, int | str] = {}
    wrong: list[str] = []
    for item in items:
        if item.path not in known:
            try:
                known[item.path] = samples(item.path)
            except AudioError as error:
                known[item.path] = str(error)
        length = known[item.path]
        if isinstance(length, str):
            wrong.append(f"line {item.line}: {length}")
            continue
        last = max(max(event.at_s, event.respond_after_s or 0.0) for event in item.events)
        if last > length / SAMPLE_RATE:
            wrong.append(f"line {item.line}: {item.audio} is {length / SAMPLE_RATE:.2f} s long, nothing is at {last} s")
    manifest.complain(path, wrong)
    return [length for item in items if isinstance(length := known[item.path], int)]


def evaluate(loaded: Loaded, items: Sequence[Item], sizes: Sequence[int], channel: Channel, told: Told) -> Figures:
    """The figures of all items, in the manifest's order."""
    length_of = {item.line: size / SAMPLE_RATE for item, size in zip(items, sizes, strict=True)}
    played = listen(loaded.model, items, channel, loaded.together, loaded.settle, told)
    scores = [score(heard, length_of[heard.item.line]) for heard in played]
    scores.sort(key=lambda one: one.item.line)
    return {"model": loaded.model.name, "channel": channel, **figures(scores)}


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="offhook eval", description="How well a model decides, and what it writes.")
    parser.add_argument("--manifest", type=Path, required=True, help="JSON lines: see docs/evaluation.md")
    parser.add_argument(
        "--model",
        default="",
        help="cascade, interaction:small, :compact or :DIR, cascade+interaction:small; default: OFFHOOK_MODEL",
    )
    parser.add_argument("--channel", choices=get_args(Channel), default="wideband", help="g711: through a telephone")
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the figures, too; needs matplotlib")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    options = _arguments(given)
    setup("WARNING", "evaluation")
    bound_threads()
    settings = Settings(**({"model": options.model} if options.model else {}))
    try:
        if options.picture:
            picture.check(options.picture)
        items = manifest.read(options.manifest)
        sizes = lengths(options.manifest, items)
        loaded = load(settings, os.environ)
        with bar("listening", sum(map(chunks_of, sizes))) as told:
            found = evaluate(loaded, items, sizes, options.channel, told)
        if options.picture:
            picture.draw(found, options.picture)
    except (ManifestError, AudioError) as error:
        print(f"offhook eval: {error}", file=sys.stderr)
        return 2
    except OffhookError as error:
        print(f"offhook eval: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(found))
    else:
        show(found, Console() if sys.stdout.isatty() else Console(width=120))
    return 0


if __name__ == "__main__":
    # The models' threads need not be waited for.
    try:
        status = main()
    except KeyboardInterrupt:
        status = 130
    sys.stdout.flush()
    os._exit(status)
