"""Which sounds deserve a response: the default policy, by the class names of ESC-50 and of our own synthesis.

A sound on the caller's side is worth a response when it tells of danger, distress, bodily need or a machine that asks
for attention. Weather, scenery, animals about their day, ordinary household noise and music are background. The names
are the very words that a model is taught to write (soundflow/policy.py), and by which its text is known to tell of a
sound (`named`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sound:
    """A class of sounds. `name` completes "I can hear ..."; `advice` is for the human agent, imperative."""

    label: str
    respond: bool
    name: str
    advice: str = ""
    emotion: str = "normal"
    safety: bool = False  # missing it may cost more than a polite question

    def hint(self) -> str:
        """What the human agent is shown."""
        return f"{self.name.capitalize()} in the background: {self.advice}."


RESPOND = (
    Sound("baby_cry", True, "a baby crying", "offer to wait or to call back", "urgent", True),
    Sound("fire_crackling", True, "a fire crackling", "ask whether they are safe", "urgent", True),
    Sound("chainsaw", True, "a chainsaw running", "ask them to move away from it", "urgent", True),
    Sound("person_sneeze", True, "a sneeze", "say bless you"),
    Sound("coughing", True, "somebody coughing", "ask whether they are all right", "urgent"),
    Sound("siren", True, "a siren close by", "ask whether they are safe", "urgent", True),
    Sound("smoke_alarm", True, "a smoke alarm", "ask whether they are safe and to leave the house", "urgent", True),
    Sound("glass_breaking", True, "glass breaking", "ask whether they are safe", "urgent", True),
    Sound("fireworks", True, "bangs close by", "ask whether they are safe", "urgent", True),
    Sound("hand_saw", True, "a saw", "ask them to move away from it", "urgent"),
    Sound("car_horn", True, "a car horn", "ask whether they are driving", "urgent", True),
    Sound("backing_beeper", True, "a vehicle backing up", "ask them to stand clear", "urgent", True),
    Sound("thunderstorm", True, "thunder close by", "ask whether they are indoors", "urgent", True),
    Sound("clock_alarm", True, "an alarm ringing", "offer to wait while they turn it off"),
    Sound("machine_beep", True, "a machine beeping", "ask whether it needs them"),
    Sound("phone_ringing", True, "another phone ringing", "offer to wait while they pick it up"),
)
"""The sounds that deserve one."""
ALIASES = {
    "crying_baby": "baby_cry",
    "crackling_fire": "fire_crackling",
    "sneezing": "person_sneeze",
    "dog": "dog_bark",
}
"""What ESC-50 calls a class -> what ESC-10, and we, call it."""
_KNOWN = {sound.label: sound for sound in RESPOND}


def deserving(label: str) -> Sound | None:
    """The sound of a class, by either of its names, if it deserves a response; else None."""
    return _KNOWN.get(ALIASES.get(label, label))


def named(text: str) -> Sound | None:
    """The sound that a model's text tells of, the first one where it tells of several; None: it tells of something
    else, a digit or "somebody is speaking", and is nothing that may be said of a sound."""
    said = " ".join(re.findall(r"[a-z]+", text.lower()))
    found = [(at, sound) for sound in RESPOND if (at := f" {said} ".find(f" {sound.name} ")) >= 0]
    return min(found, key=lambda one: one[0])[1] if found else None
