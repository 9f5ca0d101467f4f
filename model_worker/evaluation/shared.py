"""What the commands of this package ask for and show."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Told = Callable[[int], None]
"""Is told how much more is done."""


def positive(text: str) -> float:
    """An argument that is a number more than 0. Raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number more than 0, not {text}")
    return value


def natural(text: str) -> int:
    """An argument that is a whole number from 0 on. Raises ArgumentTypeError."""
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from error
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {text}")
    return value


@contextmanager
def bar(what: str, total: int, keep: bool = True) -> Iterator[Told]:
    """A progress bar on standard error, which stays there at its end. One that is not kept is wiped, and where standard
    error is no terminal, nothing is written."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    shown = keep or console.is_interactive
    with Progress(*columns, *times, console=console, transient=not keep, disable=not shown) as progress:
        task = progress.add_task(what, total=total)
        yield lambda more: progress.advance(task, more)
