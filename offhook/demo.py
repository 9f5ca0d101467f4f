"""The two calls of `offhook up --demo`, over real SIP and RTP on loopback, for anyone to watch and hear.

1. assist: a recorded call between a customer and a garage (offhook/demo/garage-call, Apache-2.0): hints appear while
   the customer still speaks.
2. answer: a synthetic caller (offhook/demo/caller, made by scripts/make_demo_caller) asks, interrupts and says goodbye.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.rule import Rule

from calls.model import Mode
from offhook.client import Client
from offhook.local import Running
from offhook.place import Via, orders, place_orders

FOLDER = Path(__file__).parent / "demo"


def assist_steps() -> list[list[dict[str, Any]]]:
    """Customer and human agent: both tracks of the recorded call, in step."""
    call = FOLDER / "garage-call"
    return [[{"play": str(call / "caller.wav")}, {"pause": 2}], [{"play": str(call / "agent.wav")}, {"pause": 2}]]


def answer_steps() -> list[list[dict[str, Any]]]:
    """The synthetic caller: lets the greeting end, asks, interrupts the second answer, asks on, says goodbye."""
    said = {path.stem: {"play": str(path)} for path in (FOLDER / "caller").glob("*.wav")}
    answered = [{"wait_for_speech": 0.4}, {"wait_for_quiet": 1.2}]
    return [
        [
            *answered,
            said["1-hours"],
            *answered,
            said["2-oil-price"],
            {"wait_for_speech": 1.2},
            said["3-interrupts"],
            *answered,
            said["4-loan-car"],
            *answered,
            said["5-goodbye"],
            {"wait_for_speech": 0.3},
            {"wait_for_quiet": 2.0},
            {"pause": 4},
        ]
    ]


async def run_demo(running: Running, console: Console) -> None:
    """Both calls, one after the other, printed as they happen."""
    client = Client(running)
    for title, mode, steps in (
        ("Demo 1 of 2: a recorded call to a garage, with live hints for the human agent", Mode.ASSIST, assist_steps()),
        ("Demo 2 of 2: a caller asks, interrupts and says goodbye; offhook answers", Mode.ANSWER, answer_steps()),
    ):
        console.print(Rule(title, style="dim"))
        completed, call_id, reason = await place_orders(running, orders(Via.SIP, mode, steps), console)
        if call_id:
            client.wait_until_written(call_id)
            console.print(f"[dim]review it: {running.url}/calls/{call_id}   or: offhook show {call_id[:10]}[/]\n")
        if not completed:
            console.print(f"[red]this demo call was not completed: {reason}[/]")
    console.print(f"[bold green]Both demo calls are over; offhook stays up.[/]  Call in yourself: {running.url}/call\n")
