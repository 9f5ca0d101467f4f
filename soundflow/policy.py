"""Which sounds deserve a response, and which do not: the default policy.

Those that do, with the names that a model is taught to write, are those that serving knows (model_worker/sounds.py).
Weather, scenery, animals about their day, ordinary household noise and music are background. Telephone sounds never get
an answer: they tell what state the far end is in.
"""

from __future__ import annotations

from model_worker.sounds import ALIASES, RESPOND, Sound

_SILENT = (
    *(("rain", "rain"), ("sea_waves", "sea waves"), ("clock_tick", "a clock ticking"), ("rooster", "a rooster")),
    *(("helicopter", "a helicopter"), ("dog_bark", "a dog barking"), ("wind", "wind"), ("engine", "an engine running")),
    *(("mouse_click", "mouse clicks"), ("keyboard_typing", "typing"), ("hum", "a machine humming")),
    *(("chirping_birds", "birds"), ("crow", "a crow"), ("cat", "a cat"), ("cow", "a cow"), ("sheep", "sheep")),
    *(("hen", "a hen"), ("frog", "a frog"), ("pig", "a pig"), ("insects", "insects"), ("church_bells", "bells")),
    *(("crickets", "crickets"), ("stream", "a stream"), ("horse", "a horse"), ("wild_animal", "an animal")),
    *(("laughing", "laughter"), ("snoring", "snoring"), ("clapping", "clapping"), ("footsteps", "footsteps")),
    *(("breathing", "breathing"), ("drinking_sipping", "somebody drinking"), ("brushing_teeth", "tooth brushing")),
    *(("door_wood_knock", "a knock"), ("door_wood_creaks", "a door"), ("can_opening", "a can being opened")),
    *(("vacuum_cleaner", "a vacuum cleaner"), ("washing_machine", "a washing machine"), ("airplane", "an aeroplane")),
    *(("train", "a train far off"), ("water_drops", "dripping water"), ("pouring_water", "pouring water")),
    *(("toilet_flush", "a toilet"), ("crackle", "line crackle"), ("music", "music"), ("murmur", "a crowd murmuring")),
)
SOUNDS: dict[str, Sound] = {
    **{sound.label: sound for sound in RESPOND},
    **{label: Sound(label, False, name) for label, name in _SILENT},
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
    return SOUNDS.get(ALIASES.get(label, label))
