"""Does a text name a label? The rule behind `label_accuracy`.

Label and text are brought into one form (wer.words: lower case, no punctuation, numbers as words). Then

1. a label that is in NAMES is named if the text has one of its names;
2. any other label is named if the text has all of its words;
3. what models are taught to call a class of sounds (model_worker/sounds.py) names it too.

A word of a name is found in its inflected forms too (cry: cries, cried, crying), never as a part of another word ("six"
is not in "sixty", "crow" not in "crowd"). The words of a name of several words stand anywhere in the text. Homophones
are not forgiven: "for" does not name "four".
"""

from __future__ import annotations

from model_worker.evaluation.wer import words
from model_worker.sounds import ALIASES, RESPOND

_BABY = ("baby", "infant", "crying child", "child cry")
_FIRE = ("fire", "burn", "flame")
_SNEEZE = ("sneeze",)
_DOG = ("dog", "bark")
NAMES: dict[str, tuple[str, ...]] = {
    "baby cry": _BABY, "crying baby": _BABY,
    "fire crackling": _FIRE, "crackling fire": _FIRE,
    "chainsaw": ("chainsaw", "chain saw", "power saw", "motor saw"),
    "person sneeze": _SNEEZE, "sneezing": _SNEEZE, "sneeze": _SNEEZE,
    "dog bark": _DOG, "dog": _DOG,
    "rooster": ("rooster", "cockerel", "crow"),
    "clock tick": ("clock", "tick"),
    "sea waves": ("wave", "sea", "ocean"),
    "helicopter": ("helicopter", "chopper"),
    "rain": ("rain",),
    "siren": ("siren", "ambulance", "fire engine", "police car"),
    "glass breaking": ("glass",),
}  # fmt: skip


def plain(label: str) -> str:
    """`baby_cry` -> `baby cry`, `7` -> `seven`."""
    return " ".join(words(label.replace("_", " ")))


_OURS = {sound.label for sound in RESPOND if sound.safety}
_OTHERS = frozenset({
    "fire alarm", "alarm", "explosion", "gunshot", "scream", "screaming", "gasping", "car crash", "tyre screech",
})  # fmt: skip
"""In other people's manifests; the policy (model_worker/sounds.py) has no such classes."""
SAFETY = _OTHERS | {plain(label) for label in (*_OURS, *(other for other, own in ALIASES.items() if own in _OURS))}
"""Labels of danger or distress: an item with one of them, or of kind `safety`, that deserves a response and gets none
is a miss on a safety sound. A sneeze deserves a response and is no matter of safety."""

SOUNDS = SAFETY | NAMES.keys()
_TAUGHT = {plain(sound.label): plain(sound.name) for sound in RESPOND}
"""What models are taught to call a class, which for some ("bangs close by") has none of the words above."""


def names(text: str, label: str) -> bool:
    """By the rule above."""
    said, label = words(text.replace("_", " ")), plain(label)
    called = [*NAMES.get(label, (label,)), _TAUGHT.get(label, "")]
    return any(all(_has(said, word) for word in name.split()) for name in called if name)


def _has(said: list[str], word: str) -> bool:
    stem = word.removesuffix("e")
    forms = {word, f"{word}s", f"{word}es", f"{stem}ed", f"{stem}ing"}
    if word.endswith("y"):
        forms |= {f"{word[:-1]}ies", f"{word[:-1]}ied"}
    return not forms.isdisjoint(said)
