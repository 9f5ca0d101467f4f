"""The figures as one picture, by matplotlib (the extra `soundflow`): how well the model decides, at what, when, and how
often it speaks into nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calls.audio import CHUNK_S
from calls.errors import OffhookError
from model_worker.evaluation.figures import Figures

_RESPOND, _SILENT, _INK, _FAINT = "#c2452d", "#24465f", "#222222", "#8a8a8a"
_MOST_LABELS = 24  # the worst of them
_LATEST_S = 6.0  # a response farther from when it was due is put into the last bar
_DPI = 130


class NoPicture(OffhookError):
    """The picture cannot be drawn or written."""


def check(path: Path) -> None:
    """Before an hour of listening: whether a picture could be written there. Raises NoPicture."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise NoPicture("--picture needs matplotlib: pip install 'offhook[soundflow]'") from error
    if path.suffix.lower() != ".png":
        raise NoPicture(f"--picture {path}: a file that ends in .png")
    if not path.resolve().parent.is_dir():
        raise NoPicture(f"--picture {path}: there is no folder {path.parent}")


def draw(found: Figures, path: Path) -> None:
    """Write the picture of a run (figures.figures, with `model` and `channel`). Raises NoPicture."""
    from matplotlib.figure import Figure

    labels = _labels(found["items"])
    height = max(7.5, 4.2 + 0.24 * len(labels))
    figure = Figure(figsize=(12.5, height), dpi=_DPI, layout="constrained")
    grid = figure.add_gridspec(3, 2, width_ratios=(1.15, 1.0), height_ratios=(1.0, 1.0, 0.75))
    counts = found["counts"]
    minutes = counts["hours"] * 60
    figure.suptitle(
        f"{found['model']} on {found['channel']}: {counts['respond']} events to respond to, "
        f"{counts['silent']} to be silent at, in {minutes:.0f} minutes",
        fontsize=12, x=0.01, ha="left", fontweight="bold",
    )  # fmt: skip
    _balanced(figure.add_subplot(grid[0, 0]), found)
    _by_label(figure.add_subplot(grid[:, 1]), labels)
    _times(figure.add_subplot(grid[1, 0]), found)
    _wakes(figure.add_subplot(grid[2, 0]), found)
    try:
        figure.savefig(path)
    except OSError as error:
        raise NoPicture(f"{path} cannot be written: {error.strerror}") from error


def _balanced(axis: Any, found: Figures) -> None:
    """Of all and of each kind; where only one thing is expected, how often that was done."""
    rows = [("all", found), *(found["kinds"].items() if len(found["kinds"]) > 1 else ())]
    names = []
    for at, (name, part) in enumerate(rows):
        value, interval, what = _value(part)
        if value is None or interval is None:
            names.append(name)
            continue
        names.append(f"{name} ({what})" if what else name)
        color, hollow = (_FAINT, True) if what else (_INK, False)
        axis.plot([100 * edge for edge in interval], [at, at], color=color, linewidth=2.0, solid_capstyle="butt")
        axis.plot([100 * value], [at], "o", color=color, markerfacecolor="white" if hollow else color)
        axis.annotate(f"{100 * value:.0f} %", (100 * max(value, interval[1]), at), xytext=(7, 0),
                      textcoords="offset points", va="center", fontsize=9, color=color)  # fmt: skip
    axis.axvline(50, color=_RESPOND, linewidth=1.0, linestyle="--", zorder=0)
    axis.annotate("always silent, and always responding: 50 %", (50, 1.0), xycoords=("data", "axes fraction"),
                  xytext=(-5, 0), textcoords="offset points", ha="right", va="top", fontsize=8,
                  color=_RESPOND)  # fmt: skip
    axis.set_yticks(range(len(rows)), names, fontsize=9)
    axis.set_ylim(len(rows) - 0.3, -0.8)
    axis.set_xlim(-2, 112)
    axis.set_xticks(range(0, 101, 25))
    axis.set_xlabel("balanced accuracy, % (bars: 95 % interval)")
    _plain(axis, "Does it speak when it should, and only then?")


def _value(part: Figures) -> tuple[float | None, Sequence[float] | None, str]:
    """(value, interval, "" or what it is instead of balanced accuracy)."""
    for name, what in (("balanced_accuracy", ""), ("respond_recall", "respond only"), ("silent_recall", "silent only")):
        if part[name] is not None:
            return part[name], part["ci95"][name], what
    return None, None, ""


