from __future__ import annotations

import pytest

from model_worker.evaluation.labels import SAFETY, names, plain
from model_worker.evaluation.sources import ESC_10
from model_worker.sounds import ALIASES, RESPOND, Sound, deserving
from soundflow.policy import sound


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I hear a baby in the background.", "baby_cry"),
        ("Is that a child who cries?", "crying_baby"),
        ("Something is burning!", "fire_crackling"),
        ("He keeps sneezing.", "person_sneeze"),
        ("7.", "seven"),
        ("Seven", "7"),
        ("A door slams: doors!", "door_slam"),
    ],
)
def test_named(text: str, label: str) -> None:
    assert names(text, label)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("sixty", "six"),
        ("for", "four"),
        ("There is a crowd.", "rooster"),
        ("A rainbow.", "rain"),
        ("A door.", "door_slam"),
        ("", "siren"),
        ("siren", ""),
    ],
)
def test_not_named(text: str, label: str) -> None:
    assert not names(text, label)


@pytest.mark.parametrize("one", RESPOND, ids=lambda one: one.label)
def test_what_models_are_taught_to_say_names_it(one: Sound) -> None:
    assert names(one.hint(), one.label)


def test_there_is_one_list_of_safety_sounds() -> None:
    for one in RESPOND:
        for label in (one.label, *(other for other, own in ALIASES.items() if own == one.label)):
            assert (plain(label) in SAFETY) == one.safety, label
    assert {label for label in ESC_10 if plain(label) in SAFETY} == {
        "baby_cry", "crying_baby", "fire_crackling", "crackling_fire", "chainsaw",
    }  # fmt: skip


def test_what_deserves_a_response_is_the_same_where_models_are_trained_and_where_they_are_measured() -> None:
    for label in ESC_10:
        policy = sound(label)
        assert policy
        assert (deserving(label) is not None) == policy.respond, label
