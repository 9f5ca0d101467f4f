"""Cutting a reply into clauses as it is generated, so that speech can begin before the reply is finished.

The first clause is short, because it decides how long the caller waits; later ones are whole sentences, because those
sound best, cut at a comma only when they are long.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FIRST_WORDS = 2  # the first clause may end at any pause once it has this many words
_FIRST_LONG, _FIRST_MOST = 9, 13  # from here it is cut before a joining word; at the latest here it is cut anywhere
_LONG = 14  # a later clause longer than this may end at a comma
_LONGER, _MOST = 24, 36
_SENTENCE_END = re.compile(r"[.!?…]+[\"')\]]*$")
_PAUSE = re.compile(r"[,;:—–][\"')\]]*$")
_NOT_AN_END = re.compile(
    r"(?i)^[\"'(\[]*(?:dr|mr|mrs|ms|prof|st|no|vs|e\.g|i\.e|approx|ext|dept|apt|ave|blvd|a\.m|p\.m|[a-z])\.$"
)
_JOINS = frozenset(  # words that a speaker may pause before
    "and but so or because which that if when while although where who for with until between from on at in".split()  # noqa: SIM905
)


@dataclass
class ClauseSplitter:
    """Feed text as it is generated; whole clauses come out. One splitter a reply."""

    _pending: str = ""
    _first: bool = True

    def feed(self, delta: str) -> list[str]:
        """Take more text; return the clauses that are now complete. A word counts once something follows it."""
        self._pending += delta
        return self._take(final=False)

    def finish(self) -> list[str]:
        """The reply is complete: return what is left, as clauses."""
        done = self._take(final=True)
        rest, self._pending = " ".join(self._pending.split()), ""
        return [*done, rest] if rest else done

    def _take(self, final: bool) -> list[str]:
        done: list[str] = []
        while True:
            words = self._pending.split()
            if not final and self._pending and not self._pending[-1].isspace():
                words = words[:-1]  # the last word may go on
            end = self._end(words)
            if not end:
                return done
            self._pending = _without(self._pending, end)
            self._first = False
            done.append(" ".join(words[:end]))

    def _end(self, words: list[str]) -> int:
        """How many of the words make the next clause; 0 if they do not make one yet."""
        for count, word in enumerate(words, 1):
            if _SENTENCE_END.search(word) and not _NOT_AN_END.match(word):
                return count
            if _PAUSE.search(word) and count >= (_FIRST_WORDS if self._first else _LONG):
                return count
            long, most = (_FIRST_LONG, _FIRST_MOST) if self._first else (_LONGER, _MOST)
            if count >= long and (joins := [i for i in range(3, count) if words[i].lower() in _JOINS]):
                return joins[-1]
            if count >= most:
                return count
        return 0


def clauses(text: str) -> list[str]:
    """The clauses of a finished text. Joined with spaces they are the text again, word for word."""
    splitter = ClauseSplitter()
    return [*splitter.feed(text), *splitter.finish()]


def _without(text: str, words: int) -> str:
    """Drop the first `words` words, keeping the rest as it is spaced."""
    match = re.match(rf"\s*(?:\S+\s*){{{words}}}", text)
    return text[match.end() :] if match else ""
