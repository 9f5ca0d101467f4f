"""Calls for people at a terminal: the list, the story of one call, a live call as it happens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_COLOURS = {"caller": "cyan", "human_agent": "green", "voice_agent": "magenta"}
_NAMES = {"caller": "caller", "human_agent": "agent", "voice_agent": "offhook"}


def clock(at_s: float | None) -> str:
    """Seconds as m:ss.s."""
    return "   -  " if at_s is None else f"{int(at_s // 60):2d}:{at_s % 60:04.1f}"


def call_table(calls: Sequence[dict[str, Any]]) -> Table:
    """The ids stand whole however narrow the terminal is: people paste them into `offhook show`."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    longest = max((len(call["id"]) for call in calls), default=0)
    table.add_column("call", no_wrap=True, min_width=longest, overflow="ignore")
    for name in ("started", "mode", "state", "by", "from", "to", "length"):
        table.add_column(name, no_wrap=name not in ("from", "to"))  # these two give way first
    for call in calls:
        started = (call.get("started_at") or call.get("offered_at") or "")[:16].replace("T", " ")
        columns = (call["id"], started, call["mode"], call["state"], call["bridge"], call["from"], call["to"])
        table.add_row(*map(escape, columns), clock(call.get("duration_s")))
    return table


def story(call: dict[str, Any], console: Console) -> None:
    """The whole call, in the order in which it happened."""
    console.print(
        f"[bold]{call['id']}[/]  {call['mode']}, {call['state']}, by {call['bridge']}, {clock(call['duration_s'])}"
    )
    console.print(f"[dim]{escape(call['from'])} -> {escape(call['to'])}, {call['started_at'] or 'never answered'}[/]")
    if call.get("reason"):
        console.print(f"[dim]ended: {escape(call['reason'])}[/]")
    if call.get("summary"):
        console.print(f"\n{escape(call['summary'])}\n")
    for at_s, line in sorted(_moments(call), key=lambda moment: moment[0]):
        console.print(f"[dim]{clock(at_s)}[/]  {line}")
    d = call["decisions"]
    console.print(
        f"\n[dim]{d['chunks']} chunks: {d['silent']} silent, {d['transcribe']} transcribe, {d['assist']} assist, "
        f"{d['answer']} answer; {d['missed_deadlines']} missed deadlines[/]"
    )
    if call.get("recording"):
        made = call["recording"]
        console.print(f"[dim]recording: {made['path']}, {clock(made['duration_s'])}, {made['channels']} channels[/]")


def _moments(call: dict[str, Any]) -> Iterable[tuple[float, str]]:
    for said in call["utterances"]:
        yield said["start_s"], _line(said["participant"], said["text"])
    for answer in call["answers"]:
        yield answer["at_s"], _answer(answer)
    for hint in call["hints"]:
        yield hint["at_s"], _hint(hint)
    for notice in call.get("notices", []):
        yield notice["at_s"], f"[red]{escape(notice['kind'])}: {escape(notice['text'])}[/]"


def _line(participant: str, text: str) -> str:
    return f"[{_COLOURS.get(participant, 'white')}]{_NAMES.get(participant, participant):>7}[/]  {escape(text)}"


def _answer(answer: dict[str, Any]) -> str:
    heard, unheard = answer["heard_text"], ""
    if answer["interrupted"] and answer["text"].startswith(heard):
        unheard = f" [strike dim]{escape(answer['text'][len(heard) :].strip())}[/]"
    ms = f" [dim]({answer['response_ms']} ms)[/]" if answer.get("response_ms") is not None else ""
    mark = " [red]interrupted[/]" if answer["interrupted"] else ""
    return _line("voice_agent", heard) + unheard + ms + mark


def _hint(hint: dict[str, Any]) -> str:
    return (
        f"   [yellow]HINT[/]  [bold]{escape(hint['title'])}[/]: {escape(hint['text'])} [dim]{escape(hint['source'])}[/]"
    )


class LivePrinter:
    """Prints a live call, event by event. Partials are not printed: a terminal cannot take them back."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed: set[str] = set()

    def show(self, event: dict[str, Any]) -> None:
        line: str | None = None
        at_s: float | None = None
        match event["type"]:
            case "Uttered":
                said = event["utterance"]
                if said["id"] not in self._printed and said["text"]:
                    self._printed.add(said["id"])
                    at_s, line = said["start_s"], _line(said["participant_id"], said["text"])
            case "HintShown":
                at_s, line = event["hint"]["at_s"], _hint(event["hint"])
            case "Answered":
                at_s, line = event["answer"]["at_s"], _answer(event["answer"])
            case "BargeIn":
                at_s, line = event["at_s"], "   [red]the caller speaks: paused[/]"
            case "Dtmf":
                at_s, line = event["at_s"], f"{'key':>7}  {escape(event['digit'])}"
            case "Notice":
                at_s, line = event["at_s"], f"[red]{escape(event['kind'])}: {escape(event['text'])}[/]"
            case "CallEnded":
                at_s, line = event["duration_s"], f"[dim]call ended: {escape(event['reason'])}[/]"
        if line is not None:
            self._console.print(f"[dim]{clock(at_s)}[/]  {line}")
