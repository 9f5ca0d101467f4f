"""Hints for the human agent: cards that meet what either party is saying, found while they say it. They are looked for
on the threads that write, so that no step waits for them.

Every time the running text has grown by two words, its last words are looked up, in a short window (what is being said)
and a longer one (what is being talked about). A card that is clearly the best is proposed at once; one that is only
good must be the best twice in a row. No card is proposed twice on a call.

A caller says what the matter is, so that a card may be less like it; an agent explains what he knows, in words that
touch many cards in passing, and must meet one more closely. Words that every call is full of count for nothing: they
neither make an utterance worth looking at nor a window worth believing.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from calls.model import Role
from model_worker.cascade.knowledge import Found, Library
from model_worker.cascade.retrieval import terms

WINDOWS = (12, 25)  # words
FEWEST_WORDS = 4
FEWEST_TERMS = 2  # words with content in a window: one alone ("when you have to reset") is like too many cards
GROWTH = 2  # words
MARGIN = 0.03
_CHATTER = frozenset(
    terms(
        """
        ah all also alright am anything back because been bit but bye course day did done dont even for get give go
        gonna good got great had has have hello her here hey hi him his hmm ill im into its ive just kind know let lets
        like little look maybe mean mhm minute moment name need nice no not now off oh ok okay one ones out over perfect
        please problem put quick real really right said say second see she should some something sorry speaking stuff
        sure take talk tell thank thanks thats them then there theres these they theyre theyve thing things think those
        today too totally uh um up us very want welcome well were whats whatever who why yeah yep yes youd youll your
        youre youve
        """
    )
)


@dataclass(frozen=True, slots=True)
class Bar:
    """How like a card one's words must be."""

    sure: float  # at once
    good: float  # twice in a row


BARS = {Role.CALLER: Bar(0.58, 0.5), Role.HUMAN_AGENT: Bar(0.6, 0.55)}


def content(text: str) -> set[str]:
    """The words of `text` that say what it is about."""
    return set(terms(text)) - _CHATTER


@dataclass(slots=True)
class Proposed:
    """The cards that were proposed on a call, whoever said the words, whichever thread found them."""

    ids: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def claim(self, card_id: str) -> bool:
        """True for the first one only."""
        with self._lock:
            if card_id in self.ids:
                return False
            self.ids.add(card_id)
            return True


@dataclass(slots=True)
class HintFinder:
    """One participant's words in search of cards."""

    proposed: Proposed
    role: Role = Role.CALLER
    _looked_at: int = 0  # words of the running text at the last look
    _likely: str = ""  # the card that was best, but only good
    _before: list[str] = field(default_factory=list)  # the last words of the utterances before

    def look(self, running: str, library: Library) -> Found | None:
        """A card to propose now, or None. `running` is the utterance so far."""
        said = running.split()
        if len(said) < self._looked_at + GROWTH and len(said) >= self._looked_at:
            return None
        self._looked_at = len(said)
        if not content(running):
            return None  # "uh, okay" does not ask again for what was said before it
        text = [*self._before, *said]
        windows = _worth([text[-size:] for size in dict.fromkeys(min(size, len(text)) for size in WINDOWS)])
        return self._weigh(max(library.find_all(windows), key=lambda found: found.score, default=None))

    def look_again(self, text: str, library: Library) -> Found | None:
        """The finished utterance as the better recogniser wrote it: was something missed? Only what is clear counts."""
        said = text.split()
        starts = range(0, max(1, len(said) - WINDOWS[0] // 2), WINDOWS[0])
        found = library.find_all(_worth([said[start : start + WINDOWS[0]] for start in starts]))
        sure = [f for f in found if f.score >= self._bar.sure and f.margin >= MARGIN]
        if not sure or any(f.card.id in self.proposed.ids for f in sure):
            return None  # nothing, or what it is about was seen while it was said
        best = max(sure, key=lambda f: f.score)
        return best if self.proposed.claim(best.card.id) else None

    def finish(self, text: str) -> None:
        """The utterance is over; its last words stay in view for the next one."""
        self._before = [*self._before, *text.split()][-WINDOWS[-1] // 2 :]
        self._looked_at = 0

    @property
    def _bar(self) -> Bar:
        return BARS.get(self.role, BARS[Role.CALLER])

    def _weigh(self, found: Found | None) -> Found | None:
        if found is None or found.score < self._bar.good or found.card.id in self.proposed.ids:
            self._likely = ""
            return None
        if found.margin >= MARGIN and (found.score >= self._bar.sure or found.card.id == self._likely):
            self._likely = ""
            return found if self.proposed.claim(found.card.id) else None
        self._likely = found.card.id
        return None


def _worth(windows: list[list[str]]) -> list[str]:
    """The windows with enough in them to be looked up."""
    texts = [" ".join(window) for window in windows if len(window) >= FEWEST_WORDS]
    return [text for text in texts if len(content(text)) >= FEWEST_TERMS]
