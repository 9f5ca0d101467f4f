from __future__ import annotations

import pytest

from model_worker.evaluation.labels import names


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
