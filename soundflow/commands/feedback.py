"""`offhook soundflow feedback --consent FOLDER`"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from calls.model import DEFAULT_TENANT
from calls.settings import Settings
from calls.store import Row, Store
from soundflow import shards, whole
from soundflow.commands.shared import bar, parser
from soundflow.errors import SoundflowError
from soundflow.feedback import Around, Judged, divide, items
from soundflow.items import Item, Split

SUMMARY = "feedback.json"  # of a folder that this command wrote
_PER_SHARD = 32
_ABOUT = """
Make train and dev streams of recorded calls: a hint that was accepted deserved a response, one that was dismissed
deserved none. Fine-tune on them with `offhook soundflow train --from MODEL --beside DATA FOLDER OUT`.

PRIVACY: the streams are copies of recordings, and hold the text of hints. They leave the database and its rules:
deleting a call there does not delete it here. Nothing is written without --consent; leave calls out with --without,
keep the folder as safe as the recordings, and make it anew when a call must go.
"""

Tell = Callable[[int, int, str], None]


def main(arguments: Sequence[str], settings: Settings) -> int:
    given = _options().parse_args(arguments)
    if not settings.database_url:
        raise SoundflowError("there is no database: start `offhook up` on this machine, or set OFFHOOK_DATABASE_URL")
    _check_folder(given.folder)
    with bar("calls") as tell:
        made = asyncio.run(_export(given, settings, tell))
    for note in made.notes:
        print(note, file=sys.stderr)
    if not made.streams:
        raise SoundflowError("none of these hints can be used, for the reasons above: nothing was written")
    for split, counts in sorted(made.streams.items(), reverse=True):
        print(
            f"{split:<6}{counts['accepted']:>6} accepted {counts['dismissed']:>6} dismissed {counts['calls']:>6} calls"
        )
    print(f"{given.folder}: as private as the calls themselves")
    return 0


def _options() -> argparse.ArgumentParser:
    options = parser(
        "feedback",
        _ABOUT,
        "--since 2026-11-01 feedback  # how much there is; nothing is written",
        "--since 2026-11-01 --without 01JD0A --consent feedback",
    )
    options.add_argument("folder", type=Path, help="where the shards go: empty, new, or written by this command before")
    options.add_argument(
        "--consent", action="store_true", help="recordings of these calls may be copied and become training data"
    )
    options.add_argument(
        "--since", type=_day, metavar="DAY", help="only calls since this day or moment (ISO 8601, UTC)"
    )
    options.add_argument("--tenant", default=DEFAULT_TENANT, help="whose calls (%(default)s)")
    options.add_argument(
        "--without", action="append", default=[], metavar="CALL", help="leave this call out: its id or how that begins"
    )
    options.add_argument(
        "--without-file", type=Path, metavar="FILE", help="leave out the calls named in it, one a line"
    )
    options.add_argument(
        "--dev-share", type=_share, default=0.15, help="of the calls, kept for measuring (%(default)s)"
    )
    options.add_argument(
        "--before", type=float, default=24.0, metavar="S", help="seconds kept before a hint (%(default)s); 62 for 3b"
    )
    options.add_argument("--after", type=float, default=4.0, metavar="S", help="seconds kept after it (%(default)s)")
    return options


def _day(text: str) -> datetime:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day such as 2026-11-01") from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError("must be from 0 to less than 1")
    return share


@dataclass(slots=True)
class Made:
    """What was written, and what was not and why."""

    streams: dict[Split, Counter[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def count(self, hint: Judged, split: Split) -> None:
        counts = self.streams.setdefault(split, Counter())
        counts["accepted" if hint.accepted else "dismissed"] += 1


async def _export(given: argparse.Namespace, settings: Settings, tell: Tell) -> Made:
    store = Store(settings.database_url)
    try:
        wanted, notes = _choose(await store.hinted(given.tenant, given.since), given)
        made = Made(notes=notes)
        instruction = await asyncio.to_thread(_instruction)
        splits = divide(wanted, given.dev_share)
        writer = Writer(given.folder, made)
        for number, call_id in enumerate(wanted):
            story = await store.call(call_id, given.tenant)
            around = Around(given.before, given.after)
            await asyncio.to_thread(_one_call, story, settings.recordings, splits[call_id], instruction, around, writer)
            tell(number + 1, len(wanted), call_id)
        await asyncio.to_thread(writer.close)
    finally:
        await store.close()
    return made


def _choose(found: Sequence[Row], given: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The calls to take, oldest first, and what is to be told. Raises SoundflowError if there are none, or without
    consent."""
    hints, judged = sum(row["hints"] for row in found), [row for row in found if row["judged"]]
    of_whom = f"tenant {given.tenant}" + (f", since {given.since:%Y-%m-%d %H:%M} UTC" if given.since else "")
    if not judged:
        raise SoundflowError(
            f"no hint was accepted or dismissed yet ({of_whom}: {hints} hints on {len(found)} calls). Human agents "
            "judge hints in the console while a call goes on, programs by POST /api/v1/calls/CALL/hints/HINT/verdict"
        )
    names = [*given.without, *_names(given.without_file)]
    kept = [row for row in judged if not row["id"].startswith(tuple(names))]
    if not kept:
        raise SoundflowError(f"all {len(judged)} calls with a verdict were to be left out")
    if not given.consent:
        raise SoundflowError(
            f"{sum(row['judged'] for row in kept)} judged hints on {len(kept)} calls are there to learn from. Their "
            "recordings would be copied and become training data: if the people on them agreed to that, say so with "
            "--consent; leave others out with --without"
        )
    idle = [name for name in names if not any(row["id"].startswith(name) for row in judged)]
    return [row["id"] for row in kept], [f"--without {name}: no call with a verdict begins so" for name in idle]


