"""The figures as tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from model_worker.evaluation.figures import Figures

Row = tuple[str, Any, Any, Any, Any]  # what, its value, its interval, always silent, always respond


def show(found: Figures, out: Console, wrong: int = 15) -> None:
    """Print the table of all, one line a kind and a task, and the first `wrong` things that went wrong."""
    counts = found["counts"]
    out.print(
        f"[bold]{found['model']}[/] on {found['channel']}: {counts['items']} items, {counts['respond']} to respond to, "
        f"{counts['silent']} to be silent at, {counts['hours'] * 60:.1f} minutes",
        highlight=False,
    )
    table = Table("", "measured", "95 % interval", "always silent", "always respond", box=None, header_style="dim")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, value, interval, quiet, loud in _rows(found):
        if value is not None:
            table.add_row(name, *(cell if isinstance(cell, str) else "" for cell in (value, interval, quiet, loud)))
    out.print(table)
    if len(found["kinds"]) > 1:
        out.print(_kinds(found["kinds"]))
    if found["tasks"]:
        out.print(_tasks(found["tasks"]))
    _notes(found, out, wrong)


def _rows(found: Figures) -> list[Row]:
    ci, bases = found["ci95"], found["baselines"]
    quiet, loud = bases["always_silent"], bases["always_respond"]
    rows: list[Row] = []
    for name, title in (
        ("balanced_accuracy", "balanced accuracy"),
        ("respond_recall", "respond recall"),
        ("silent_recall", "silent recall"),
        ("accuracy", "accuracy"),
        ("safety_misses", "safety sounds missed"),
        ("label_accuracy", "label named"),
        ("reply_accuracy", "reply word for word"),
        ("wer", "word error rate"),
    ):
        never, always = _percent(quiet.get(name)), _percent(loud.get(name))
        rows.append((title, _percent(found[name]), _between(ci[name], _percent), never, always))
    for where in ("silence", "noise"):
        name = "false_wakes_per_hour"
        value, never, always = (_number(one[name][where]) for one in (found, quiet, loud))
        rows.append((f"false wakes an hour of {where}", value, _between(ci[name][where], _number), never, always))
    error, late = found["trigger_error_s"], found["trigger_late_s"]
    rows.append(("trigger-time error, mean", _seconds(error), _between(ci["trigger_error_s"], _seconds), "", ""))
    rows.append(("response after it was due, median", _seconds(late), "", "", ""))
    return rows


def _kinds(kinds: Figures) -> Table:
    titles = ("kind", "cases", "balanced", "respond", "silent", "label", "WER", "trigger error")
    table = Table(*titles, box=None, header_style="dim", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, part in kinds.items():
        shares = ("balanced_accuracy", "respond_recall", "silent_recall", "label_accuracy", "wer")
        cells = [_percent(part[share]) or "" for share in shares]
        table.add_row(name, str(part["cases"]), *cells, _seconds(part["trigger_error_s"]) or "")
    return table


def _tasks(tasks: Figures) -> Table:
    """Of each task, how often it responded and was silent where that was right, of how many, with the intervals."""
    table = Table("task", "respond", "of", "95 %", "silent", "of", "95 %", "reply", "WER", box=None, header_style="dim")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, part in tasks.items():
        cells: list[str | None] = []
        for which in ("respond", "silent"):
            share = f"{which}_recall"
            cells += [_percent(part[share]), str(part[which]), _between(part["ci95"][share], _percent)]
        table.add_row(name, *(cell or "" for cell in (*cells, _percent(part["reply_accuracy"]), _percent(part["wer"]))))
    return table


def _notes(found: Figures, out: Console, most: int) -> None:
    counts = found["counts"]
    if counts["premature"]:
        out.print(f"{counts['premature']} responses before they were due", highlight=False)
    if counts["undecided"]:
        out.print(f"[red]{counts['undecided']} Chunks were not decided[/]", highlight=False)
    wrong = [item for item in found["items"] if not item["right"]]
    for item in wrong[:most]:
        when = "" if item["at_s"] is None else f" at {item['at_s']:.1f} s"
        out.print(f"[dim]wrong: line {item['line']}, {item['audio']}: {item['decided']}{when}[/]", highlight=False)
    if len(wrong) > most:
        out.print(f"[dim]... and {len(wrong) - most} more (--json has all)[/]", highlight=False)


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"


def _number(number: float | None) -> str | None:
    return None if number is None else f"{number:.1f}"


def _seconds(number: float | None) -> str | None:
    return None if number is None else f"{number:.2f} s"


def _between(pair: list[float] | None, show_one: Any) -> str | None:
    return None if pair is None else f"{show_one(pair[0])} to {show_one(pair[1])}"
