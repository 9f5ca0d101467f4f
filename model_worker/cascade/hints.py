"""Hints for the human agent: cards that meet what either party is saying, found while they say it. Pure but for the
library it asks.

Every time the running text has grown by two words, its last words are looked up, in a short window (what is being said)
and a longer one (what is being talked about). A card that is clearly the best is proposed at once; one that is only
good must be the best twice in a row. No card is proposed twice on a call.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from model_worker.cascade.knowledge import Found, Library

WINDOWS = (12, 25)  # words
FEWEST_WORDS = 4
GROWTH = 2  # words
SURE, GOOD, MARGIN = 0.58, 0.5, 0.03


@dataclass(slots=True)
class HintFinder:
    """One participant's words in search of cards. `proposed` (ids) is shared by the participants of a call."""

    proposed: set[str]
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
        best = None
        for size in dict.fromkeys(min(size, len(text)) for size in WINDOWS):
            found = library.find(" ".join(text[-size:]))
            if found is not None and (best is None or found.score > best.score):
                best = found
        return self._weigh(best)

    def finish(self, text: str) -> None:
        """The utterance is over; its last words stay in view for the next one."""
        self._before = [*self._before, *text.split()][-WINDOWS[-1] // 2 :]
        self._looked_at = 0

    def _weigh(self, found: Found | None) -> Found | None:
        if found is None or found.score < GOOD or found.card.id in self.proposed:
            self._likely = ""
            return None
        if (found.score >= SURE and found.margin >= MARGIN) or found.card.id == self._likely:
            self.proposed.add(found.card.id)
            self._likely = ""
            return found
        self._likely = found.card.id
        return None
