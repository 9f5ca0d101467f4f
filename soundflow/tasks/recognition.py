"""Real-time recognition: every utterance is written when it has ended, nothing else is."""

from __future__ import annotations

from dataclasses import replace

from calls.model import Mode
from soundflow.channel import WIDEBAND, Channel
from soundflow.compose import Plan
from soundflow.tasks.draw import Draw, SubTask
from soundflow.tasks.words import BACKCHANNELS, NAMES, SURNAMES, sentence

WRITE = "Write what is said, sentence by sentence."
_SPELL = "Write what is said. Numbers are written digit by digit, spelled words letter by letter."
_TWO = "Write what is said, and in front of it which speaker it is: the first that you hear is 1."


def _sentences(draw: Draw) -> Plan:
    voices = draw.voices()
    said = []
    for _ in range(draw.any((1, 2, 3))):
        text = draw.pick(BACKCHANNELS) if draw.chance(0.15) else sentence(draw.content)
        said.append(draw.say(text, voices).answered(text))
    return draw.plan(Mode.TRANSCRIBE, WRITE, draw.padded(said))


def clean(draw: Draw) -> Plan:
    return replace(_sentences(draw), channel=WIDEBAND)


def telephone(draw: Draw) -> Plan:
    line = Channel(
        law="mulaw" if draw.rng.random() < 0.5 else "alaw",
        gain_db=float(draw.rng.uniform(-6.0, 3.0)),
        loss=float(draw.rng.choice([0.0, 0.0, 0.01, 0.03])),
        noise_db=float(draw.rng.uniform(-70.0, -48.0)),
    )
    return replace(_sentences(draw), channel=line)


def spelled(draw: Draw) -> Plan:
    """Digits in groups, or a name letter by letter: a pause inside is no end."""
    voices, said = draw.voices(), []
    for _ in range(draw.any((1, 2, 3))):
        if draw.chance(0.7):
            length = int(draw.rng.choice([1, 1, 1, 3, 4, 6]))
            digits = "".join(str(d) for d in draw.rng.integers(0, 10, length))
            short, long = float(draw.rng.uniform(0.02, 0.2)), float(draw.rng.uniform(0.4, 0.9))
            event = draw.digits(digits, voices, lambda i, s=short, g=long: g if i % 3 == 2 else s)  # type: ignore[misc]
            said.append(event.answered(event.heard))
        else:
            name = draw.pick(NAMES) if draw.chance(0.5) else draw.pick(SURNAMES)
            letters = ", ".join(name.upper()) + "."
            event = draw.say(letters, voices)
            said.append(event.answered(" ".join(name.upper())))
    return draw.plan(Mode.TRANSCRIBE, _SPELL, draw.padded(said))


def two_speakers(draw: Draw) -> Plan:
    people, said = draw.people(2), []
    for turn in range(draw.any((2, 3, 4))):
        who = turn % len(people) if draw.chance(0.85) else 0
        event = draw.talk(people[who])
        said.append(event.answered(f"{who + 1}: {event.heard}"))
    return draw.plan(Mode.TRANSCRIBE, _TWO, draw.padded(said))


TASKS = (
    SubTask("recognition/clean", "recognition", "an utterance's words, when it has ended; sounds are silent", clean),
    SubTask("recognition/telephone", "recognition", "the same through G.711 with noise and lost packets", telephone),
    SubTask("recognition/spelled", "recognition", "digits and letters when all are said; not in a pause", spelled),
    SubTask(
        "recognition/two-speakers",
        "recognition",
        "words with the speaker's number in front",
        two_speakers,
        looks_back=True,
    ),
)
