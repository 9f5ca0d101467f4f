"""What a caller gives that must be right: telephone and registration numbers, days and times.

Found in the recogniser's text (digits or words, "double five", "oh"), kept, and read back digit by digit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

SHORTEST_NUMBER = 6  # digits of the shortest telephone number that is taken for one: local numbers without a code

_DIGIT_WORDS = {
    "zero": "0", "oh": "0", "o": "0", "nought": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5",
    "six": "6", "seven": "7", "eight": "8", "nine": "9",
}  # fmt: skip
_SPOKEN = {
    "0": "zero", "1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six", "7": "seven",
    "8": "eight", "9": "nine", "+": "plus",
}  # fmt: skip
_TIMES = {"double": 2, "triple": 3, "treble": 3}
_UNITS = {"mile", "miles", "kilometres", "kilometers", "km", "dollars", "pounds", "euros", "percent"}
# A number in digits is broken by a decimal point or a currency sign: "£1,200.50" is a price, "2019" alone is a year.
_TOKEN = re.compile(r"[£$€]?\+?[0-9][0-9.,]*[0-9]|[£$€]?\+?[0-9]|[a-z']+", re.IGNORECASE)

_PLATE = re.compile(
    r"\b([A-Z]{2}[0-9]{2}[ -]?[A-Z]{3}|[A-Z][0-9]{1,3}[ -]?[A-Z]{3}|[0-9][A-Z]{3}[0-9]{3})\b", re.IGNORECASE
)
_PLATE_NAMED = re.compile(
    r"\b(?:registration|reg|plate|number plate|licen[cs]e plate)(?: number)?(?:'s| is|:)? "
    r"((?:[A-Z0-9]{1,3}\b[ ,.-]*){2,8})",
    re.IGNORECASE,
)

_DAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_MONTH = r"(?:january|february|march|april|may|june|july|august|september|october|november|december)"
_ORDINAL = (
    r"(?:\d{1,2}(?:st|nd|rd|th)|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|"
    r"thirteenth|fourteenth|fifteenth|sixteenth|seventeenth|eighteenth|nineteenth|twentieth|twenty[- ](?:first|second|"
    r"third|fourth|fifth|sixth|seventh|eighth|ninth)|thirtieth|thirty[- ]first)"
)
_HOUR = r"(?:\d{1,2}|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)"
_HALF = r"(?:[ap]\.?m\b\.?|in the (?:morning|afternoon|evening)|o'?clock)"
_WHEN = re.compile(
    rf"\b(?:(?:next |this )?{_DAY}|tomorrow|today|(?:the )?{_ORDINAL}(?: of)? {_MONTH}|{_MONTH}(?: the)? {_ORDINAL}|"
    rf"{_MONTH} \d{{1,2}}|the {_ORDINAL}|at (?:half past |quarter past |quarter to )?{_HOUR}"
    rf"(?:[:.]\d\d| thirty| fifteen| forty[- ]five)?(?: ?{_HALF})*|"
    rf"{_HOUR}(?:[:.]\d\d| thirty)? ?{_HALF}|(?:in the )?(?:morning|afternoon)|noon)",
    re.IGNORECASE,
)
_NAMES = re.compile(rf"{_DAY}|{_MONTH}(?= the\b| \d|$)|(?<=of ){_MONTH}")


@dataclass(frozen=True, slots=True)
class Details:
    """What a caller gave so far for a message. Empty strings where nothing was given."""

    number: str = ""  # digits, perhaps with + in front
    plate: str = ""
    when: str = ""

    def __bool__(self) -> bool:
        return bool(self.number or self.plate or self.when)

    def with_(self, newer: Details) -> Details:
        """These details, with what `newer` holds in place of the same kind here."""
        changes = {name: value for name in self.__slots__ if (value := getattr(newer, name))}
        return replace(self, **changes)

    def read_aloud(self) -> str:
        """One sentence for the voice, numbers digit by digit in groups."""
        parts = []
        if self.number:
            parts.append(f"The number is {spell(self.number)}.")
        if self.plate:
            parts.append(f"The registration is {spell(self.plate)}.")
        if self.when:
            parts.append(f"That's {self.when}.")
        return " ".join(parts)

    def written(self) -> str:
        """For the people who read the message."""
        named = (("number", self.number), ("registration", self.plate), ("when", self.when))
        return ", ".join(f"{name} {value}" for name, value in named if value)


def details(text: str, shortest: int = SHORTEST_NUMBER) -> Details:
    """Everything in `text` that should be read back; numbers from `shortest` digits on."""
    return Details(find_number(text, shortest), find_plate(text), find_when(text))


def find_number(text: str, shortest: int = SHORTEST_NUMBER) -> str:
    """The longest telephone number in `text`, as digits, or "".

    Digits count as one number while only digits, digit words, "double" and "triple" stand together.
    """
    best = run = ""
    times = 1
    for token in (*_TOKEN.findall(text), ""):
        piece = _digits(token)
        if token.lower() in _TIMES:
            times = _TIMES[token.lower()]
            continue
        if piece:
            run += piece[0] * (times - 1) + piece
        else:
            best, run = best if token.lower() in _UNITS else max(best, run, key=len), ""
        times = 1
    return best if len(best.lstrip("+")) >= shortest else ""


def _digits(token: str) -> str:
    if token.lower() in _DIGIT_WORDS:
        return _DIGIT_WORDS[token.lower()]
    if token[:1] in "£$€" or "," in token:
        return ""
    groups = token.split(".")
    # "555.0123" is how some write a number; "12.50" is a price.
    if len(groups) > 1 and not all(len(group) >= 3 for group in groups):
        return ""
    return "".join(groups) if re.fullmatch(r"\+?[0-9]+", "".join(groups)) else ""


def find_plate(text: str) -> str:
    """A vehicle registration in `text`, upper-case without spaces, or ""."""
    found = _PLATE.search(text)
    if not found and (named := _PLATE_NAMED.search(text)):
        plate = re.sub(r"[^A-Z0-9]", "", named.group(1).upper())
        return plate if re.search(r"[0-9]", plate) and re.search(r"[A-Z]", plate) and len(plate) >= 4 else ""
    return re.sub(r"[^A-Z0-9]", "", found.group(1).upper()) if found else ""


def find_when(text: str) -> str:
    """The days and times in `text`, in the order they were said, or ""."""
    said = " ".join(found.group().strip() for found in _WHEN.finditer(text)).lower()
    return _NAMES.sub(lambda name: name.group().capitalize(), said)


def spell(number: str) -> str:
    """`number` character by character, with a pause after each group of three (the last group holds up to four)."""
    signs = [_SPOKEN.get(sign, sign.upper()) for sign in number]
    groups: list[str] = []
    while signs:
        size = len(signs) if len(signs) <= 4 else 3
        groups.append(" ".join(signs[:size]))
        signs = signs[size:]
    return ", ".join(groups)
