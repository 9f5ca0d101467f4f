"""Written text -> what is said: numbers, times, money, telephone numbers and abbreviations as words, and clauses.

Pure functions, English only. A synthesiser reads "555-0134" as a subtraction and "8:30" as a ratio if it is let to.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_ONES += ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
_SCALES = ((10**9, "billion"), (10**6, "million"), (10**3, "thousand"), (10**2, "hundred"))
_ORDINAL_ENDS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
_MONEY = {"$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny")}
_ABBREVIATIONS = {
    "dr.": "doctor", "mr.": "mister", "mrs.": "missus", "ms.": "miz", "prof.": "professor", "e.g.": "for example",
    "i.e.": "that is", "etc.": "and so on", "vs.": "versus", "approx.": "about", "ext.": "extension",
    "dept.": "department", "apt.": "apartment", "ave.": "avenue", "blvd.": "boulevard", "a.m.": "a m", "p.m.": "p m",
}  # fmt: skip
_MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905

Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]


def spoken(text: str) -> str:
    """`Dr. Lee, 8:30, $4.50, 555-0134` -> `doctor Lee, eight thirty, four dollars and fifty cents, five five five, ...`

    The result holds no digits and no markup. Punctuation that a voice pauses at is kept.
    """
    for pattern, say in _RULES:
        text = pattern.sub(say, text)
    return " ".join(text.split())


def cardinal(number: int) -> str:
    """0 -> zero, 1234 -> one thousand two hundred thirty four. Beyond 10^12: digit by digit."""
    if number < 0:
        return f"minus {cardinal(-number)}"
    if number < 20:
        return _ONES[number]
    if number < 100:
        return _TENS[number // 10] + (f" {_ONES[number % 10]}" if number % 10 else "")
    if number >= 10**12:
        return digits(str(number))
    scale, name = next((scale, name) for scale, name in _SCALES if number >= scale)
    rest = f" {cardinal(number % scale)}" if number % scale else ""
    return f"{cardinal(number // scale)} {name}{rest}"


def ordinal(number: int) -> str:
    """1 -> first, 22 -> twenty second."""
    head, _, last = cardinal(number).rpartition(" ")
    end = f"{last[:-1]}ieth" if last.endswith("y") else _ORDINAL_ENDS.get(last, f"{last}th")
    return f"{head} {end}".strip()


def digits(text: str) -> str:
    """`555-0134` -> `five five five, zero one three four`: digit by digit, a pause where a separator stood."""
    groups = re.findall(r"[0-9]+", text)
    return ", ".join(" ".join(_ONES[int(digit)] for digit in group) for group in groups)


def _telephone(match: re.Match[str]) -> str:
    if sum(character.isdigit() for character in match[0]) < 7:
        return match[0]
    return ("plus " if match[0].startswith("+") else "") + digits(match[0])


def _whole(text: str) -> str:
    plain = text.replace(",", "")
    return digits(plain) if len(plain) > 12 else cardinal(int(plain))


def _money(match: re.Match[str]) -> str:
    unit, cent = _MONEY[match["unit"]]
    cents = int(match["cents"] or 0)
    parts = []
    if match["whole"].strip("0,") or not cents:
        parts.append(f"{_whole(match['whole'])} {unit}{'' if match['whole'] == '1' else 's'}")
    if cents:
        many = "pence" if cent == "penny" else "cents"
        parts.append(f"{cardinal(cents)} {cent if cents == 1 else many}")
    return " and ".join(parts)


def _half(text: str | None) -> str:
    return {"a": " a m", "p": " p m"}.get((text or "").lower()[:1], "")


def _time(match: re.Match[str]) -> str:
    hour, minute, half = int(match["hour"]), int(match["minute"]), _half(match["half"])
    if hour > 12:
        hour, half = hour - 12, " p m"
    if minute:
        return f"{cardinal(hour)} {'oh ' if minute < 10 else ''}{cardinal(minute)}{half}"
    return cardinal(hour) + (half or " o'clock")


def _date(match: re.Match[str]) -> str:
    month, day = int(match[2]), int(match[3])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0].replace("-", " ")
    return f"{_MONTHS[month - 1]} {ordinal(day)}, {_year(int(match[1]))}"


def _year(year: int) -> str:
    if year % 1000 < 10:
        return cardinal(year)
    rest = year % 100
    low = "hundred" if rest == 0 else f"oh {_ONES[rest]}" if rest < 10 else cardinal(rest)
    return f"{cardinal(year // 100)} {low}"


def _number(match: re.Match[str]) -> str:
    whole, _, fraction = match[0].partition(".")
    # Five digits and more without a comma, or a leading zero: a number to dial or to quote, not a quantity.
    quoted = "," not in whole and (len(whole) > 4 or (len(whole) > 1 and whole[0] == "0"))
    said = digits(whole) if quoted else _whole(whole)
    return f" {said} point {digits(fraction)} " if fraction else f" {said} "


def _rule(pattern: str, say: Callable[[re.Match[str]], str] | str) -> Rule:
    if callable(say):
        return re.compile(pattern), say
    fixed = say
    return re.compile(pattern), lambda match: match.expand(fixed)


_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_HALF = r"(?P<half>[aApP][mM]\b|[aApP]\.[mM]\.)"
# The order is the meaning: what looks like a date, a sum or a time is taken before what is left is read as a number.
_RULES: tuple[Rule, ...] = (
    _rule(r"https?://(?:www\.)?|[*`#~|<>\[\]{}\\^]+|(?m:^\s*[-•]\s+)", " "),
    _rule("[\U0001f000-\U0001faff\u2600-\u27bf\ufe0f\u200d]+", " "),
    _rule(r"(?<=\w)@(?=\w)", " at "),
    _rule(r"(?<=[A-Za-z0-9])\.(?=(?:com|org|net|io|co|uk|us|eu|info)\b)", " dot "),
    _rule(r"\bNo\.\s*(?=[0-9])", "number "),
    _rule(r"\bSt\.(?=\s+[A-Z])", "Saint"),
    _rule(r"\bSt\.", "Street"),
    _rule(r"\b((?:19|20)[0-9]{2})-([0-9]{2})-([0-9]{2})\b", _date),
    _rule(r"(?P<unit>[$€£])\s?(?P<whole>" + _WHOLE + r")(?:\.(?P<cents>[0-9]{2}))?(?![0-9])", _money),
    _rule(r"\b(?P<hour>[01]?[0-9]|2[0-3]):(?P<minute>[0-5][0-9])(?:\s?" + _HALF + ")?(?!:?[0-9])", _time),
    _rule(r"\b(?P<hour>1[0-2]|[1-9])\s?" + _HALF, lambda m: cardinal(int(m["hour"])) + _half(m["half"])),
    _rule(
        r"(?i)(?<![\w.])(?:" + "|".join(map(re.escape, _ABBREVIATIONS)) + ")", lambda m: _ABBREVIATIONS[m[0].lower()]
    ),
    _rule(r"\+?\(?[0-9]{1,4}\)?(?:[ .-]\(?[0-9]{2,4}\)?)+(?![0-9])", _telephone),
    _rule(r"\+[0-9]{7,}", _telephone),
    _rule(r"\b([0-9]{1,9})(?:st|nd|rd|th)\b", lambda match: ordinal(int(match[1]))),
    _rule(r"(?<=[0-9])\s?%", " percent"),
    _rule(r"(?<=[0-9])\s?[-–]\s?(?=[0-9])", " to "),
    _rule(r"\b(?:19|20)[0-9]{2}\b(?![.,][0-9])", lambda match: _year(int(match[0]))),
    _rule(_WHOLE + r"(?:\.[0-9]+)?", _number),
    _rule(r"\s?&\s?", " and "),
    _rule(r"[$€£%@_=+/\\]", " "),
    _rule(r"\s+([,.;:!?])", r"\1"),
)
