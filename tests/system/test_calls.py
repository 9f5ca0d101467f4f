"""Whole calls through a whole service: every bridge, every mode, checked in what `offhook show --json` gives."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from offhook.demo import FOLDER, answer_steps
from offhook.place import Via, orders, place_orders
from tests.system.conftest import System

GARAGE = FOLDER / "garage-call"
QUESTION = FOLDER / "caller" / "1-hours.wav"
BRIDGES = ("sip", "webrtc", "mediastreams")


def text_of(story: dict[str, Any], participant: str) -> str:
    return " ".join(u["text"] for u in story["utterances"] if u["participant"] == participant).lower()


def check_story(story: dict[str, Any], system: System) -> None:
    """What holds for every completed call."""
    assert story["state"] == "ended"
    assert story["recording"]["channels"] == 2
    with wave.open(str(system.data / "recordings" / story["recording"]["path"])) as recording:
        assert recording.getnchannels() == 2
        length_s = recording.getnframes() / recording.getframerate()
    assert length_s == pytest.approx(story["duration_s"], abs=0.5)
    assert story["recording"]["duration_s"] == pytest.approx(length_s, abs=0.1)
    humans = [p["id"] for p in story["participants"] if p["role"] != "voice_agent"]
    chunks = int(story["duration_s"] / 0.4)
    # A decision for every whole chunk of every human participant; the call's end may cut the last ones.
    assert story["decisions"]["chunks"] == pytest.approx(len(humans) * chunks, abs=3 * len(humans))
    for utterance in story["utterances"]:
        assert 0 <= utterance["start_s"] < utterance["end_s"] <= story["duration_s"] + 0.5
        times = [word["start_s"] for word in utterance["words"]]
        assert times == sorted(times)


@pytest.mark.parametrize("via", BRIDGES)
def test_a_question_is_answered_on_every_bridge(system: System, via: str) -> None:
    story = system.place(via, "--caller", str(QUESTION), "--linger", "10")
    check_story(story, system)
    assert story["bridge"] == via
    assert story["mode"] == "answer"
    greeting, *answers = story["answers"]
    assert "recorded" in greeting["text"].lower()
    assert answers, story
    assert story["decisions"]["answer"] >= 1
    shown = json.loads(system.offhook("show", story["id"][:12], "--json").stdout)
    assert {key: shown[key] for key in ("id", "answers")} == {key: story[key] for key in ("id", "answers")}


def placed_in_the_garage(
    system: System, cut: Callable[..., Path], via: str, length_s: float, *options: str, timeout_s: float = 120
) -> dict[str, Any]:
    """The story of the first seconds of a real call between two people, who were told apart."""
    caller, agent = (cut(GARAGE / f"{party}.wav", 0, length_s) for party in ("caller", "agent"))
    story = system.place(
        via, "--mode", "assist", "--caller", str(caller), "--agent", str(agent), *options, timeout_s=timeout_s
    )
    check_story(story, system)
    assert {p["id"] for p in story["participants"]} >= {"caller", "human_agent"}
    assert "shop" in text_of(story, "caller")  # 8 kHz and a hasty speaker: not every word is caught
    assert "help you" in text_of(story, "human_agent")
    assert "shop" not in text_of(story, "human_agent")
    assert all(hint["source"] and hint["at_s"] >= hint["trigger_s"] - 0.4 for hint in story["hints"])
    assert story["answers"] == []
    return story


@pytest.mark.parametrize("via", [via for via in BRIDGES if via != "sip"])
def test_two_parties_are_transcribed_apart(system: System, via: str, cut: Callable[..., Path]) -> None:
    story = placed_in_the_garage(system, cut, via, 24, "--linger", "3")
    assert story["bridge"] == via


def test_two_parties_by_sip_from_the_ring_to_the_wrap_up(system: System, cut: Callable[..., Path]) -> None:
    """Until the customer has told the trouble; then a summary and a better transcript."""
    story = placed_in_the_garage(system, cut, "sip", 45, "--linger", "1", "--wait-wrap-up", timeout_s=240)
    assert story["hints"], "a customer whose oil light stays on after a service deserves a hint"
    assert story["wrap_up"] == "done", story["wrap_up"]
    assert story["summary"]
    assert all(utterance["revision"] >= 1 for utterance in story["utterances"])
    assert any(found["id"] == story["id"] for found in system.client.calls(search="oil light"))


async def test_the_demo_caller_asks_interrupts_and_says_goodbye(system: System) -> None:
    completed, call_id, why = await place_orders(system.running, orders(Via.SIP, "answer", answer_steps()), None)
    assert completed, why
    story = system.client.wait_until_written(call_id)
    check_story(story, system)
    assert len(story["answers"]) >= 4
    interrupted = [answer for answer in story["answers"] if answer["interrupted"]]
    assert interrupted
    for answer in interrupted:
        assert answer["text"].startswith(answer["heard_text"])
        assert len(answer["heard_text"]) < len(answer["text"])
    assert any(answer["response_ms"] for answer in story["answers"])


def test_transcribe_mode_only_writes(system: System, say: Callable[..., Path]) -> None:
    prompt = say(0.5, "vm-goodbye", 0.8, "all-circuits-busy-now", 1.0)
    story = system.place("sip", "--mode", "transcribe", "--caller", str(prompt), "--linger", "2")
    check_story(story, system)
    assert "goodbye" in text_of(story, "caller").replace("good bye", "goodbye")
    assert "busy" in text_of(story, "caller")
    assert story["answers"] == story["hints"] == []


def test_a_caller_who_is_silent_gets_no_transcript(system: System, say: Callable[..., Path]) -> None:
    story = system.place("sip", "--mode", "transcribe", "--caller", str(say(5.0)), "--linger", "0.5")
    assert story["utterances"] == []
    assert story["decisions"]["silent"] == story["decisions"]["chunks"]


def test_bad_audio_is_refused_before_anything_rings(system: System, tmp_path: Path) -> None:
    before = len(system.client.calls(limit=200))
    for content, message in ((b"", "empty"), (b"not a wav at all", "not a WAV")):
        path = tmp_path / "bad.wav"
        path.write_bytes(content)
        done = system.offhook("call", "--caller", str(path), check=False)
        assert done.returncode == 1
        assert message in done.stderr
    assert len(system.client.calls(limit=200)) == before
