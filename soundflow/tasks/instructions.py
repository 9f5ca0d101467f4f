"""Streaming instructions: what deserves a response is what one was told, before the stream or in it."""

from __future__ import annotations

from calls.model import Mode
from soundflow.clips import DIGITS
from soundflow.compose import Event, Plan
from soundflow.tasks.draw import Draw, SubTask

_NUMBERS = (*DIGITS, "ten", "eleven", "twelve")
_COUNT = "Count how often you hear {what}. Each time say how many it has been."
_ASKED = "Count how often you hear {what}. Say the number only when you are asked."
_WHEN = "Tell me when you hear {what}. Nothing else is of interest."
_STOP = "Tell me each time when you hear {what}. Stop when you are told to, go on when you are told to."
_CHANGE = "Tell me each time when you hear {what}, until I tell you to listen for something else."


def count(draw: Draw) -> Plan:
    """Aloud each time, or only when asked."""
    label, others = _wanted(draw)
    what, times = draw.material.policy(label).name, int(draw.rng.integers(1, 5))
    aloud = bool(draw.rng.random() < 0.5)
    events: list[Event] = []
    for number in range(1, times + 1):
        heard = draw.sound(label)
        events.append(heard.answered(f"{_NUMBERS[number].capitalize()}.", early=True) if aloud else heard)
        if draw.rng.random() < 0.4:
            events.append(draw.sound(draw.any(others)))
    if not aloud:
        question = draw.pick(("How many was that?", "How many so far?", "What is the count?"))
        events.append(draw.say(question, draw.voices()).answered(f"{_NUMBERS[times].capitalize()}."))
    return draw.plan(
        Mode.ASSIST, (_COUNT if aloud else _ASKED).format(what=what), draw.padded(events, but=[label]), quiet=True
    )


def tell_when(draw: Draw) -> Plan:
    """One sound among others; sometimes it never comes."""
    label, others = _wanted(draw)
    name = draw.material.policy(label).name
    events = [draw.sound(draw.any(others)) for _ in range(draw.any((1, 2, 3)))]
    if draw.rng.random() < 0.8:
        events.insert(int(draw.rng.integers(len(events) + 1)), draw.sound(label).answered(f"Now: {name}.", early=True))
    return draw.plan(Mode.ASSIST, _WHEN.format(what=name), draw.padded(events, but=[label]), quiet=True)


def stop_resume(draw: Draw) -> Plan:
    label, others = _wanted(draw)
    name, voices = draw.material.policy(label).name, draw.voices()
    stop = draw.pick(("Stop now.", "Please stop telling me.", "That is enough for now."))
    resume = draw.pick(("Go on.", "You can go on now.", "Please start again."))
    told = draw.sound(label).answered(f"There is {name}.", early=True)
    events = [told, draw.say(stop, voices).answered("All right, I stop.")]
    events += [draw.sound(draw.any([label, draw.any(others)])) for _ in range(draw.any((1, 2)))]
    if draw.rng.random() < 0.7:
        events.append(draw.say(resume, voices).answered("I go on."))
        events.append(draw.sound(label).answered(f"There is {name}.", early=True))
    return draw.plan(Mode.ASSIST, _STOP.format(what=name), draw.padded(events, but=[label]), quiet=True)


def changed(draw: Draw) -> Plan:
    """From some point on, another sound is the one."""
    label, others = _wanted(draw)
    other = draw.pick(others)
    one, two = draw.material.policy(label).name, draw.material.policy(other).name
    events = [draw.sound(label).answered(f"There is {one}.", early=True)]
    if draw.rng.random() < 0.6:
        events.insert(0, draw.sound(other))
    events.append(draw.say(f"Now listen for {two} instead.", draw.voices()).answered(f"All right, {two}."))
    after = [draw.sound(label), draw.sound(other).answered(f"There is {two}.", early=True)]
    events += after if draw.rng.random() < 0.5 else after[::-1]
    return draw.plan(Mode.ASSIST, _CHANGE.format(what=one), draw.padded(events, but=[label, other]), quiet=True)


def _wanted(draw: Draw) -> tuple[str, list[str]]:
    """A class to listen for, and the others."""
    labels = [label for label in draw.labels() if label not in ("crackle", "hum", "wind", "music")]
    label = draw.pick(labels)
    return label, [other for other in labels if other != label]


TASKS = (
    SubTask(
        "instructions/count",
        "streaming instructions",
        "the number, each time or when asked; other sounds are silent",
        count,
        looks_back=True,
    ),
    SubTask("instructions/tell-when", "streaming instructions", "at the wanted sound only, if it comes", tell_when),
    SubTask(
        "instructions/stop-resume",
        "streaming instructions",
        "at the wanted sound, but not between stop and go on",
        stop_resume,
        looks_back=True,
    ),
    SubTask(
        "instructions/changed",
        "streaming instructions",
        "at the first sound before the spoken change, at the second after",
        changed,
        looks_back=True,
    ),
)
