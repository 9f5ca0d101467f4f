"""What several commands ask for and show."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from calls.settings import Settings
from soundflow.clips import SHORTEST_S, Rules
from soundflow.config import Config
from soundflow.items import SPLITS
from soundflow.material import Material
from soundflow.sources import HOME, database
from soundflow.speech import Speech

MODEL = "a directory, `small` or `compact`"
"""What names a trained model."""


def parser(name: str, about: str, *examples: str) -> argparse.ArgumentParser:
    """`examples`: what may stand after the command's name."""
    shown = "\n".join(f"  offhook soundflow {name} {example}".rstrip() for example in examples)
    return argparse.ArgumentParser(
        prog=f"offhook soundflow {name}",
        description=about,
        epilog=f"examples:\n{shown}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_home(options: argparse.ArgumentParser) -> None:
    options.add_argument("--home", type=Path, default=HOME, help="where recordings and speech are kept (%(default)s)")


def share(text: str) -> float:
    """An argument from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return value


def between(text: str) -> float:
    """An argument more than 0 and less than 1."""
    value = _number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError("must be more than 0 and less than 1")
    return value


def positive(text: str) -> int:
    """An argument that is a whole number from 1 on."""
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def natural(text: str) -> int:
    """An argument that is a whole number from 0 on."""
    value = _whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return value


def length(text: str) -> float:
    """An argument that is a length of sound, in seconds."""
    value = _number(text)
    if not SHORTEST_S <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be {SHORTEST_S} seconds or more")
    return value


def png(text: str) -> Path:
    """An argument that is a picture to be written."""
    if Path(text).suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"{text!r}: a file that ends in .png")
    return Path(text)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error


def material(config: Config, home: Path, settings: Settings, rules: Rules | None = None) -> Material:
    """Raises SoundflowError when recordings that the configuration wants are missing, or espeak-ng, or a voice;
    ModelMissing for what its voices need."""
    home = home.expanduser()
    speech = Speech(home / "speech", settings.models, check=config.check)
    speech.ready([voice for split in SPLITS for voice in config.cast.voices(split)])
    with bar("recordings read") as tell:
        clips = database(config.material, home, rules, tell)
    return Material(clips, speech, config.cast)


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on standard error, as a function (done, total, what was just done)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=None)

        def tell(done: int, total: int, now: str) -> None:
            progress.update(task, completed=done, total=total or None)

        yield tell
