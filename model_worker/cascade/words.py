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
# A turn does not end on these, however it sounds.
_NEVER_LAST = frozenset(
    "and or but because the a an my your our his their of i i'd i'll i'm we'd if um uh er erm calling looking".split()
)
# On these it may: "where are you at", "my light is still on".
_SELDOM_LAST = frozenset(
    "so her to for with at on in from by is are was were it's that which who like well about into than as not really "
    "just some any this be been want need".split()
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


def is_dangling(text: str, sounds_finished: bool = False) -> bool:
    """Ends on a word after which more must come; or on one after which more often comes, on a comma or a dash, unless
    it sounds finished."""
    words = plain(text)
    if not words or words[-1] in _NEVER_LAST:
        return True
    return not sounds_finished and (words[-1] in _SELDOM_LAST or text.rstrip().endswith((",", "-", "—", "...", "…")))


def is_closing(text: str) -> bool:
    """Ends on "goodbye" or "thank you": nothing needs to follow, however it is sung."""
    return bool(_CLOSING.search(" ".join(plain(text))))


def completeness(text: str, sounds_finished: bool = False) -> float:
    """How finished a turn is by its words: 0 (more must come) to 1 (nothing is missing)."""
    words = plain(text)
    if not words or is_noise(text):
        return 0.0
    if is_dangling(text, sounds_finished):
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
