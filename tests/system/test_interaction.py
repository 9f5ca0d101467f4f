"""Calls served by the Audio Interaction Model. It has random weights and talks nonsense; all around it is real."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model_worker.interaction.config import TEST, MemoryConfig
from model_worker.interaction.formats import native
from offhook.demo import FOLDER
from tests.model_worker.interaction.served import checkpoint
from tests.system.conftest import System, start, stop
from tests.system.test_faults import call_while

QUESTION = FOLDER / "caller" / "1-hours.wav"
# It speaks now and then, and the more the louder it is spoken to.
CONFIG = replace(TEST, memory=MemoryConfig(prefix=300, text=60, chunks=16), words_a_chunk=8, longest=24, threshold=0.7)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in our own format."""
    directory = tmp_path_factory.mktemp("checkpoint") / "nonsense"
    made = checkpoint(CONFIG, seed=5)
    parts = (("tower.", made.tower), ("decoder.", made.decoder))
    tensors = ((part + name, tensor) for part, weights in parts for name, tensor in weights.items())
    native.save(directory, CONFIG, tensors, made.tokenizer)
    return directory


@pytest.fixture(scope="module")
def serving(server_folder: Path, weights: Path) -> Iterator[System]:
    """A service of this file's own."""
    system = start(server_folder / "interaction", OFFHOOK_MODEL=f"interaction:{weights}")
    yield system
    stop(system)


def replayed(serving: System, call_id: str, weights: Path) -> dict[str, Any]:
    done = serving.offhook("replay", call_id, "--model", f"interaction:{weights}", "--json", check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_call_is_answered_written_down_and_decided_again_the_same(serving: System, weights: Path) -> None:
    story = serving.place("sip", "--caller", str(QUESTION), "--linger", "9", "--wait-wrap-up")
    assert story["state"] == "ended"
    assert story["wrap_up"] == "done"
    assert story["decisions"]["chunks"] >= int(story["duration_s"] / 0.4)
    assert story["decisions"]["answer"] >= 2
    assert story["decisions"]["silent"] >= 2
    greeting, *answers = [answer["id"] for answer in story["answers"]]
    assert greeting == "greeting"
    assert any(answer.startswith("answer-caller-") for answer in answers), story["answers"]
    assert "open" in " ".join(u["text"] for u in story["utterances"]).lower()  # the wrap-up heard the question

    again = replayed(serving, story["id"], weights)
    assert again["model"] == "interaction:nonsense"
    assert again["differences"] == []
    assert again["same"] == again["decisions"] == story["decisions"]["chunks"]


def test_both_sides_of_an_assist_call_are_decided(serving: System, weights: Path, cut: Callable[..., Path]) -> None:
    garage = FOLDER / "garage-call"
    story = serving.place(
        "sip", "--mode", "assist", "--caller", str(cut(garage / "caller.wav", 0, 14)),
        "--agent", str(cut(garage / "agent.wav", 0, 14)), "--linger", "2",
    )  # fmt: skip
    assert story["state"] == "ended"
    assert story["decisions"]["assist"] >= 1
    assert {hint["source"] for hint in story["hints"]} <= {"the model's own words"}
    assert replayed(serving, story["id"], weights)["differences"] == []


async def test_a_killed_worker_costs_no_decision(serving: System, say: Callable[..., Path]) -> None:
    speech = say(1.0, *(part for _ in range(5) for part in ("vm-goodbye", 1.0, "all-circuits-busy-now", 1.0)))
    story = await call_while(serving, speech, lambda: serving.kill("-m", "model_worker"), after_s=8)
    assert story["state"] == "ended"
    assert [notice["kind"] for notice in story["notices"]] == ["takeover"]
    assert story["decisions"]["chunks"] >= int(story["duration_s"] / 0.4) - 3, story["decisions"]
    assert max(said["end_s"] for said in story["utterances"]) > 14
    assert len({said["id"] for said in story["utterances"]}) == len(story["utterances"])