def _labels(items: Sequence[Figures]) -> list[tuple[str, bool, int, int]]:
    """(label, whether to respond, right, of so many), those to respond to first, in each the worst first."""
    tally: dict[tuple[str, bool], list[bool]] = {}
    for item in items:
        for case in item.get("events", [item]):
            if not case["label"]:
                continue
            respond = case["expect"] == "respond"
            tally.setdefault((case["label"], respond), []).append(bool(case["right"]))
    rows = [(label, respond, sum(right), len(right)) for (label, respond), right in tally.items()]
    worst = sorted(rows, key=lambda row: (row[2] / row[3], row[0]))[:_MOST_LABELS]
    return sorted(worst, key=lambda row: (not row[1], row[2] / row[3], row[0]))


def _by_label(axis: Any, labels: Sequence[tuple[str, bool, int, int]]) -> None:
    _plain(axis, "What does it get right?")
    if not labels:
        _nothing(axis, "no labels in the manifest")
        return
    for at, (_, respond, right, of) in enumerate(labels):
        share = 100 * right / of
        axis.barh(at, share, color=_RESPOND if respond else _SILENT, height=0.7)
        axis.annotate(f"{right} of {of}", (share, at), xytext=(3, 0), textcoords="offset points",
                      va="center", fontsize=8, color=_FAINT)  # fmt: skip
    names = [textwrap.shorten(label.replace("_", " "), 26, placeholder="...") for label, *_ in labels]
    axis.set_yticks(range(len(labels)), names, fontsize=8)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.set_xlim(0, 118)
    axis.set_xticks(range(0, 101, 25))
    axis.set_xlabel("% of cases that were right")
    handles = [axis.barh([0], [0], color=color) for color in (_RESPOND, _SILENT)]
    axis.figure.legend(handles, ["should be responded to", "should be silent at"], loc="outside lower right",
                       ncols=2, fontsize=8, frameon=False)  # fmt: skip


def _times(axis: Any, found: Figures) -> None:
    """A bar a Chunk: a response cannot come between two."""
    cases = [case for item in found["items"] for case in item.get("events", [item])]
    late = [case["late_s"] for case in cases if case["late_s"] is not None]
    _plain(axis, "When does it respond?")
    if not late:
        _nothing(axis, "no response whose time is known")
        return
    shown = np.clip(late, -_LATEST_S, _LATEST_S - 1e-6)
    edges = np.arange(-_LATEST_S, _LATEST_S + 1e-6, CHUNK_S)
    axis.hist(shown, bins=edges, color=_SILENT, edgecolor="white", linewidth=0.5)
    axis.axvline(0, color=_RESPOND, linewidth=1.0, linestyle="--")
    median = found["trigger_late_s"]
    axis.annotate(f"median {median:+.1f} s", (0.99, 0.95), xycoords="axes fraction", ha="right", va="top", fontsize=9)
    axis.set_xlim(-_LATEST_S, _LATEST_S)
    axis.set_xlabel(f"seconds after the response was due (negative: earlier; beyond {_LATEST_S:.0f} s in the last bar)")
    axis.set_ylabel("responses")
    axis.yaxis.get_major_locator().set_params(integer=True)


def _wakes(axis: Any, found: Figures) -> None:
    rates, intervals = found["false_wakes_per_hour"], found["ci95"]["false_wakes_per_hour"]
    heard = [where for where in ("silence", "noise") if rates[where] is not None]
    _plain(axis, "How often does it speak into nothing?")
    if not heard:
        _nothing(axis, "no silence and no noise in the manifest")
        return
    for at, where in enumerate(heard):
        low, high = intervals[where]
        axis.plot([low, high], [at, at], color=_INK, linewidth=2.0, solid_capstyle="butt")
        axis.plot([rates[where]], [at], "o", color=_INK)
        axis.annotate(f"{rates[where]:.1f}", (high, at), xytext=(7, 0), textcoords="offset points", va="center",
                      fontsize=9)  # fmt: skip
    axis.axvline(1, color=_RESPOND, linewidth=1.0, linestyle="--")
    axis.annotate("wanted: at most 1", (1, 0.03), xycoords=("data", "axes fraction"), xytext=(4, 0),
                  textcoords="offset points", fontsize=8, color=_RESPOND)  # fmt: skip
    axis.set_yticks(range(len(heard)), heard, fontsize=9)
    axis.set_ylim(len(heard) - 0.3, -0.7)
    axis.set_xlim(left=-0.2, right=max(5.0, 1.15 * max(intervals[where][1] for where in heard)))
    axis.set_xlabel(f"false wakes an hour (bars: 95 % interval; always responding: {3600 / CHUNK_S:,.0f})")


def _plain(axis: Any, title: str) -> None:
    axis.set_title(title, fontsize=10, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)


def _nothing(axis: Any, why: str) -> None:
    axis.set_axis_off()
    axis.annotate(why, (0.0, 0.85), xycoords="axes fraction", fontsize=9, color=_FAINT)
