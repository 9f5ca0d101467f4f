"""Placing a call from here: one fake phone a leg, each a process of its own, and the call followed while it lasts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from rich.console import Console

from calls.model import Mode, Role
from offhook.client import ApiError, Client
from offhook.local import NotRunning, Running
from offhook.phone.wav import load
from offhook.show import LivePrinter


class Via(StrEnum):
    SIP = "sip"
    WEBRTC = "webrtc"
    MEDIASTREAMS = "mediastreams"


@dataclass(frozen=True, slots=True)
class PhoneOrder:
    """What one phone process shall do; it goes to `python -m offhook.phone` as JSON.

    `steps` are those of offhook/phone/script.py by name: {"play": wav}, {"wait_for_speech": s}, {"wait_for_quiet": s},
    {"pause": s}. `fork`: the agent's steps of a one-way Media Streams fork, which one connection carries.
    """

    via: Via
    mode: Mode
    number: str  # who calls
    steps: list[dict[str, Any]]
    role: Role = Role.CALLER
    reference: str = ""
    fork: list[dict[str, Any]] = field(default_factory=list)
    keep: str = ""  # a file for what the phone hears: raw 16 kHz mono s16, from the first tick


@dataclass(frozen=True, slots=True)
class PhoneEnd:
    """How it went; `started_s` is when each step began, on the phone's own clock (that of the kept audio)."""

    completed: bool
    reason: str
    call_id: str = ""
    started_s: tuple[float, ...] = ()


async def place(
    running: Running, via: Via, mode: Mode, caller: Path, agent: Path | None, linger_s: float, console: Console | None
) -> tuple[bool, str, str]:
    """Place one call and wait for its end: (completed, call id, why not). Prints it live to `console`.

    Raises WavError for audio that cannot be played, NotRunning for a service whose telephone side is unknown here.
    """
    steps: list[list[dict[str, Any]]] = []
    for wav in filter(None, (caller, agent)):
        await asyncio.to_thread(load, wav)  # a bad file is said before anything rings
        steps.append([{"play": str(wav.resolve())}, {"pause": linger_s}])
    return await place_orders(running, orders(via, mode, steps), console)


def orders(via: Via, mode: Mode, steps: list[list[dict[str, Any]]]) -> list[PhoneOrder]:
    """The phones of one call: the caller's, and the human agent's if there are steps for one."""
    number = f"phone-{secrets.token_hex(4)}"
    caller, *agent = steps
    if via is Via.MEDIASTREAMS:
        return [PhoneOrder(via, mode, number, caller, fork=agent[0] if agent else [])]
    reference = number if agent else ""
    placed = [PhoneOrder(via, mode, number, caller, reference=reference)]
    if agent:
        placed.append(PhoneOrder(via, mode, number, agent[0], Role.HUMAN_AGENT, reference))
    return placed


async def place_orders(running: Running, placed: list[PhoneOrder], console: Console | None) -> tuple[bool, str, str]:
    """Run the phones together until all have hung up: (completed, call id, why not)."""
    if placed[0].via is Via.SIP and not running.sip_port:
        raise NotRunning("SIP calls need to know the SIP port: they can be placed on the service's own machine only")
    client = Client(running)
    watcher = asyncio.create_task(_watch(client, placed[0].number, console))
    try:
        ends = await asyncio.gather(*(run_phone(running, order) for order in placed))
    except BaseException:
        watcher.cancel()
        raise
    caller = ends[0]
    if not caller.completed:
        watcher.cancel()
    try:
        seen = await asyncio.wait_for(watcher, 15.0)
    except (TimeoutError, asyncio.CancelledError):
        seen = await asyncio.to_thread(_find, client, placed[0].number)
    reasons = [end.reason for end in ends if not end.completed]
    return not reasons, caller.call_id or seen, "; ".join(reasons)


async def run_phone(running: Running, order: PhoneOrder) -> PhoneEnd:
    """One phone, from ring to hang-up."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "offhook.phone", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        task = json.dumps({"running": asdict(running), "order": asdict(order)})
        output, _ = await process.communicate(task.encode())
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        raise
    try:
        return PhoneEnd(**json.loads(output.decode().strip().split("\n")[-1]))
    except (ValueError, TypeError):
        return PhoneEnd(False, f"the phone itself failed (exit status {process.returncode}); see above")


async def _watch(client: Client, number: str, console: Console | None) -> str:
    """Follow the call of this number to its end, printing it; its id."""
    call_id = ""
    while not call_id:
        call_id = await asyncio.to_thread(_find, client, number)
        await asyncio.sleep(0.2)
    if console is not None:
        console.print(f"[dim]call {call_id}; live at {client.running.url}/live/{call_id}[/]")
        printer = LivePrinter(console)
        async for event in client.events(call_id):
            printer.show(event)
    return call_id


def _find(client: Client, number: str) -> str:
    """The id of the call from `number`, "" while there is none."""
    try:
        found = [call for call in client.calls(limit=50) if number in call["from"]]
        found += [call for call in client.calls(limit=50, live=True) if number in call["from"]]
    except ApiError:
        return ""
    return str(found[0]["id"]) if found else ""
