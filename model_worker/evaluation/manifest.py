"""The manifest: what is played to the model and what is expected of it, one JSON object a line.

    {"audio": "a.wav", "expect": "respond", "kind": "sound", "label": "baby_cry", "text": "", "respond_after_s": 1.2}

`audio` is relative to the manifest. `expect` is wanted unless there are `events`. All times are seconds from the
beginning of the audio.

    kind             kinds.py; if it is left out, "sound", or with a `text` "recognition"
    label            what a response must name (labels.py)
    text             what is said in it, where writing is asked for: for the word error rate
    reply            what a response must say, word for word: for the share of right replies
    respond_after_s  a response before it is premature, and does not count as the response; to a sound it does
    instruction      told to the model instead of the usual one for this kind
    mode             "answer", "assist" or "transcribe", instead of the usual one for this kind
    task             what it tests, in the words of whoever made it: items of one task get figures of their own
    events           [{"at_s", "end_s", "expect", "label", "text", "reply", "respond_after_s"}]: several things in one
                     stream, each with an expectation of its own

Other fields are ignored. Every wrong line is told with its number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from calls.errors import OffhookError
from calls.model import Mode
from model_worker.evaluation import kinds
from model_worker.evaluation.labels import SOUNDS, plain

Expect = Literal["respond", "silent"]
MOST_TOLD = 20  # wrong lines


class ManifestError(OffhookError):
    """The manifest, or audio that it names, cannot be used. The text names the lines."""


class _Event(msgspec.Struct):
    at_s: float
    end_s: float
    expect: Expect
    label: str | None = None
    text: str | None = None
    reply: str | None = None
    respond_after_s: float | None = None


class _Line(msgspec.Struct):
    audio: str
    expect: Expect | None = None
    kind: str | None = None
    label: str | None = None
    text: str | None = None
    reply: str | None = None
    respond_after_s: float | None = None
    instruction: str | None = None
    mode: Mode | None = None
    task: str | None = None
    events: list[_Event] | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """One thing that happens in an item's audio. `end_s` None: it is the whole audio."""

    at_s: float
    end_s: float | None
    respond: bool
    label: str
    text: str
    reply: str
    respond_after_s: float | None


@dataclass(frozen=True, slots=True)
class Item:
    line: int
    audio: str  # as the manifest says it
    path: Path
    kind: str
    task: str  # "" if the manifest says none
    mode: Mode
    instruction: str
    events: tuple[Expected, ...]  # in order; at least one

    @property
    def text(self) -> str:
        """All that is said in it."""
        return " ".join(event.text for event in self.events if event.text)


def read(path: Path) -> list[Item]:
    """The items, in order. Raises ManifestError with every wrong line. The audio is not looked at yet."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"the manifest {path} cannot be read: {error}") from error
    items: list[Item] = []
    wrong: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            items.append(_item(line, number, path.parent))
        except (msgspec.MsgspecError, ValueError) as error:
            wrong.append(f"line {number}: {error}")
    complain(path, wrong)
    if not items:
        raise ManifestError(f"the manifest {path} has no items")
    return items


def complain(path: Path, wrong: Sequence[str]) -> None:
    """Raise ManifestError if anything is wrong."""
    if wrong:
        more = [f"... and {len(wrong) - MOST_TOLD} more"] if len(wrong) > MOST_TOLD else []
        raise ManifestError("\n".join([f"the manifest {path} is wrong:", *wrong[:MOST_TOLD], *more]))


def _item(line: str, number: int, folder: Path) -> Item:
    given = msgspec.json.decode(line, type=_Line)
    if not given.audio.strip():
        raise ValueError("`audio` is empty")
    spoken = given.text if given.text and plain(given.label or "") not in SOUNDS else ""
    kind = (given.kind or ("recognition" if spoken else "sound")).strip()
    mode = given.mode or kinds.of(kind, spoken).mode
    return Item(
        line=number,
        audio=given.audio,
        path=folder / given.audio,
        kind=kind,
        task=(given.task or "").strip(),
        mode=mode,
        instruction=given.instruction or kinds.POLICY[mode],
        events=tuple(_events(given)),
    )


def _events(given: _Line) -> Iterator[Expected]:
    if given.events is None:
        if given.expect is None:
            raise ValueError('wants `expect`: "respond" or "silent"')
        yield _expected(0.0, None, given.expect, given)
        return
    if not given.events:
        raise ValueError("`events` is empty")
    if given.expect is not None or given.respond_after_s is not None:
        raise ValueError("has `events`: `expect` and `respond_after_s` belong in each of them")
    if given.reply:
        raise ValueError("has `events`: `reply` belongs in each of them")
    _check_order(given.events)
    for event in given.events:
        yield _expected(event.at_s, event.end_s, event.expect, event)


def _check_order(events: Iterable[_Event]) -> None:
    until = 0.0
    for event in events:
        if not (math.isfinite(event.at_s) and math.isfinite(event.end_s) and until <= event.at_s < event.end_s):
            raise ValueError(f"events must follow each other: not {event.at_s} to {event.end_s} s after {until} s")
        until = event.end_s


def _expected(at_s: float, end_s: float | None, expect: Expect, given: _Line | _Event) -> Expected:
    after_s = given.respond_after_s
    if given.reply and expect == "silent":
        raise ValueError("`reply` where silence is expected")
    if after_s is not None:
        if expect == "silent":
            raise ValueError("`respond_after_s` where silence is expected")
        if not math.isfinite(after_s) or after_s < at_s:
            raise ValueError(f"`respond_after_s` is {after_s}: wants a time from {at_s} s on")
    told = (given.label or "", given.text or "", given.reply or "")
    return Expected(at_s, end_s, expect == "respond", *told, after_s)
