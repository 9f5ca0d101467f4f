"""Which sounds deserve a response: the default policy, by the class names of ESC-50 and of our own synthesis.

A sound on the caller's side is worth a response when it tells of danger, distress, bodily need or a machine that asks
for attention. Weather, scenery, animals about their day, ordinary household noise and music are background. Telephone
sounds never get an answer: they tell what state the far end is in.
"""

from __future__ import annotations

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


_RESPOND = (
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
_SILENT = (
    *(("rain", "rain"), ("sea_waves", "sea waves"), ("clock_tick", "a clock ticking"), ("rooster", "a rooster")),
    *(("helicopter", "a helicopter"), ("dog_bark", "a dog barking"), ("wind", "wind"), ("engine", "an engine running")),
    *(("mouse_click", "typing"), ("keyboard_typing", "typing"), ("hum", "a machine humming"), ("crickets", "crickets")),
    *(("chirping_birds", "birds"), ("crow", "a crow"), ("cat", "a cat"), ("cow", "a cow"), ("sheep", "sheep")),
    *(("hen", "a hen"), ("frog", "a frog"), ("pig", "a pig"), ("insects", "insects"), ("church_bells", "bells")),
    *(("laughing", "laughter"), ("snoring", "snoring"), ("clapping", "clapping"), ("footsteps", "footsteps")),
    *(("breathing", "breathing"), ("drinking_sipping", "somebody drinking"), ("brushing_teeth", "tooth brushing")),
    *(("door_wood_knock", "a knock"), ("door_wood_creaks", "a door"), ("can_opening", "a can being opened")),
    *(("vacuum_cleaner", "a vacuum cleaner"), ("washing_machine", "a washing machine"), ("airplane", "an aeroplane")),
    *(("train", "a train far off"), ("water_drops", "dripping water"), ("pouring_water", "pouring water")),
    *(("toilet_flush", "a toilet"), ("crackle", "line crackle"), ("music", "music"), ("murmur", "a crowd murmuring")),
)
SOUNDS: dict[str, Sound] = {
    **{sound.label: sound for sound in _RESPOND},
    **{label: Sound(label, False, name) for label, name in _SILENT},
}
_ALIASES = {
    "crying_baby": "baby_cry",
    "crackling_fire": "fire_crackling",
    "sneezing": "person_sneeze",
    "dog": "dog_bark",
}
CONFUSABLE = (
    ("baby_cry", "rooster"),
    ("person_sneeze", "dog_bark"),
    ("fire_crackling", "rain"),
    ("chainsaw", "helicopter"),
    ("fire_crackling", "clock_tick"),
    ("smoke_alarm", "hum"),
    ("siren", "engine"),
    ("machine_beep", "mouse_click"),
)
"""Pairs of which one deserves a response and the other, which sounds like it, does not."""


def sound(label: str) -> Sound | None:
    """What the policy says of a class; None: nothing."""
    return SOUNDS.get(_ALIASES.get(label, label))
