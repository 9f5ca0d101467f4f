"""Proactive response: nobody asks, and it must be said; and far more that is heard and needs nothing."""

from __future__ import annotations

from dataclasses import replace

from calls.model import Mode
from soundflow.compose import Event, Plan
from soundflow.tasks.draw import Draw, SubTask
from soundflow.tasks.words import BACKCHANNELS, sentence

CAREFUL = "Help when it is needed. Say when a sound tells of danger or need."
_HINT = "You help an employee on a call. Warn of sounds that tell of danger or need on the caller's side."
DEAD_AIR_S = 8.0
_DEAD_AIR = f"When nobody has said anything for {DEAD_AIR_S:.0f} seconds, remind the employee to speak."
_DISCLOSURE = "The employee must say that the call is recorded before asking for a card number. Warn if not."
DISTRESS = (
    "Help me, please, somebody is at the door.",
    "I cannot breathe.",
    "I have fallen and I cannot get up.",
    "There is smoke everywhere.",
    "My chest hurts so much.",
    "He is not waking up.",
    "Please, I need an ambulance.",
    "Somebody is hurting me.",
)
CALM = (
    "That helps me a lot, thank you.",
    "The price took my breath away.",
    "The parcel has fallen off the shelf.",
    "We do not smoke.",
    "The front door hurts the look of the house.",
    "He is not waking up early on Sundays.",
    "The ambulance museum is closed today.",
    "It does not hurt to ask.",
)
"""Words of distress, without distress."""
_ASK = "I heard that. Are you safe? I can call for help."
DISCLOSED = ("This call is recorded for quality.", "Just so you know, we record this call.", "Our calls are recorded.")
CARD = (
    "Can you give me your card number, please?",
    "Now I need the number on your credit card.",
    "Please read me your card number.",
)


def safety_sound(draw: Draw) -> Plan:
    """Sounds of both kinds, often confusable ones, fill the stream; in a fifth of all nothing deserves a response."""
    answering = bool(draw.rng.random() < 0.5)
    wanted = int(draw.rng.choice([0, 1, 1, 1, 2, 2, 3])) if draw.seconds > 12 else int(draw.rng.choice([0, 1, 1]))
    events: list[Event] = []
    for _ in range(wanted):
        label = draw.any(draw.labels(respond=True))
        events.append(_warned(draw, label, answering))
        near = draw.material.confusable(label, draw.split)
        if near and draw.rng.random() < 0.6:
            events.append(draw.sound(draw.any(near)))
    events += [draw.background() for _ in range(1 if wanted else 2)]
    if draw.rng.random() < 0.25:
        events.append(draw.say(draw.pick(BACKCHANNELS), draw.voices()))
    order = draw.rng.permutation(len(events))
    shuffled = draw.padded([events[i] for i in order], lines=0.3)
    return draw.plan(Mode.ANSWER if answering else Mode.ASSIST, CAREFUL if answering else _HINT, shuffled)


def _warned(draw: Draw, label: str, answering: bool) -> Event:
    policy = draw.material.policy(label)
    if not answering:
        reply = f"{policy.name.capitalize()}: {policy.advice}."
    elif label == "person_sneeze":
        reply = "Bless you."
    elif policy.safety:
        reply = f"I can hear {policy.name}. Are you safe?"
    else:
        reply = f"I can hear {policy.name}. Shall I wait a moment?"
    return draw.sound(label).answered(reply, policy.emotion)


def distress(draw: Draw) -> Plan:
    """Words of distress; beside them the same words without it."""
    events = []
    for _ in range(draw.any((1, 2, 3))):
        voices = draw.voices()
        if draw.chance(0.45):
            events.append(draw.say(draw.pick(DISTRESS), voices).answered(_ASK, "urgent"))
        else:
            events.append(draw.say(draw.pick(CALM) if draw.chance(0.7) else sentence(draw.content), voices))
    instruction = "Listen. Answer only if somebody is in danger or needs help at once."
    return draw.plan(Mode.ANSWER, instruction, draw.padded(events, but=()))


def dead_air(draw: Draw) -> Plan:
    """Eight seconds after the last word; a pause that is shorter is only a pause."""
    voices = draw.voices()
    events = [draw.say(sentence(draw.content), voices)]
    for _ in range(draw.any((0, 1))):
        events.append(draw.say(sentence(draw.content), voices, float(draw.rng.uniform(2.0, DEAD_AIR_S - 2.0))))
    if draw.rng.random() < 0.7:
        dead = draw.quiet("nobody says anything", "dead_air", DEAD_AIR_S)
        events.append(dead.answered("Nobody has spoken for a while: ask whether they are still there."))
        if draw.rng.random() < 0.5:
            events.append(draw.say(sentence(draw.content), voices))
    tail = float(draw.rng.uniform(0.8, 4.0))
    return replace(draw.plan(Mode.ASSIST, _DEAD_AIR, events, quiet=True), tail_s=tail)


def disclosure(draw: Draw) -> Plan:
    """The employee's side of a call: told or forgotten, then the card number."""
    voices = draw.voices()
    told = draw.chance(0.5)
    events = [draw.say("Thank you for calling, how can I help?", voices)]
    if told:
        events.append(draw.say(draw.pick(DISCLOSED), voices))
    events += [draw.say(sentence(draw.content), voices) for _ in range(draw.any((0, 1)))]
    asks = draw.say(draw.pick(CARD), voices)
    warning = "You have not said that this call is recorded."
    events.append(asks if told else asks.answered(warning, "urgent"))
    return draw.plan(Mode.ASSIST, _DISCLOSURE, draw.padded(events))


TASKS = (
    SubTask("proactive/safety-sound", "proactive", "sounds of danger or need, by the sound policy", safety_sound),
    SubTask("proactive/distress", "proactive", "words of distress; the same words without it are silent", distress),
    SubTask("proactive/dead-air", "proactive", "after eight seconds without a word", dead_air),
    SubTask(
        "proactive/disclosure",
        "proactive",
        "a card number asked for, and no recording disclosed",
        disclosure,
        looks_back=True,
    ),
)
