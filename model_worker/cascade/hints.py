"""Hints for the human agent: cards that meet what either party is saying, found while they say it. They are looked for
on the threads that write, so that no step waits for them.

Every time the running text has grown by two words, its last words are looked up, in a short window (what is being said)
and a longer one (what is being talked about). A card that is clearly the best is proposed at once; one that is only
good must be the best twice in a row. No card is proposed twice on a call.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from model_worker.cascade.knowledge import Found, Library

WINDOWS = (12, 25)  # words
FEWEST_WORDS = 4
GROWTH = 2  # words
SURE, GOOD, MARGIN = 0.58, 0.5, 0.03


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
    _looked_at: int = 0  # words of the running text at the last look
    _likely: str = ""  # the card that was best, but only good
    _before: list[str] = field(default_factory=list)  # the last words of the utterances before

    def look(self, running: str, library: Library) -> Found | None:
        """A card to propose now, or None. `running` is the utterance so far."""
        said = running.split()
        if len(said) < self._looked_at + GROWTH and len(said) >= self._looked_at:
            return None
        self._looked_at = len(said)
        text = [*self._before, *said]
        if len(text) < FEWEST_WORDS:
            return None
        windows = [" ".join(text[-size:]) for size in dict.fromkeys(min(size, len(text)) for size in WINDOWS)]
        return self._weigh(max(library.find_all(windows), key=lambda found: found.score, default=None))

    def look_again(self, text: str, library: Library) -> Found | None:
        """The finished utterance as the better recogniser wrote it: was something missed? Only what is clear counts."""
        said = text.split()
        starts = range(0, max(1, len(said) - WINDOWS[0] // 2), WINDOWS[0])
        found = library.find_all([" ".join(said[start : start + WINDOWS[0]]) for start in starts])
        sure = [f for f in found if f.score >= SURE and f.margin >= MARGIN]
        if len(said) < FEWEST_WORDS or not sure or any(f.card.id in self.proposed.ids for f in sure):
            return None  # nothing, or what it is about was seen while it was said
        best = max(sure, key=lambda f: f.score)
        return best if self.proposed.claim(best.card.id) else None

    def finish(self, text: str) -> None:
        """The utterance is over; its last words stay in view for the next one."""
        self._before = [*self._before, *text.split()][-WINDOWS[-1] // 2 :]
        self._looked_at = 0

    def _weigh(self, found: Found | None) -> Found | None:
        if found is None or found.score < GOOD or found.card.id in self.proposed.ids:
            self._likely = ""
            return None
        if (found.score >= SURE and found.margin >= MARGIN) or found.card.id == self._likely:
            self._likely = ""
            return found if self.proposed.claim(found.card.id) else None
        self._likely = found.card.id
        return None
