"""The audio agent: what it hears becomes a card, a call of a tool, a transfer, a disposition.

A tool's call is written as JSON: {"tool": name, ...arguments}.
"""

from __future__ import annotations

import json
from dataclasses import replace

from calls.model import Mode
from soundflow import tones
from soundflow.clips import DIGITS
from soundflow.compose import Event, Plan
from soundflow.tasks.chat import CLOSINGS
from soundflow.tasks.draw import Draw, SubTask
from soundflow.tasks.words import BACKCHANNELS, DAYS, HOURS, NAMES, THINGS, sentence

# (title, text, questions)
CARDS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "Returns",
        "Within 30 days, with the receipt.",
        ("Can I send it back?", "How long do I have to return it?", "I want my money back."),
    ),
    (
        "Delivery",
        "Three working days; ten euros abroad.",
        ("When will it be delivered?", "How long does delivery take?", "Do you deliver abroad?"),
    ),
    (
        "Warranty",
        "Two years; not for batteries.",
        ("Is it still under warranty?", "Does the warranty cover the battery?", "How long is the warranty?"),
    ),
    (
        "Password",
        "Reset by the link in the app, under Account.",
        ("I forgot my password.", "How do I reset my password?", "I cannot log in."),
    ),
    (
        "Oil light",
        "Stop the engine and call a tow truck.",
        ("My oil light is on.", "What does the red oil lamp mean?", "The oil lamp does not go off."),
    ),
    (
        "Invoice",
        "Sent by mail on the first of the month.",
        ("Where is my invoice?", "When do I get the bill?", "I need a copy of my invoice."),
    ),
)
_CARD = "When the caller asks what a card answers, show the card."
_TOOLS = (
    "Call a tool when the caller asks for it. Tools: order_status(order), book(day, hour), call_back(name). "
    'Write {"tool": name, ...}.'
)
_HUMAN = 'When the caller wants to speak to a person, write {"tool": "transfer"}. Else do nothing.'
_DISPOSITION = "When the call is over, write in a few words how it ended."
HUMAN = (
    "I want to speak to a person.",
    "Can I talk to a human, please?",
    "Give me somebody real.",
    "Agent. Agent!",
    "Please connect me with an employee.",
    "No machine. I want a real person.",
)
NO_HUMAN = (
    "The person I spoke to yesterday was very nice.",
    "It is only human to forget.",
    "I will speak to my wife first.",
    "My agent sold the house.",
    "There was a real problem with it.",
    "A person from your firm came on {day}.",
)
# (what is said near the end, how the call ended)
ENDINGS: tuple[tuple[str, str], ...] = (
    ("Good, so I come on {day} at {hour} o'clock.", "Appointment: {day}, {hour} o'clock."),
    ("Then please cancel it.", "Cancelled at the caller's wish."),
    ("Fine, I will send the {thing} back.", "Return: {thing}."),
    ("Then I will think about it and call again.", "Undecided, calls again."),
    ("It works now, wonderful.", "Solved on the call."),
    ("I am not paying that. This is outrageous.", "Complaint, not solved."),
)


def card(draw: Draw) -> Plan:
    voices = draw.voices()
    known = [CARDS[i] for i in draw.content.permutation(len(CARDS))[:4]]
    events: list[Event] = []
    for _ in range(draw.any((1, 2))):
        if draw.chance(0.35):
            events.append(draw.say(sentence(draw.content), voices))
        title, text, questions = draw.pick(known)
        events.append(draw.say(draw.pick(questions), voices).answered(f"{title}: {text}"))
        if draw.chance(0.3):
            events.append(draw.say(draw.pick(BACKCHANNELS), voices))
    cards = " ".join(f"{title}: {text}" for title, text, _ in known)
    return draw.plan(Mode.ASSIST, f"{_CARD} Cards: {cards}", draw.padded(events))


def tool(draw: Draw) -> Plan:
    voices = draw.voices()
    events: list[Event] = []
    for _ in range(draw.any((1, 2))):
        kind = draw.pick(("order", "book", "call_back"))
        if kind == "order":
            number = "".join(str(d) for d in draw.content.integers(0, 10, 4))
            spoken = " ".join(DIGITS[int(d)] for d in number)
            text, call = f"Where is my order, number {spoken}?", {"tool": "order_status", "order": number}
        elif kind == "book":
            day, hour = draw.pick(DAYS), draw.pick(HOURS)
            text, call = f"Book me in for {day} at {hour}, please.", {"tool": "book", "day": day, "hour": hour}
        else:
            name = draw.pick(NAMES)
            text, call = f"Please call me back. My name is {name}.", {"tool": "call_back", "name": name}
        events.append(draw.say(text, voices).answered(json.dumps(call)))
        if draw.chance(0.5):
            events.append(draw.say(sentence(draw.content), voices))
    return draw.plan(Mode.ASSIST, _TOOLS, draw.padded(events))


def human(draw: Draw) -> Plan:
    """A wish for a person, among sentences with the same words and other wishes."""
    voices = draw.voices()
    events = [draw.say(_near(draw), voices) for _ in range(draw.any((0, 1, 2)))]
    if draw.chance(0.6):
        wish = draw.say(draw.pick(HUMAN), voices).answered(json.dumps({"tool": "transfer"}))
        events.insert(int(draw.rng.integers(len(events) + 1)), wish)
    events = events or [draw.say(_near(draw), voices)]
    return draw.plan(Mode.ASSIST, _HUMAN, draw.padded(events))


def _near(draw: Draw) -> str:
    return draw.pick(NO_HUMAN).format(day=draw.pick(DAYS)) if draw.chance(0.6) else sentence(draw.content)


def disposition(draw: Draw) -> Plan:
    """Written once, when the line is dead: hung up (busy or congestion tone), after the goodbye."""
    voices = draw.voices()
    given = {"day": draw.pick(DAYS), "hour": draw.pick(HOURS), "thing": draw.pick(THINGS)}
    said, ended = draw.pick(ENDINGS)
    events = [draw.say(sentence(draw.content), voices), draw.say(said.format(**given), voices)]
    events.append(draw.say(draw.pick(CLOSINGS), voices))
    country = draw.any(sorted(tones.PLANS))
    pcm = tones.progress_tone(country, draw.any(("busy", "congestion")), float(draw.rng.uniform(2.0, 4.0)))
    dead = Event(pcm, "the line is dead", "busy", early=True, sources=(f"tones/{country}/busy",))
    events.append(dead.answered(ended.format(**given)))
    return replace(draw.plan(Mode.ASSIST, _DISPOSITION, draw.padded(events, lines=0.0)), tail_s=1.0)


TASKS = (
    SubTask("audio-agent/card", "audio agent", "the card that answers a spoken question, with its text", card),
    SubTask("audio-agent/tool", "audio agent", "a tool's call as JSON when it is asked for", tool),
    SubTask("audio-agent/human", "audio agent", "a transfer when a person is wanted; like words are silent", human),
    SubTask(
        "audio-agent/disposition",
        "audio agent",
        "how the call ended, once the line is dead",
        disposition,
        looks_back=True,
    ),
)
