"""Hints for what is said on a garage's calls, as text that grows word by word, as a recogniser's does."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.knowledge import GARAGE, Knowledge
from calls.model import Role
from model_worker.cascade.hints import HintFinder, Proposed
from model_worker.cascade.knowledge import Libraries, Library
from model_worker.cascade.retrieval import Embedder
from tests.model_worker.conftest import Models

CALLER, AGENT = Role.CALLER, Role.HUMAN_AGENT


@pytest.fixture(scope="module")
def library(models: Models) -> Library:
    directory: Path = models("minilm")
    return Libraries(Embedder(directory)).get(Knowledge(GARAGE).cards()).result()


def met(finder: HintFinder, text: str, library: Library) -> list[str]:
    """The sources of the cards that come up while `text` is said, and once it is over."""
    words = text.split()
    texts = [" ".join(words[:count]) for count in range(1, len(words) + 1)]
    found = [finder.look(running, library) for running in texts]
    finder.finish(text)
    return [f.card.source.partition("#")[2] for f in [*found, finder.look_again(text, library)] if f is not None]


@pytest.mark.parametrize(
    ("who", "said", "expected"),
    [
        (
            CALLER,
            "Hi, um, my tyre pressure light came on this morning and I don't know what to do",
            "tyre-pressure-light",
        ),
        (CALLER, "So the check engine light is on since yesterday, it's orange, is that bad", "check-engine-light"),
        (CALLER, "I was wondering how much you guys charge for new brake pads on the front", "price-of-brake-pads"),
        (CALLER, "Do you have a loan car I could use while you're working on mine", "loan-car"),
        (
            CALLER,
            "My car broke down on the highway and it won't start, can somebody come and fetch it",
            "towing-and-breakdown",
        ),
        (
            CALLER,
            "Something came up at work so I need to move my appointment to another day",
            "cancelling-or-moving-an-appointment",
        ),
        (
            CALLER,
            "I won't make it before six, can I still pick up my car after you close",
            "collecting-the-car-after-hours",
        ),
        (
            AGENT,
            "Sure, so you'd like to know what the full service costs and what is included",
            "price-of-a-full-service",
        ),
        (AGENT, "Let me check for you how long the warranty is on that repair", "warranty"),
        (CALLER, "I was driving along and then the red oil can lit up on the dashboard", "red-oil-light-while-driving"),
        (
            AGENT,
            "Do you want to turn around and come back so we can switch it off for you",
            "coming-back-to-have-the-light-switched-off",
        ),
        (
            AGENT,
            "I can talk you through how to reset that maintenance light yourself",
            "resetting-the-maintenance-light-of-a-hyundai-elantra",
        ),
        (CALLER, "Okay and how can I avoid that the next time I come to you", "check-before-leaving"),
        (CALLER, "We had such lovely weather at the weekend, the kids were in the garden all day", None),
        (CALLER, "Yeah, okay, no, that makes sense, thank you so much, I really appreciate it", None),
        (AGENT, "Good morning, this is Terry speaking, how can I help you today?", None),
        (AGENT, "Okay, give me just one second here, I'm going to look that up for you real quick", None),
        (AGENT, "If you're able to just walk out to the car and sit down in it, I'll stay on the phone", None),
        (CALLER, "Okay, so I'm at the car, am I starting on the inside or the outside of the car", None),
        (AGENT, "Can I have your name please, and the number I can reach you on?", None),
        (AGENT, "When you drove off the lights were fine, right, and you got home all right", None),
        (CALLER, "Let me just get my keys and walk outside to the car, one second", None),
        (AGENT, "You have to set your clock again, the hours and the minutes, with those two little buttons", None),
        (AGENT, "The boys forget that sometimes when they are in a hurry and it's busy all day", None),
        (AGENT, "I'm going to leave it on my desk and ring you back in about ten minutes", None),
        (CALLER, "I left my phone in the car I think, it's on the back seat", None),
    ],
)
def test_what_is_said_brings_up_its_card_and_no_other(
    library: Library, who: Role, said: str, expected: str | None
) -> None:
    assert met(HintFinder(Proposed(), who), said, library) == ([expected] if expected else [])


def test_words_without_content_bring_nothing_up(library: Library) -> None:
    """What was said before is in view still, but nobody asks for it by "uh, okay"."""
    finder = HintFinder(Proposed(), AGENT)
    assert met(finder, "and there is a yard for customers", library) == []
    for reply in ("uh, okay", "yeah yeah right", "what? what?", "so you're going to"):
        assert met(finder, reply, library) == []


def test_a_card_comes_up_once_whoever_asks(library: Library) -> None:
    proposed = Proposed()
    caller, agent = HintFinder(proposed, CALLER), HintFinder(proposed, AGENT)
    assert met(caller, "do you have a loan car for me", library) == ["loan-car"]
    assert met(agent, "whether we have a loan car, yes we have a loan car for you", library) == []
    assert met(caller, "a loan car, can I borrow a loan car then", library) == []
