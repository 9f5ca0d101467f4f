"""Which suites there are, what each is made of, and how many items it will have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model_worker.evaluation import composing
from model_worker.evaluation.composing import Rng, Suite
from model_worker.evaluation.line import line_noise, quiet_room, tones
from model_worker.evaluation.sources import Clip, SourceError

Fill = Callable[[Suite, Rng], None]
SOUND_ASKED = "Tell me when you hear this sound: {}. Stay silent at anything else."
SOUND_COUNTED = "Each time you hear this sound, say how many times it has come: {}. Stay silent at anything else."
WORD_ASKED = "When somebody says the number {}, repeat it. Stay silent at anything else."

OF_SOUNDS = ("single", "five", *(f"concat-{count}" for count in range(1, 6)), "late-5s", "late")
NEEDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(OF_SOUNDS, ("sounds",)),
    "recognition": ("prompts",),
    "digits": ("digits",),
    "instruction": ("sounds", "digits"),
    **dict.fromkeys(("silence", "line-noise", "telephone"), ()),
    "hold-music": ("music",),
}
"""Every suite, and the options of which one must give what it is made of."""


@dataclass(frozen=True, slots=True)
class Material:
    """What the suites are made of. `missing`: the options that gave nothing, each with what to say of it."""

    sounds: Sequence[Clip]
    digits: Sequence[Clip]
    prompts: Sequence[Clip]
    music: Sequence[Path]
    missing: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """A suite that has still to be made. Without items it cannot be made."""

    name: str
    items: int
    fill: Fill


def plans(material: Material, hours: float, minutes: float, seed: int) -> list[Plan]:
    """One of each suite in NEEDS: `hours` of nothing, `minutes` before the late sounds."""
    prompts, digits = material.prompts, material.digits
    return [
        *_of_sounds(material.sounds, minutes, seed),
        Plan("recognition", len(prompts), lambda suite, rng: composing.spoken(suite, prompts, "recognition")),
        Plan("digits", len(digits), lambda suite, rng: composing.spoken(suite, digits, "digits")),
        _of_instructions(material.sounds, digits),
        *_of_nothing(hours, material.music),
    ]


def _of_sounds(clips: Sequence[Clip], minutes: float, seed: int) -> Iterator[Plan]:
    mixed = [clips[i] for i in np.random.default_rng(seed).permutation(len(clips))]
    few = composing.one_a_class(clips)
    yield Plan("single", len(clips), lambda suite, rng: composing.single(suite, clips))
    yield Plan("five", len(clips) // 5, lambda suite, rng: composing.several(suite, mixed, 5, True, rng))
    for count in range(1, 6):
        yield Plan(f"concat-{count}", len(clips) // count, _joined(mixed, count))
    yield Plan("late-5s", len(few), lambda suite, rng: composing.late(suite, few, 5.0, rng))
    yield Plan("late", len(few), lambda suite, rng: composing.late(suite, few, minutes * 60, rng))


def _joined(clips: Sequence[Clip], count: int) -> Fill:
    return lambda suite, rng: composing.several(suite, clips, count, False, rng)


def _of_instructions(clips: Sequence[Clip], words: Sequence[Clip]) -> Plan:
    sounds, numbers = (few if composing.enough(few) else [] for few in (clips, words))

    def fill(suite: Suite, rng: Rng) -> None:
        if sounds:
            composing.one_wanted(suite, sounds, SOUND_ASKED, rng)
            composing.counted(suite, sounds, SOUND_COUNTED, rng)
        if numbers:
            composing.one_wanted(suite, numbers, WORD_ASKED, rng)

    of_sounds, of_numbers = ({clip.label for clip in few} for few in (sounds, numbers))
    return Plan("instruction", 3 * len(of_sounds) + 2 * len(of_numbers), fill)


def _of_nothing(hours: float, music: Sequence[Path]) -> Iterator[Plan]:
    def fill(kind: str, hours: float, make: composing.Make) -> Fill:
        return lambda suite, rng: composing.nothing(suite, kind, hours, make, rng)

    def play(suite: Suite, rng: Rng) -> None:
        composing.nothing(suite, "hold_music", hours, composing.looped(music), rng)

    yield Plan("silence", composing.parts(hours), fill("silence", hours, quiet_room))
    yield Plan("line-noise", composing.parts(hours), fill("line_noise", hours, line_noise))
    yield Plan("telephone", composing.parts(hours / 6), fill("telephone", hours / 6, tones))
    yield Plan("hold-music", composing.parts(hours) if music else 0, play)


def choose(made: Sequence[Plan], only: Sequence[str], missing: Mapping[str, str]) -> tuple[list[Plan], list[str]]:
    """What can be made of the suites `only` (empty: of all), and a line of each reason why others cannot.

    Raises SourceError where one of `only` cannot be made, and where none of all can.
    """
    asked = [plan for plan in made if not only or plan.name in only]
    can = [plan for plan in asked if plan.items]
    names: dict[str, list[str]] = {}
    for plan in asked:
        if not plan.items:
            names.setdefault(_why_not(plan.name, missing), []).append(plan.name)
    lines = [f"{', '.join(group)}: {why}" for why, group in names.items()]
    if (only and lines) or not can:
        raise SourceError(f"cannot make {'; '.join(lines)}")
    return can, lines


def _why_not(name: str, missing: Mapping[str, str]) -> str:
    options = NEEDS[name]
    if options and all(option in missing for option in options):
        return f"give {' or '.join(missing[option] for option in options)}"
    # Music is repeated: one piece of it is enough.
    return "--hours is too short" if options in ((), ("music",)) else "too few recordings"
