"""Is the house ready to take a call? What is missing, if not."""

from __future__ import annotations

import asyncio
from typing import Any

from calls.errors import BusError
from console.config import Console

PING_S = 2.0


def has_room(info: dict[str, str]) -> bool:
    """A worker's heartbeat says how many calls it holds and how many it takes. One that does not say has room."""
    try:
        if "room" in info:
            return int(float(info["room"])) > 0
        if "capacity" in info:
            return int(float(info.get("calls", "0"))) < int(float(info["capacity"]))
    except ValueError:
        return False
    return True


def models(workers: dict[str, dict[str, str]]) -> list[dict[str, Any]]:
    """The models that live workers serve, by name, from the workers' heartbeats (model_worker/worker.py)."""
    served: dict[str, dict[str, Any]] = {}
    for name, info in sorted(workers.items()):
        worker = {
            "name": name,
            "calls": int(info.get("calls", 0)),
            "room": int(info.get("room", 0)),
            "load": float(info.get("load", 0)),
            "step_ms_p99": float(info.get("step_ms_p99", 0)),
            "missed_deadlines": int(info.get("missed", 0)),
        }
        model = served.setdefault(info.get("model", ""), {"calls": 0, "room": 0, "workers": []})
        model["workers"].append(worker)
        model["calls"] += worker["calls"]
        model["room"] += worker["room"]
    return [{"name": name, **served[name]} for name in sorted(served)]


async def health(console: Console) -> tuple[bool, dict[str, Any]]:
    """(ready, what to tell). Needs no password, so it tells no addresses, names or numbers of callers."""
    missing: list[str] = []
    try:
        async with asyncio.timeout(PING_S):
            database = await console.store.ping()
    except TimeoutError:
        database = False
    if not database:
        missing.append("database")
    services: dict[str, dict[str, dict[str, str]]] = {}
    try:
        async with asyncio.timeout(PING_S):
            services = await console.bus.services()
    except (BusError, TimeoutError):
        missing.append("bus")
    for name in ("telephony", "agent"):
        if not services.get(name):
            missing.append(name)
    workers = services.get("worker", {})
    room = sum(has_room(info) for info in workers.values())
    if not room:
        missing.append("a model worker with room" if workers else "model worker")
    told = {
        "ready": not missing,
        "missing": missing,
        "live_calls": len(console.hub.live()),
        "workers": len(workers),
        "workers_with_room": room,
        "browsers": len(console.sockets),
    }
    return not missing, told
