"""Text on its way to the voice: cleaned of what cannot be spoken, cut into clauses, the first one short."""

from __future__ import annotations

import re
from collections.abc import Iterator

FIRST_WORDS = 3  # a comma ends the first clause after so many words: the sooner it is spoken, the better
LATER_WORDS = 8  # the same for the clauses after it: longer clauses are spoken more naturally
FIRST_LONGEST = 18  # a first clause that is longer is cut before a joining word
LONGEST_WORDS = 24  # a clause without any punctuation is cut here

_UNSPEAKABLE = re.compile(r"[*_`#|<>\[\]{}~^\\]+|^\s*(?:[-•]|\d+[.)])\s+", re.MULTILINE)
_SPACE = re.compile(r"\s+")
_STOP = re.compile(r"[.!?]['\")]?(?=\s)")
_PAUSE = re.compile(r"[,;:—–](?=\s)")
_JOIN = re.compile(r"\s(?=(?:and|but|so|or|because|which|if|when|while|who|until)\s)", re.IGNORECASE)
# After these a full stop does not end the sentence: "Mr. Lee", "a.m. on Monday", "approx. five", "J. Lee".
_ABBREVIATION = re.compile(r"(?:\b(?:mr|mrs|ms|dr|st|rd|approx)|\b(?:[a-z]\.)*[a-z])\.$", re.IGNORECASE)


def speakable(text: str) -> str:
    """`text` without Markdown and list marks, its white space made single."""
    return _SPACE.sub(" ", _UNSPEAKABLE.sub("", text)).strip()


def plain_words(text: str) -> str:
    """The words alone, lower-case, single-spaced: what phrases are compared by."""
    return " ".join(re.findall(r"[a-z0-9']+", text.lower().replace("’", "'")))


class Clauses:
    """Cuts text that is still being written. `feed` gives the clauses that are certain, `rest` what is left over.

    A mark ends a clause only when white space follows it, so "9.30" and "£4,500" are never cut.
    """

    def __init__(self) -> None:
        self._text = ""
        self._count = 0

    def feed(self, text: str) -> Iterator[str]:
        self._text += text
        while (end := self._cut()) is not None:
            clause, self._text = speakable(self._text[:end]), self._text[end:]
            if clause:
                self._count += 1
                yield clause

    def rest(self) -> str:
        """What has not been given yet; nothing may be fed afterwards."""
        left, self._text = speakable(self._text), ""
        return left if re.search(r"\w", left) else ""

    def _cut(self) -> int | None:
        enough = LATER_WORDS if self._count else FIRST_WORDS
        for mark in re.finditer(rf"{_STOP.pattern}|{_PAUSE.pattern}|\n", self._text):
            before = self._text[: mark.end()]
            words = len(before.split())
            if mark.group() in (",", ";", ":", "—", "–"):
                if words >= enough:
                    return mark.end()
            elif mark.group() == "\n" or not _ABBREVIATION.search(before):
                return mark.end()
        return self._cut_long()

    def _cut_long(self) -> int | None:
        """Where to cut what has run on without a pause; the last word may not be complete and is left."""
        words = len(self._text.split())
        if self._count == 0 and words > FIRST_LONGEST:
            joins = [
                m.start() for m in _JOIN.finditer(self._text) if len(self._text[: m.start()].split()) >= FIRST_WORDS
            ]
            if joins:
                return joins[-1]
        return self._text.rindex(" ") if words > LONGEST_WORDS else None


def clauses(text: str) -> list[str]:
    """A finished text in clauses."""
    cutter = Clauses()
    parts = list(cutter.feed(text))
    rest = cutter.rest()
    return [*parts, rest] if rest else parts
