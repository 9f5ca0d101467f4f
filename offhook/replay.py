"""`offhook replay`: decides a recorded call again and tells where that differs from what was decided live.

The call's story and recording come from the console's API. What a model is told of its role is made anew by the agent
(`python -m agent.instruction`), and the model worker decides (`python -m model_worker.replay`): both are processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from calls.audio import CHUNK_S
from calls.errors import OffhookError
from offhook.client import Client
from offhook.show import clock

SAME_SCORE = 0.005  # a score is stored in 255 steps: one step is no difference
REMARKABLE = ("takeover", "hole", "recording", "model")  # notices of a call that explain a difference

Progress = Callable[[int, int], None]  # Chunks decided, of so many
Key = tuple[str, int]  # participant, Chunk
Decision = dict[str, Any]


class ReplayFailed(OffhookError):
    """The call could not be decided again."""


def replay(client: Client, call_id: str, model: str, progress: Progress = lambda done, total: None) -> dict[str, Any]:
    """Decide a call again; `model` as in OFFHOOK_MODEL, "" for what that says.

    Returns {"call", "model", "decisions", "same", "differences": [{"participant", "chunk", "at_s", "then", "now"}],
    "remarks"}. Raises ReplayFailed, ApiError.
    """
    story = client.call(call_id)
    if story["recording"] is None:
        raise ReplayFailed(f"call {story['id']} has no recording" + (" yet" if story["ended_at"] is None else ""))
    stored = client.get(f"/api/v1/calls/{story['id']}/decisions")["decisions"]
    then = {(d["participant"], d["chunk"]): d for d in stored}
    environment = {**os.environ, **({"OFFHOOK_MODEL": model} if model else {})}
    with tempfile.TemporaryDirectory(prefix="offhook-replay-") as folder:
        recording = Path(folder) / "call.wav"
        client.download(f"/api/v1/calls/{story['id']}/recording", recording)
        asked = {
            "instruction": _instruction(story, environment),
            "recording": str(recording),
            "stopped": [key for key, decision in then.items() if decision.get("stopped")],
        }
        name, now = _decide(asked, environment, progress)
    differences = compare(then, now)
    return {
        "call": story["id"],
        "model": name,
        "decisions": len(now),
        "same": len(then.keys() | now.keys()) - len(differences),
        "differences": differences,
        "remarks": _remarks(story, name),
    }


def compare(then: Mapping[Key, Decision], now: Mapping[Key, Decision]) -> list[dict[str, Any]]:
    """Where the choice or the score is another, or where one of the two has none; in the order of time."""
    differences = []
    for key in sorted(then.keys() | now.keys(), key=lambda key: (key[1], key[0])):
        before, after = (_brief(side.get(key)) for side in (then, now))
        if before is None or after is None or before["choice"] != after["choice"]:
            same = False
        else:
            same = abs(before["score"] - after["score"]) <= SAME_SCORE
        if not same:
            participant, chunk = key
            at_s = round(chunk * CHUNK_S, 3)
            differences.append({"participant": participant, "chunk": chunk, "at_s": at_s, "then": before, "now": after})
    return differences


def show(result: Mapping[str, Any], console: Console) -> None:
    """The result for people."""
    for one in result["differences"]:
        then, now = (_words(one[side]) for side in ("then", "now"))
        console.print(
            f"[dim]{clock(one['at_s'])}[/]  {escape(one['participant']):>12}  {then}  ->  {now}", highlight=False
        )
    for remark in result["remarks"]:
        console.print(f"[yellow]{escape(remark)}[/]", highlight=False)
    different = len(result["differences"])
    console.print(
        f"{escape(result['call'])}: {result['decisions']} chunks decided again by {escape(result['model'])}, "
        f"{result['same']} the same, {different} different",
        highlight=False,
        soft_wrap=True,
    )


def _brief(decision: Decision | None) -> Decision | None:
    return None if decision is None else {"choice": decision["choice"], "score": round(decision["score"], 3)}


def _words(decision: Decision | None) -> str:
    return "not decided" if decision is None else f"{decision['choice']} {decision['score']:.2f}"


def _remarks(story: Mapping[str, Any], model: str) -> list[str]:
    remarks = [f"{n['kind']}: {n['text']}" for n in story["notices"] if n["kind"] in REMARKABLE]
    if not story["recording"]["complete"]:
        remarks.append("the recording is not complete")
    if model.startswith("cascade"):  # also joined with another
        remarks.append("live, the cascade decides with the words that are there in time: some chunks differ")
    return remarks


def _instruction(story: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "agent.instruction", story["mode"]]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise ReplayFailed("the instruction cannot be made; the reason is above")
    return {**json.loads(done.stdout), "participants": story["participants"]}


def _decide(
    asked: Mapping[str, Any], environment: Mapping[str, str], progress: Progress
) -> tuple[str, dict[Key, Decision]]:
    """Run the model; its name and what it decided."""
    decided: dict[Key, Decision] = {}
    name, total = "", 0
    with _model_worker(environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.close()
        for line in process.stdout:
            said = json.loads(line)
            if "model" in said:
                name, total = said["model"], said["chunks"]
            else:
                decided[said["participant"], said["chunk"]] = said
                progress(said["chunk"] + 1, total)
        if process.wait() or not name:
            raise ReplayFailed("the call cannot be decided again; the reason is above")
    return name, decided


@contextmanager
def _model_worker(environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "model_worker.replay"]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
