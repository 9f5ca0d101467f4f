"""Pictures, by matplotlib (the extra `soundflow`): a clip before and after, the plots of a data card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calls.audio import CHUNK_S, SAMPLE_RATE
from soundflow.errors import SoundflowError
from soundflow.items import EITHER, RESPOND, Item
from soundflow.preprocess import Pcm, Step, stft
from soundflow.whole import writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _SPEAK, _MAYBE = "#24465f", "#c2452d", "#e8b04a"
_DPI = 110


class NoPictures(SoundflowError):
    """There is no matplotlib to draw with."""


def steps_picture(steps: Sequence[Step], path: Path, title: str) -> None:
    """A row a step: what it sounds like in time, and in time and frequency."""
    longest = max(len(step.pcm) for step in steps) / SAMPLE_RATE
    figure, axes = _figure(len(steps), 2, (11.0, 1.5 * len(steps) + 0.6))
    for row, step in zip(axes, steps, strict=True):
        seconds = len(step.pcm) / SAMPLE_RATE
        row[0].plot(np.arange(len(step.pcm)) / SAMPLE_RATE, step.pcm, color=_INK, linewidth=0.4)
        row[0].set_xlim(0, longest)
        row[0].set_ylabel(step.name)
        row[0].set_title(step.note, fontsize=8, loc="left")
        row[1].imshow(_decibels(step.pcm), origin="lower", aspect="auto", extent=(0, seconds, 0, 8), cmap="magma")
        row[1].set_xlim(0, longest)
        row[1].set_ylabel("kHz")
    _save(figure, path, title)


def item_picture(item: Item, path: Path) -> None:
    """A stream and what is right at each of its Chunks."""
    figure, axes = _figure(2, 1, (12.0, 4.0))
    wave, spectrum = axes[0][0], axes[1][0]
    pcm = item.audio.astype(np.float32) / 32768.0
    wave.plot(np.arange(len(pcm)) / SAMPLE_RATE, pcm, color=_INK, linewidth=0.3)
    for chunk, label in enumerate(item.labels()):
        if label in (RESPOND, EITHER):
            begin = chunk * CHUNK_S
            wave.axvspan(begin, begin + CHUNK_S, color=_SPEAK if label == RESPOND else _MAYBE, alpha=0.5)
    for turn in item.turns:
        if not turn.bed:
            wave.annotate(turn.heard[:24], (turn.begin_s, wave.get_ylim()[1]), fontsize=7, rotation=20)
    for chunk, (_, text) in item.replies().items():
        wave.annotate(f"> {text[:30]}", ((chunk + 1) * CHUNK_S, wave.get_ylim()[0]), fontsize=7, color=_SPEAK)
    wave.set_xlim(0, item.seconds)
    spectrum.imshow(_decibels(pcm), origin="lower", aspect="auto", extent=(0, item.seconds, 0, 8), cmap="magma")
    spectrum.set_ylabel("kHz")
    spectrum.set_xlabel("seconds")
    _save(figure, path, f"{item.task}: {item.instruction[:110]}")


def bars(values: Mapping[str, float], path: Path, title: str, unit: str) -> None:
    """One bar a name, the first on top."""
    figure, axes = _figure(1, 1, (8.0, 0.27 * len(values) + 1.0))
    axis: Axes = axes[0][0]
    axis.barh(range(len(values)), list(values.values()), color=_INK)
    axis.set_yticks(range(len(values)), list(values), fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel(unit)
    _save(figure, path, title)


def histogram(values: Sequence[float], path: Path, title: str, unit: str) -> None:
    figure, axes = _figure(1, 1, (7.0, 3.0))
    axes[0][0].hist(values, bins=40, color=_INK)
    axes[0][0].set_xlabel(unit)
    _save(figure, path, title)


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NoPictures("pictures need matplotlib: pip install 'offhook[soundflow]'") from error
    figure = Figure(figsize=size, dpi=_DPI)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Any, path: Path, title: str) -> None:
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    with writing(path) as partial:
        figure.savefig(partial, format=path.suffix[1:] or "png")


def _decibels(pcm: Pcm) -> Any:
    """[frequencies, windows], 80 dB deep; thinned out for long audio."""
    magnitudes = np.abs(stft(pcm))
    magnitudes = magnitudes[:: max(1, len(magnitudes) // 2_000)]
    level = 20 * np.log10(magnitudes.T + 1e-7)
    return np.maximum(level, level.max() - 80)
