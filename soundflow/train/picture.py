"""Learning curves, by matplotlib (the extra `soundflow`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from soundflow.whole import writing

SHOWN = (("loss", "loss"), ("words", "of words"), ("control", "of decisions"), ("accuracy", "balanced accuracy"))
_DPI = 110


def curve_picture(points: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Loss, its two terms and the trigger accuracy over all stages' steps, as PNG. Raises ImportError, NotWritten."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 6.0), dpi=_DPI, layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(2, 2)
    steps, borders = _steps(points)
    for (name, label), axis in zip(SHOWN, axes.flat, strict=True):
        pairs = [(step, point[name]) for step, point in zip(steps, points, strict=True) if point[name] is not None]
        axis.plot([step for step, _ in pairs], [value for _, value in pairs], color="#24465f")
        axis.set_title(label, fontsize=9, loc="left")
        axis.set_xlabel("step")
        for at, stage in borders:
            axis.axvline(at, color="#c2452d", linewidth=0.6)
            axis.annotate(stage, (at, 1.0), xycoords=("data", "axes fraction"), fontsize=7, va="top")
    with writing(path) as partial:
        figure.savefig(partial, format="png")


def _steps(points: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[tuple[int, str]]]:
    """Steps counted through all stages, and where each stage begins."""
    steps: list[int] = []
    borders: list[tuple[int, str]] = []
    before = 0
    for number, point in enumerate(points):
        if number == 0 or point["stage"] != points[number - 1]["stage"]:
            before = steps[-1] if steps else 0
            borders.append((before, point["stage"]))
        steps.append(before + point["step"])
    return steps, borders
