"""Streaming audio understanding: what one hears, said when one has heard it."""

from __future__ import annotations

from dataclasses import replace

from calls.model import Mode
from soundflow import tones
from soundflow.compose import Event, Plan
from soundflow.tasks.draw import Draw, SubTask
from soundflow.tasks.words import NAMES, sentence

_NAME = "Name every sound that you hear. Speech is of no interest."
_PROGRESS = "You place a call. Write the state of the far end when it changes: ringing, busy, music, voicemail, person."
_SPEAKERS = "When you are asked how many people have spoken, say how many, the one who asks included."
_QUESTION = "Answer questions about what was to be heard on this call."
_DUE_S = 4.0  # a line that rings or plays music is told of so soon, and once
_COUNTED = ("", "One.", "Two.", "Three.")
VOICEMAIL = (
    "Hi, this is {name}. I cannot come to the phone right now. Leave a message after the beep.",
    "You have reached the mailbox of {name}. Please leave a message after the tone.",
    "The person you are calling is not available. Please record your message.",
)
HELLOS = ("Hello?", "Hello, this is {name}.", "Yes, hello, who is this?", "{name} speaking.")


def name_sound(draw: Draw) -> Plan:
    """Here every sound is worth its name, the background ones too."""
    events = []
    for _ in range(draw.any((1, 2, 3, 4))):
        heard = draw.sound(draw.any(draw.labels()))
        events.append(heard.answered(f"{heard.heard.capitalize()}.", early=True))
    if draw.rng.random() < 0.4:
        place = int(draw.rng.integers(len(events) + 1))
        events.insert(place, draw.say(sentence(draw.content), draw.voices()))
    return draw.plan(Mode.ASSIST, _NAME, events, quiet=True)


def call_progress(draw: Draw) -> Plan:
    """A call that is placed, from ringback to whoever or whatever takes it. Each state is written once."""
    events: list[Event] = []
    ways = ("busy", "congestion", "intercept", "fax", "voicemail", "hold", "person")
    way = draw.any(ways)
    if way not in ("busy", "congestion", "intercept") or draw.rng.random() < 0.2:
        ringing = draw.tone("ringback", float(draw.rng.uniform(4.0, 12.0)))
        events.append(replace(ringing.answered("Ringing.", early=True), within_s=_DUE_S))
    if way in ("busy", "congestion"):
        said = "Busy." if way == "busy" else "Congestion: no line."
        events.append(draw.tone(way, float(draw.rng.uniform(2.0, 5.0))).answered(said, early=True))
    elif way == "intercept":
        kind = draw.any(sorted(tones.SIT))
        heard = Event(tones.special_information(kind), "three rising tones", "sit", sources=(f"tones/sit/{kind}",))
        events.append(heard.answered("The number cannot be reached."))
    elif way == "fax":
        pcm = tones.fax_answer(float(draw.rng.uniform(2.6, 4.0)), v8=bool(draw.rng.random() < 0.5))
        heard = Event(pcm, "a fax answering", "fax", early=True, sources=("tones/fax",))
        events.append(heard.answered("A fax machine."))
    elif way == "voicemail":
        text = draw.pick(VOICEMAIL).format(name=draw.pick(NAMES))
        events.append(draw.say(text, draw.voices()))
        events.append(draw.beep().after(float(draw.rng.uniform(0.3, 1.2))).answered("Voicemail: speak after the beep."))
    else:
        events += _taken(draw, hold=way == "hold")
    return draw.plan(Mode.ASSIST, _PROGRESS, events, quiet=True)


def _taken(draw: Draw, *, hold: bool) -> list[Event]:
    """Music first, or not, and then somebody."""
    events = []
    if hold:
        music = draw.material.music(draw.rng, draw.split, float(draw.rng.uniform(4.0, 15.0)))
        events.append(replace(music.answered("Hold music.", early=True), within_s=_DUE_S))
    text = draw.pick(HELLOS).format(name=draw.pick(NAMES))
    return [*events, draw.say(text, draw.voices()).answered("A person has answered.")]


def how_many(draw: Draw) -> Plan:
    """One to three people, in any order; then one of them asks."""
    people = draw.people(draw.any((1, 2, 3)))
    turns = [*range(len(people)), *draw.rng.integers(0, len(people), int(draw.rng.integers(0, 2)))]
    events = [draw.talk(people[int(who)]) for who in draw.rng.permutation(turns)]
    asks = draw.say("How many people have spoken?", people).answered(_COUNTED[len(people)])
    return draw.plan(Mode.ASSIST, _SPEAKERS, draw.padded([*events, asks]), quiet=True)


def question(draw: Draw) -> Plan:
    """Which came first, which last, how many, was there one at all."""
    labels = {draw.material.policy(label).name: label for label in draw.labels() if label not in ("crackle", "hum")}
    names = [list(labels)[i] for i in draw.rng.permutation(len(labels))]
    there = names[: min(draw.any((1, 2, 3)), len(names) - 1)]
    absent = names[len(there)]
    heard = [draw.sound(labels[name]) for name in there]
    asks, answer = draw.pick(
        (
            ("What was the first sound?", f"{there[0].capitalize()}."),
            ("What was the last sound?", f"{there[-1].capitalize()}."),
            ("Which sounds have you heard?", f"{', then '.join(there).capitalize()}."),
            ("How many sounds were there?", _COUNTED[len(there)]),
            (f"Did you hear {draw.any(there)}?", "Yes."),
            (f"Did you hear {absent}?", "No."),
        )
    )
    gap = float(draw.rng.uniform(0.8, 5.0))
    asked = draw.say(asks, draw.voices(), gap).answered(answer)
    return draw.plan(Mode.ASSIST, _QUESTION, [*heard, asked], quiet=True)


TASKS = (
    SubTask("understanding/name-sound", "understanding", "the sound's name; sentences are silent", name_sound),
    SubTask("understanding/call-progress", "understanding", "each new state of the far end once", call_progress),
    SubTask(
        "understanding/how-many-speakers",
        "understanding",
        "the number of voices, when asked",
        how_many,
        looks_back=True,
    ),
    SubTask(
        "understanding/question", "understanding", "which sounds there were, when asked", question, looks_back=True
    ),
)
