"""Words of a call centre: names, things, sentences. Written for this project."""

from __future__ import annotations

import numpy as np

NAMES = (
    "Anna", "Ben", "Carla", "David", "Elena", "Frank", "Grace", "Henry", "Ines", "Jack", "Karin", "Louis", "Maria",
    "Nora", "Oscar", "Paula", "Robert", "Sofia", "Thomas", "Vera",
)  # fmt: skip
SURNAMES = (
    "Baker", "Carter", "Dunn", "Evans", "Fisher", "Grant", "Hughes", "Irwin", "Jensen", "Kelly", "Lopez", "Mason",
    "Nolan", "Owens", "Parker", "Reed", "Smith", "Turner", "Vance", "Young",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
HOURS = ("nine", "ten", "eleven", "one", "two", "three", "four")
MONTHS = ("January", "March", "April", "June", "August", "September", "October", "December")
THINGS = (
    "washing machine",
    "laptop",
    "router",
    "bicycle",
    "coffee maker",
    "camera",
    "sofa",
    "heater",
    "printer",
)
CITIES = ("Bristol", "Dublin", "Boston", "Denver", "Leeds", "Austin", "Perth", "Toronto")
SENTENCES = (
    "The {thing} I bought in {city} does not switch on.",
    "I would like to change my appointment on {day}.",
    "My invoice from {month} shows two charges.",
    "Nobody came on {day} although I was told so.",
    "The {thing} makes a strange noise when it starts.",
    "I moved to {city} and need to change my address.",
    "Could you send the {thing} to my office instead?",
    "I have waited since {day} for someone to call me back.",
    "The driver left the {thing} in front of the wrong door.",
    "Please cancel the order for the {thing}.",
    "I paid at {hour} o'clock and it still says unpaid.",
    "It worked until {day} and then the screen went dark.",
    "My name is {name} {surname} and I am calling about a {thing}.",
    "We are four people and we arrive in {city} on {day}.",
    "The contract ends in {month} and I do not want another one.",
    "Can I pick up the {thing} at {hour} o'clock on {day}?",
    "I spoke to {name} last week about the {thing}.",
    "There is water under the {thing} again.",
)
BACKCHANNELS = ("Uh huh.", "Okay.", "Right.", "Yeah.", "I see.", "Mm, yes.", "All right.", "One moment.", "Sure.")
ASIDES = (
    "Put that on the table, please.",
    "No, not now, I am on the phone.",
    "Close the door, will you?",
    "He is in the kitchen, I think.",
    "Wait, let me find my glasses.",
    "Stop it, sit down.",
)
"""Said to somebody else in the room."""


def fill(template: str, content: np.random.Generator, **given: str) -> str:
    """A template with its {name}, {day}... drawn, or as given."""
    pools = {
        "name": NAMES,
        "surname": SURNAMES,
        "day": DAYS,
        "hour": HOURS,
        "month": MONTHS,
        "thing": THINGS,
        "city": CITIES,
    }
    drawn = {key: str(pool[int(content.integers(len(pool)))]) for key, pool in pools.items()}
    return template.format(**{**drawn, **given})


def sentence(content: np.random.Generator) -> str:
    return fill(SENTENCES[int(content.integers(len(SENTENCES)))], content)
