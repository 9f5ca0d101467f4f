"""`python -m offhook.phone`: one fake phone for one call. Its order comes on standard input as JSON (offhook/place.py);
its end goes to standard output as one line of JSON. A process of its own, so that its 20 ms clock is."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from calls.errors import OffhookError
from calls.precedence import take_precedence
from offhook.phone.script import Pause, Play, Script, Step, WaitForQuiet, WaitForSpeech
from offhook.phone.wav import load


def script(steps: list[dict[str, Any]]) -> Script:
    """The Script of steps given by name. Raises WavError, or ValueError for a step that is not known."""
    made: list[Step] = []
    for step in steps:
        [(name, value)] = step.items()
        match name:
            case "play":
                made.append(Play(load(value)))
            case "wait_for_speech":
                made.append(WaitForSpeech(float(value)))
            case "wait_for_quiet":
                made.append(WaitForQuiet(float(value)))
            case "pause":
                made.append(Pause(float(value)))
            case _:
                raise ValueError(f"no step is called {name!r}")
    return Script(made)


async def call(running: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """Place the call and wait for its end: the fields of PhoneEnd."""
    plays = script(order["steps"])
    result: Any
    match order["via"]:
        case "sip":
            from offhook.phone import sip

            agent = order["role"] == "human_agent"
            user = "agent" if agent else order["mode"]
            if order["reference"]:
                user += f"+{order['reference']}"
            result = await sip.place_call(
                target=user, host=running["sip_host"], port=running["sip_port"], number=order["number"], script=plays
            )
        case "webrtc":
            from offhook.phone import webrtc

            result = await webrtc.place_call(
                url=running["url"],
                password=running["password"],
                mode=order["mode"],
                role=order["role"],
                reference=order["reference"],
                number=order["number"],
                script=plays,
            )
        case _:
            from offhook.phone import mediastreams

            result = await mediastreams.place_call(
                url=running["media_url"],
                auth_token=running["twilio_auth_token"],
                public_url=running["public_url"],
                mode=order["mode"],
                number=order["number"],
                script=plays,
                agent=script(order["fork"]) if order["fork"] else None,
            )
    if order["keep"]:
        Path(order["keep"]).write_bytes(result.heard)
    end = {"completed": result.completed, "reason": result.reason, "call_id": result.call_id}
    return {**end, "started_s": plays.started_s}


def main() -> int:
    task = json.load(sys.stdin)
    take_precedence()
    try:
        end = asyncio.run(call(task["running"], task["order"]))
    except OffhookError as error:
        end = {"completed": False, "reason": str(error), "call_id": ""}
    print(json.dumps(end))
    return 0 if end["completed"] else 1


if __name__ == "__main__":
    sys.exit(main())
