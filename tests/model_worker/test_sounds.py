"""Whether a model's text tells of a sound."""

from __future__ import annotations

import pytest

from model_worker.sounds import RESPOND, Sound, named


@pytest.mark.parametrize("sound", RESPOND, ids=lambda sound: sound.label)
def test_every_sound_is_known_by_its_name_alone_and_in_a_sentence(sound: Sound) -> None:
    assert named(sound.name) is sound
    assert named(f" {sound.name.capitalize()}: {sound.advice}.") is sound
    assert named(f"I can hear {sound.name}. Are you safe?") is sound
    assert sound.hint().startswith(sound.name.capitalize())


@pytest.mark.parametrize(
    "text", ["", "seven", "somebody is speaking", "I saw nine", "a sneezewort", "a dog barking", "a baby", "a, b, cry"]
)
def test_nothing_else_is_a_sound(text: str) -> None:
    assert named(text) is None


def test_of_several_it_is_the_first() -> None:
    found = named("A smoke alarm, and a baby crying")
    assert found is not None
    assert found.label == "smoke_alarm"


def test_no_two_hints_are_alike_enough_to_be_taken_for_one() -> None:
    titles = [set(sound.name.split()) for sound in RESPOND]
    shared = [len(a & b) / len(a | b) for i, a in enumerate(titles) for b in titles[:i]]
    assert max(shared) < 0.6  # from there on the agent's policy thinks that it was shown before
