"""Text -> phonemes, by espeak-ng run as a separate program.

espeak-ng is GPL-3: it is started as a process of its own and never loaded into ours. A call costs about 15 ms.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from functools import lru_cache

from calls.errors import OffhookError

_TIMEOUT_S = 5.0
_PUNCTUATION = re.compile(r"([,.;:!?—…]+)(?=\s|$)")
_LANGUAGE_SWITCH = re.compile(r"\([a-z-]+\)")
_ODD = re.compile(r"[^\w\s',.;:!?—…-]+")


class PhonemeError(OffhookError):
    """espeak-ng is not there or failed."""


@lru_cache(maxsize=512)
def phonemes(text: str, voice: str = "en-us") -> str:
    """IPA of a text, with its punctuation kept: `Hello, Anna.` -> `həlˈoʊ, ˈænə.`

    Raises `PhonemeError`, which says what to install.
    """
    pieces = _PUNCTUATION.split(_ODD.sub(" ", text.replace("\n", " ")))
    spoken, marks = [" ".join(p.split()) for p in pieces[::2]], [*pieces[1::2], ""]
    kept = [(words, mark[:1]) for words, mark in zip(spoken, marks, strict=True) if any(c.isalnum() for c in words)]
    if not kept:
        return ""
    lines = _espeak("\n".join(words for words, _ in kept), voice)
    if len(lines) != len(kept):  # a very long line comes back in several: ask for each piece by itself
        lines = [" ".join(_espeak(words, voice)) for words, _ in kept]
    return " ".join(f"{line}{mark}" for line, (_, mark) in zip(lines, kept, strict=True))


def _espeak(text: str, voice: str) -> list[str]:
    program = shutil.which("espeak-ng")
    if program is None:
        raise PhonemeError("there is no espeak-ng on PATH, and speech needs it for phonemes: apt install espeak-ng")
    command = [program, "-q", "--ipa", "-b", "1", "-v", voice]
    try:
        result = subprocess.run(command, input=text.encode(), capture_output=True, timeout=_TIMEOUT_S, check=True)
    except subprocess.TimeoutExpired as error:
        raise PhonemeError(f"espeak-ng took longer than {_TIMEOUT_S:.0f} s") from error
    except subprocess.CalledProcessError as error:
        raise PhonemeError(f"espeak-ng failed: {error.stderr.decode('utf-8', 'replace')[:200]}") from error
    lines = _LANGUAGE_SWITCH.sub("", result.stdout.decode("utf-8")).splitlines()
    return [line.strip() for line in lines if line.strip()]


# Kokoro was trained on phonemes that write diphthongs and affricates as one letter. In this order.
_KOKORO_LETTERS = (
    ("aɪ", "I"), ("aʊ", "W"), ("dʒ", "ʤ"), ("eɪ", "A"), ("tʃ", "ʧ"), ("ɔɪ", "Y"), ("oʊ", "O"), ("əʊ", "Q"),
    ("əl", "ᵊl"), ("ɚ", "əɹ"), ("ɜː", "ɜɹ"), ("ɐ", "ə"), ("r", "ɹ"), ("x", "k"), ("ː", ""),
)  # fmt: skip
_BRITISH_KEEPS = ("ɜː", "ː")

# Kokoro-82M's table (hexgrad/Kokoro-82M, config.json, Apache-2.0).
KOKORO_TOKENS = {
    ";": 1, ":": 2, ",": 3, ".": 4, "!": 5, "?": 6, "—": 9, "…": 10, '"': 11, "(": 12, ")": 13, "“": 14, "”": 15,
    " ": 16, "\u0303": 17, "ʣ": 18, "ʥ": 19, "ʦ": 20, "ʨ": 21, "ᵝ": 22, "ꭧ": 23, "A": 24, "I": 25, "O": 31, "Q": 33,
    "S": 35, "T": 36, "W": 39, "Y": 41, "ᵊ": 42, "a": 43, "b": 44, "c": 45, "d": 46, "e": 47, "f": 48, "h": 50,
    "i": 51, "j": 52, "k": 53, "l": 54, "m": 55, "n": 56, "o": 57, "p": 58, "q": 59, "r": 60, "s": 61, "t": 62,
    "u": 63, "v": 64, "w": 65, "x": 66, "y": 67, "z": 68, "ɑ": 69, "ɐ": 70, "ɒ": 71, "æ": 72, "β": 75, "ɔ": 76,
    "ɕ": 77, "ç": 78, "ɖ": 80, "ð": 81, "ʤ": 82, "ə": 83, "ɚ": 85, "ɛ": 86, "ɜ": 87, "ɟ": 90, "ɡ": 92, "ɥ": 99,
    "ɨ": 101, "ɪ": 102, "ʝ": 103, "ɯ": 110, "ɰ": 111, "ŋ": 112, "ɳ": 113, "ɲ": 114, "ɴ": 115, "ø": 116, "ɸ": 118,
    "θ": 119, "œ": 120, "ɹ": 123, "ɾ": 125, "ɻ": 126, "ʁ": 128, "ɽ": 129, "ʂ": 130, "ʃ": 131, "ʈ": 132, "ʧ": 133,
    "ʊ": 135, "ʋ": 136, "ʌ": 138, "ɣ": 139, "ɤ": 140, "χ": 142, "ʎ": 143, "ʒ": 147, "ʔ": 148, "ˈ": 156, "ˌ": 157,
    "ː": 158, "ʰ": 162, "ʲ": 164, "↓": 169, "→": 171, "↗": 172, "↘": 173, "ᵻ": 177,
}  # fmt: skip


def kokoro_tokens(ipa: str, *, british: bool = False) -> tuple[list[int], int]:
    """espeak's IPA -> Kokoro's token ids, and how many symbols the model does not know (they are left out)."""
    ipa = unicodedata.normalize("NFC", ipa)
    for letters, letter in _KOKORO_LETTERS:
        if not (british and letters in _BRITISH_KEEPS):
            ipa = ipa.replace(letters, letter)
    ids = [KOKORO_TOKENS[symbol] for symbol in ipa if symbol in KOKORO_TOKENS]
    return ids, len(ipa) - len(ids)


def piper_tokens(ipa: str, table: dict[str, list[int]]) -> tuple[list[int], int]:
    """espeak's IPA -> Piper's phoneme ids by the voice's own table, and how many symbols it does not know.

    `^`, then each symbol with a pad `_` after it, then `$`, as in the voice's training.
    """
    pad, unknown = table["_"], 0
    ids = [*table["^"], *pad]
    for symbol in unicodedata.normalize("NFD", ipa):
        if symbol in table:
            ids += [*table[symbol], *pad]
        else:
            unknown += 1
    return [*ids, *table["$"]], unknown