def _names(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return [name for line in path.read_text(encoding="utf-8").splitlines() if (name := line.strip())]
    except (OSError, UnicodeDecodeError) as error:
        raise SoundflowError(f"{path} cannot be read: {error}") from error


def _instruction() -> str:
    """What a model is told on such a call: the policy and the cards, as the agent makes it now."""
    command = [sys.executable, "-m", "agent.instruction", "assist"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise SoundflowError("the instruction of a call cannot be made; the reason is above")
    told = json.loads(done.stdout)
    return str(told["text"]) + "".join(f"\n\n{card['title']}: {card['text']}" for card in told["cards"])


def _one_call(story: Row, recordings: Path, split: Split, instruction: str, around: Around, writer: Writer) -> None:
    notes: list[str] = []
    try:
        found = list(items(story, recordings, split, instruction, around, notes))
    except SoundflowError as error:
        found = []
        notes.append(str(error))
    for hint, item in found:
        writer.made.count(hint, split)
        writer.add(item)
    if found:
        writer.made.streams[split]["calls"] += 1
    writer.made.notes += [f"call {story['id']} skipped: {note}" for note in notes]


def _check_folder(folder: Path) -> None:
    """Raises SoundflowError if other shards are there: they would be mixed, or lost."""
    if any(folder.glob("*.shard")) and not (folder / SUMMARY).is_file():
        raise SoundflowError(f"{folder} holds other shards: name another folder")


class Writer:
    """Collects items into shards of a folder. What the folder held before goes: a call that was left out this time
    must not stay."""

    def __init__(self, folder: Path, made: Made) -> None:
        self.made = made
        self._folder = folder
        self._waiting: dict[Split, list[Item]] = {}
        self._numbers: Counter[str] = Counter()
        self._begun = False

    def add(self, item: Item) -> None:
        self._begin()
        waiting = self._waiting.setdefault(item.split, [])
        waiting.append(item)
        if len(waiting) == _PER_SHARD:
            self._write(item.split)

    def close(self) -> None:
        if not self._begun:  # nothing could be used: what is there stays
            return
        for split in list(self._waiting):
            self._write(split)
        summary = {split: dict(counts) for split, counts in self.made.streams.items()}
        whole.write(self._folder / SUMMARY, [json.dumps(summary, indent=1).encode()])

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SoundflowError(f"{self._folder} cannot be made: {error.strerror}") from error
        whole.write(self._folder / SUMMARY, [b"{}"])  # a run that is killed leaves a folder that is known
        for old in self._old():
            old.unlink()

    def _old(self) -> Iterator[Path]:
        yield from self._folder.glob("*.shard")
        yield from self._folder.glob("*.features")  # soundflow.features, which needs torch
        yield from self._folder.glob(".*.part")

    def _write(self, split: Split) -> None:
        if self._waiting.get(split):
            shards.write(self._folder, split, self._numbers[split], self._waiting.pop(split))
            self._numbers[split] += 1
