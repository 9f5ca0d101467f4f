"""What a kind of item asks of the model: the mode of its call, and what then counts as a response.

    kind                                             mode         a response is a Decision to
    sound, sounds, safety, instruction               assist       assist
    question, chat                                   answer       answer
    silence; noise, line_noise, music, hold_music,
    telephone                                        answer       answer
    recognition, speech, digits, digit               transcribe   transcribe
    any other                                        as recognition if words are said in it, else as sound

So a model that merely writes down what it hears does not thereby respond, but where writing is what is asked of it.
Silence and noise are heard in the mode in which a false wake costs most: a voice that talks into hold music.
"""

from __future__ import annotations

from dataclasses import dataclass

from calls.model import Mode

SILENCE, NOISE = "silence", "noise"


@dataclass(frozen=True, slots=True)
class Kind:
    mode: Mode
    wakes: str = ""  # its false wakes an hour are counted as those of "silence" or of "noise"
    early: bool = False  # a sound may be told of while it is heard: no response to it is premature


_ANSWER, _TRANSCRIBE, _NOISE = Kind(Mode.ANSWER), Kind(Mode.TRANSCRIBE), Kind(Mode.ANSWER, NOISE)
_SOUND = Kind(Mode.ASSIST, early=True)
KINDS: dict[str, Kind] = {
    "sound": _SOUND, "sounds": _SOUND, "safety": _SOUND, "instruction": Kind(Mode.ASSIST),
    "question": _ANSWER, "chat": _ANSWER,
    "recognition": _TRANSCRIBE, "speech": _TRANSCRIBE, "digits": _TRANSCRIBE, "digit": _TRANSCRIBE,
    "silence": Kind(Mode.ANSWER, SILENCE),
    "noise": _NOISE, "line_noise": _NOISE, "music": _NOISE, "hold_music": _NOISE, "telephone": _NOISE,
}  # fmt: skip

POLICY = {
    Mode.ANSWER: (
        "You answer the telephone. Reply when the caller asks something or needs help. Stay silent through hold music, "
        "line noise, telephone tones and background sounds."
    ),
    Mode.ASSIST: (
        "You help an employee who is on the telephone with a caller. Write a hint when a sound on the caller's side "
        "tells of danger, distress, bodily need or a machine that asks for attention, and name the sound. Stay silent "
        "at weather, scenery, traffic, animals, household noise and music."
    ),
    Mode.TRANSCRIBE: "You write down what is said. You never speak.",
}
"""The Instruction's text, where an item has none of its own."""


def of(name: str, text: str = "") -> Kind:
    """`text`: what is said in the item."""
    return KINDS.get(name.lower().replace("-", "_").replace(" ", "_"), _TRANSCRIBE if text else _SOUND)
