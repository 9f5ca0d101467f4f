"""Text on its way to the voice: cleaned of what cannot be spoken, cut into clauses, the first one short.

There is one cutter in the house, because two rooms must agree to the character: the agent cuts what is spoken, and the
worker has the very same first clauses ready before the agent asks for them.

The first clause decides how long the caller waits, so it ends at the first pause; later ones are whole sentences where
they can be, because those sound best, cut at a comma only when they are long.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

_MARKS = re.compile(r"[*_`#|<>\[\]{}~^\\]+")
_LIST_MARK = re.compile(r"[-•]|\d{1,2}[.)]")
_LINE_END = "\n"
_TOKEN = re.compile(r"\n|\S+")

_STOP = re.compile(r"[.!?…]+[\"')]*$")
_PAUSE = re.compile(r"[,;:—–][\"')]*$")
# After these a full stop does not end the sentence: "Mr. Lee", "a.m. on Monday", "approx. five", "J. Lee". Not "no.":
# an answer begins with it more often than a number does.
_ABBREVIATION = re.compile(
    r"[\"'(]*(?:dr|mr|mrs|ms|prof|st|rd|vs|approx|ext|dept|apt|ave|blvd|(?:[a-z]\.)*[a-z])\.", re.IGNORECASE
)
_JOINS = frozenset(  # words that a speaker may pause before
    "and but so or because which that if when while although where who for with until between from on at in".split()  # noqa: SIM905
)
_JOIN_AFTER = 3  # a clause cut before such a word has at least so many words


@dataclass(frozen=True, slots=True)
class _Lengths:
    """In words: where a pause ends a clause, where it is cut before a joining word, and where it is cut anyway."""

    pause: int
    join: int
    most: int


_FIRST = _Lengths(pause=2, join=9, most=13)
_LATER = _Lengths(pause=8, join=18, most=24)
LONGEST_WORDS = _LATER.most


def speakable(text: str) -> str:
    """`text` without Markdown and list marks, its white space made single."""
    words = _Words()
    return " ".join(word for word in (*words.feed(text), *words.finish()) if word != _LINE_END)


def clauses(text: str, *, begins: bool = True) -> list[str]:
    """A finished text in clauses. Joined by spaces they are `speakable(text)`, but for marks after the last word.

    With `begins` false the text goes on from another, so its first clause need not be short.
    """
    cutter = Clauses() if begins else Clauses(_Words(_is_first=False), _lengths=_LATER)
    return [*cutter.feed(text), *cutter.finish()]


@dataclass(slots=True)
class Clauses:
    """Cuts text that is still being written, one cutter a text. The pieces it comes in make no difference.

    A mark ends a clause only when white space follows it, so "9.30" and "£4,500" are never cut. A clause holds at least
    one letter or digit.
    """

    _tokens: _Words = field(default_factory=lambda: _Words())
    _words: list[str] = field(default_factory=list)  # of the clause under way
    _sounds: bool = False  # one of them has a letter or a digit
    _lengths: _Lengths = _FIRST

    def feed(self, text: str) -> list[str]:
        """Take more text; return the clauses that are now certain."""
        return list(self._cut(self._tokens.feed(text)))

    def finish(self) -> list[str]:
        """The text is complete: return what is left of it. Nothing may be fed afterwards."""
        return list(self._cut(self._tokens.finish()))

    def _cut(self, words: Iterable[str]) -> Iterator[str]:
        for word in words:
            if word != _LINE_END:
                self._words.append(word)
                self._sounds = self._sounds or _sounds(word)
            size = self._size(word) if self._sounds else 0
            if size:
                clause, left = self._words[:size], self._words[size:]
                self._words, self._sounds, self._lengths = [], False, _LATER
                yield " ".join(clause)
                yield from self._cut(left)

    def _size(self, word: str) -> int:
        """How many words make the clause that `word`, the newest, ends; 0 if it goes on."""
        count = len(self._words)
        if word == _LINE_END or (_STOP.search(word) and not _ABBREVIATION.fullmatch(word)):
            return count
        if count >= self._lengths.pause and _PAUSE.search(word):
            return count
        if count >= self._lengths.join:
            joins = [at for at, word in enumerate(self._words) if at >= _JOIN_AFTER and word.lower() in _JOINS]
            while joins and joins[-1] - 1 in joins:
                joins.pop()  # "because that is": not between the two
            if joins:
                return joins[-1]
        return count if count >= self._lengths.most else 0


@dataclass(slots=True)
class _Words:
    """Text in pieces -> its speakable words and line ends. A word is certain once white space follows it."""

    _pending: str = ""
    _is_first: bool = True  # the next word is the first of its line
    _list_mark: str = ""  # the first word of this line, if it may be a list mark: it is one when another word follows

    def feed(self, text: str) -> list[str]:
        self._pending += text
        tokens = _TOKEN.findall(self._pending)
        self._pending = tokens.pop() if tokens and not self._pending[-1].isspace() else ""
        return [word for token in tokens for word in self._take(token)]

    def finish(self) -> list[str]:
        last, self._pending = self._pending, ""
        return [word for token in (last, _LINE_END) if token for word in self._take(token)]

    def _take(self, token: str) -> Iterator[str]:
        if token == _LINE_END:
            if _sounds(self._list_mark):
                yield self._list_mark  # a number and a full stop, alone: "7."
            self._list_mark, self._is_first = "", True
            yield _LINE_END
            return
        is_first, self._is_first, self._list_mark = self._is_first, False, ""
        if is_first and _LIST_MARK.fullmatch(token):
            self._list_mark = token
        elif word := _MARKS.sub("", token):
            yield word


def _sounds(word: str) -> bool:
    return any(character.isalnum() for character in word)
