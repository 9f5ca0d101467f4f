"""What a sub-task's generator draws from: words, voices, sounds and tones of its split, by two generators.

`content` decides what is said and by whom; it repeats after so many items of a sub-task, so that a build needs only so
many minutes of speech. `rng` decides everything else and never repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from calls.audio import SAMPLE_RATE
from calls.model import Mode
from soundflow import tones
from soundflow.clips import DIGITS
from soundflow.compose import SETTLE_S, Event, Plan
from soundflow.items import Split
from soundflow.material import Material
from soundflow.speech import NotUnderstood, parts_of
from soundflow.tasks.words import sentence

T = TypeVar("T")
ABILITIES = (
    "recognition",
    "translation",
    "voice chat",
    "streaming instructions",
    "understanding",
    "proactive",
    "audio agent",
)
LANGUAGES = {"es": "Spanish", "fr": "French", "de": "German", "it": "Italian", "pt": "Portuguese"}
_CHOICES = 3  # voices that may try to say a sentence so that it is understood


@dataclass
class Draw:
    """One item's worth of choices. `seconds`: about how long the stream should be."""

    task: str
    split: Split
    material: Material
    rng: np.random.Generator
    content: np.random.Generator
    seconds: float

    def pick(self, choices: Sequence[T]) -> T:
        """Of what is said."""
        return choices[int(self.content.integers(len(choices)))]

    def any(self, choices: Sequence[T]) -> T:
        """Of what is done."""
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, probability: float) -> bool:
        """Of what is said or asked: it repeats with `content`."""
        return bool(self.content.random() < probability)

    def voices(self, language: str = "en") -> list[str]:
        """A speaker, and others to take over a sentence that the first cannot say. Draw once for each person."""
        cast = self.material.cast
        there = cast.voices(self.split) if language == "en" else cast.foreign(language, self.split)
        order = self.content.permutation(len(there))[:_CHOICES]
        return [there[int(place)] for place in order]

    def people(self, count: int) -> list[str]:
        """So many voices that can be told apart, as they have nothing in common, or as many as the split has. Nobody
        takes over a sentence of another's, or one person would sound like two."""
        there = self.material.cast.voices(self.split)
        chosen: list[str] = []
        for place in self.content.permutation(len(there)):
            if not parts_of(chosen) & parts_of([there[int(place)]]):
                chosen.append(there[int(place)])
        return chosen[:count]

    def say(self, text: str, voices: Sequence[str], gap_s: float | None = None) -> Event:
        """An utterance, silent until it is `answered`."""
        said = self.material.speech.say(text, voices)
        return Event(said.pcm, text, "speech", sources=(said.voice,), gap_s=gap_s, settle_s=SETTLE_S)

    def talk(self, voice: str) -> Event:
        """A sentence about nothing, and another one where the voice is not understood."""
        for _ in range(_CHOICES):
            try:
                return self.say(sentence(self.content), [voice])
            except NotUnderstood:
                continue
        return self.say(sentence(self.content), [voice])

    def digits(self, digits: str, voices: Sequence[str], pause_s: Callable[[int], float]) -> Event:
        """A string of digits one by one, by a recorded speaker where there is one; `pause_s(i)` after the i-th."""
        recorded = self.material.digits(self.rng, self.split, digits)
        if recorded is None:
            recorded = [(said.pcm, said.sources[0]) for said in (self.say(DIGITS[int(d)], voices) for d in digits)]
        parts = []
        for place, (pcm, _) in enumerate(recorded):
            parts.append(pcm)
            parts.append(np.zeros(int(pause_s(place) * SAMPLE_RATE), np.float32))
        words = " ".join(DIGITS[int(d)] for d in digits)
        sources = tuple(dict.fromkeys(source for _, source in recorded))
        return Event(np.concatenate(parts[:-1]), words, "digits", sources=sources, settle_s=SETTLE_S)

    def sound(self, label: str) -> Event:
        return self.material.sound(self.rng, self.split, label)

    def labels(self, respond: bool | None = None) -> list[str]:
        return self.material.labels(self.split, respond)

    def background(self, but: Sequence[str] = ()) -> Event:
        """A sound that the policy calls background: a hard negative."""
        return self.sound(self.any([label for label in self.labels(respond=False) if label not in but]))

    def tone(self, name: str, seconds: float) -> Event:
        """Ringback, busy, congestion or dial tone of some country."""
        country = self.any(sorted(tones.PLANS))
        begin = float(self.rng.uniform(0.0, 1.0)) if name in ("busy", "congestion") else 0.0
        pcm = tones.progress_tone(country, name, seconds, begin_s=begin)
        return Event(pcm, name, name, sources=(f"tones/{country}/{name}",))

    def beep(self) -> Event:
        """A voicemail's."""
        hz, seconds = float(self.rng.uniform(400.0, 1_500.0)), float(self.rng.uniform(0.15, 1.0))
        return Event(tones.voicemail_beep(hz, seconds), "a beep", "voicemail_beep", sources=("tones/beep",))

    def line_sound(self) -> Event:
        """A telephone sound as background."""
        kind = self.any(("ringback", "busy", "congestion", "sit", "fax", "beep", "music"))
        if kind == "sit":
            name = self.any(sorted(tones.SIT))
            return Event(tones.special_information(name), "three rising tones", "sit", sources=(f"tones/sit/{name}",))
        if kind == "fax":
            return Event(tones.fax_calling(4.0), "a fax calling", "fax", sources=("tones/fax",))
        if kind == "beep":
            return self.beep()
        if kind == "music":
            return self.material.music(self.rng, self.split, float(self.rng.uniform(3.0, 8.0)))
        return self.tone(kind, float(self.rng.uniform(2.0, 6.0)))

    def quiet(self, heard: str, label: str, seconds: float) -> Event:
        """Nothing to be heard for so long, as an event of its own."""
        return Event(np.zeros(int(seconds * SAMPLE_RATE), np.float32), heard, label, gap_s=0.0)

    def padded(self, events: Sequence[Event], *, but: Sequence[str] = (), lines: float = 0.2) -> tuple[Event, ...]:
        """The events, with background sounds in front and quiet between until the stream is about `seconds` long: so
        that an event's time in the stream says nothing."""
        made = list(events)
        spare = self.seconds - sum(event.seconds + (1.6 if event.gap_s is None else event.gap_s) for event in made)
        front: list[Event] = []
        while spare > 3.0:
            if self.rng.random() < 0.4:
                quiet = float(self.rng.uniform(1.0, min(spare, 6.0)))
                first = made[0]
                made[0] = replace(first, gap_s=(1.6 if first.gap_s is None else first.gap_s) + quiet)
                spare -= quiet
                continue
            extra = self.line_sound() if self.rng.random() < lines else self.background(but)
            front.append(extra)
            spare -= extra.seconds + 1.6
        return (*front, *made)

    def plan(self, mode: Mode, instruction: str, events: Sequence[Event], *, quiet: bool = False) -> Plan:
        return Plan(self.task, mode, instruction, tuple(events), quiet=quiet)


@dataclass(frozen=True, slots=True)
class SubTask:
    """One of the 28. `rule` says in a sentence what is labelled how. `looks_back`: what is right at its end may
    depend on what was heard at its beginning."""

    name: str
    ability: str
    rule: str
    make: Callable[[Draw], Plan]
    looks_back: bool = False
