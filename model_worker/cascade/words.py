"""What can be told from words alone: their times, and whether a turn sounds finished. Pure functions, English."""

# ruff: noqa: SIM905 - a list of words reads best as a sentence

from __future__ import annotations

import re
from collections.abc import Sequence

from calls.audio import SAMPLE_RATE
from calls.model import Word

_WORD = re.compile(r"[a-z0-9']+")
_DIGITS = frozenset(
    "zero oh one two three four five six seven eight nine ten double triple hundred twenty thirty forty fifty".split()
)
_ASKS = frozenset(
    "what when where who which why how whose do does did is are am was were can could will would shall should may "
    "have has".split()
)
# A turn does not end on these, unless the speaker is cut off.
_TRAILING = frozenset(
    "and or but so because the a an my your our his her their to of for with at on in from by is are was were it's i'm "
    "i i'd i'll we'd if that which who um uh er erm like well about into than as not really just some any this "
    "be been want need calling looking".split()
)
_SPELLING = re.compile(
    r"(?:number|code|zip|postcode|plate|registration|reference|extension|email|address|name|it)(?: is|'s)?$"
)
_CLOSING = re.compile(r"(?:\bbye|\bgoodbye|\bthank you(?: very much| so much)?|\bthanks)$")
_NOISE = frozenset("um uh er erm hmm mm mhm hm ah oh mmm uhm huh".split())
_CLOSED = frozenset("yes no yeah yep nope thanks thank you goodbye bye okay ok sure please right correct".split())


def plain(text: str) -> list[str]:
    """The words of a text, lower-case and without punctuation."""
    return _WORD.findall(text.lower().replace("’", "'"))


def is_noise(text: str) -> bool:
    """Nothing but "um" and "mhm"."""
    return all(word in _NOISE for word in plain(text))


def is_question(text: str) -> bool:
    """Asked as a question: by its mark or by its first words."""
    words = plain(text)
    return text.rstrip().endswith("?") or (bool(words) and words[0] in _ASKS)


def is_spelling(text: str) -> bool:
    """In the middle of a number or a name: "my number is four seven"."""
    words = plain(text)
    tail = words[-3:]
    digits = [w for w in tail if w in _DIGITS or w.isdigit() or (len(w) == 1 and w.isalpha() and w not in "ai")]
    return (bool(tail) and tail[-1:] == digits[-1:]) or bool(_SPELLING.search(" ".join(words)))


def is_dangling(text: str) -> bool:
    """Ends on a word after which more must come, or on a comma or a dash."""
    words = plain(text)
    return not words or words[-1] in _TRAILING or text.rstrip().endswith((",", "-", "—", "...", "…"))


def is_closing(text: str) -> bool:
    """Ends on "goodbye" or "thank you": nothing needs to follow, however it is sung."""
    return bool(_CLOSING.search(" ".join(plain(text))))


def completeness(text: str) -> float:
    """How finished a turn sounds by its words: 0 (more must come) to 1 (nothing is missing)."""
    words = plain(text)
    if not words or is_noise(text):
        return 0.0
    if is_dangling(text):
        return 0.05
    if is_spelling(text):
        return 0.1
    if words[-1] in _CLOSED and len(words) <= 6:
        return 0.9
    if is_question(text) and len(words) >= 3:
        return 0.95
    return 0.6 if len(words) >= 4 else 0.45


def timed(text: str, spans: Sequence[tuple[int, int]], confidence: float) -> tuple[Word, ...]:
    """Words with estimated times: spread over the voiced spans (in samples), each as long as its letters."""
    words = text.split()
    voiced = sum(end - start for start, end in spans)
    if not words or not voiced:
        return ()
    letters = [len(word) + 1 for word in words]
    total = sum(letters)
    edges = [0.0]
    for count in letters:
        edges.append(edges[-1] + voiced * count / total)
    return tuple(
        Word(word, _at(spans, begin), max(_at(spans, begin), _at(spans, end, closing=True)), confidence)
        for word, begin, end in zip(words, edges, edges[1:], strict=False)
    )


def _at(spans: Sequence[tuple[int, int]], offset: float, closing: bool = False) -> float:
    """The call's second at which `offset` voiced samples have passed; at an edge, `closing` takes the earlier span."""
    for start, end in spans:
        length = end - start
        if offset < length or (closing and offset <= length):
            return round((start + offset) / SAMPLE_RATE, 3)
        offset -= length
    return round(spans[-1][1] / SAMPLE_RATE, 3)
