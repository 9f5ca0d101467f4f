"""The tenant's cards, ready to be asked: which card, and which of its sentences, meets what was said.

A card carries questions that callers put (`Card.asks`); a caller's words are nearest to those, so their similarity
counts most, joined with the search over titles and texts (retrieval.py). Scores are about 0..1; `FLOOR` parts knowing
from guessing and was set on the example garage, with questions it can and cannot answer.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from calls.model import Card
from model_worker.cascade.retrieval import Array, CardIndex, TextEmbedder

FLOOR = 0.48
_ASK_SHARE = 0.75
READ_ALL = 45  # words: a shorter card is read whole
_SKIP_MARGIN = 0.15  # how much better a later sentence must fit for the ones before it to be left out
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")


@dataclass(frozen=True, slots=True)
class Found:
    """A card that meets what was said. `margin`: how far the next card is behind."""

    card: Card
    score: float
    margin: float


class Memo:
    """An embedder that remembers the last few queries: partials, hints and answers ask for the same text."""

    def __init__(self, embedder: TextEmbedder, size: int = 64) -> None:
        self._embedder = embedder
        self._size = size
        self._known: OrderedDict[str, Array] = OrderedDict()
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> Array:
        with self._lock:
            missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        vectors = self._embedder.embed(missing) if missing else None
        with self._lock:
            for i, text in enumerate(missing):
                assert vectors is not None
                self._known[text] = vectors[i]
            found = np.stack([self._known[text] for text in texts]) if texts else self._embedder.embed([])
            while len(self._known) > self._size:
                self._known.popitem(last=False)
        return found

    def embed_set(self, texts: Sequence[str]) -> Array:
        return self._embedder.embed_set(texts)


class Library:
    """One set of cards. Building it embeds every text, which takes seconds the first time a set is seen."""

    def __init__(self, cards: Sequence[Card], embedder: Memo) -> None:
        self._embedder = embedder
        self._index = CardIndex(cards, embedder)
        asks = [(question, card.id) for card in cards for question in card.asks]
        self._askers = np.array([card_id for _, card_id in asks])
        self._asks = embedder.embed_set([question for question, _ in asks]) if asks else None
        self._sentences = {card.id: _SENTENCE.split(card.text.strip()) for card in cards}
        every = [sentence for sentences in self._sentences.values() for sentence in sentences]
        self._vectors = dict(zip(every, embedder.embed_set(every), strict=True)) if every else {}

    def find(self, text: str) -> Found | None:
        """The best card for `text`, however bad; None when there are no cards or no words."""
        return next(iter(self.rank(text)), None)

    def rank(self, text: str) -> list[Found]:
        """The cards nearest to `text`, best first."""
        scored = [(self._score(card, score, text), card) for card, score in self._index.search(text, k=8)]
        scored.sort(key=lambda pair: pair[0], reverse=True)
        behind = [score for score, _ in scored[1:]] + [0.0]
        return [Found(card, score, score - after) for (score, card), after in zip(scored, behind, strict=True)]

    def find_all(self, texts: Sequence[str]) -> list[Found]:
        """As `find` for several texts; cheaper than one after the other."""
        self._embedder.embed(texts)
        return [found for text in texts if (found := self.find(text)) is not None]

    def _score(self, card: Card, score: float, text: str) -> float:
        if self._asks is None:
            return score
        mine = self._asks[self._askers == card.id]
        if not len(mine):
            return score
        asked = float((mine @ self._embedder.embed([text])[0]).max())
        return max(score, _ASK_SHARE * asked + (1 - _ASK_SHARE) * score)

    def reading(self, card: Card, text: str) -> str:
        """What to read of a card to somebody who said `text`: the card, without sentences in front that fit far worse
        than a later one, and not much longer than a caller will listen to."""
        sentences = self._sentences[card.id]
        query = self._embedder.embed([text])[0]
        fits = [float(self._vectors[sentence] @ query) for sentence in sentences]
        best = max(range(len(fits)), key=fits.__getitem__)
        start = best if fits[best] > fits[0] + _SKIP_MARGIN else 0
        chosen: list[str] = []
        words = 0
        for sentence in sentences[start:]:
            words += len(sentence.split())
            if chosen and words > READ_ALL:
                break
            chosen.append(sentence)
        return " ".join(chosen)


class Libraries:
    """Libraries by their cards, each built once, on a thread of its own, while the call is already being heard."""

    def __init__(self, embedder: TextEmbedder, keep: int = 16) -> None:
        self._embedder = Memo(embedder)
        self._keep = keep
        self._built: OrderedDict[tuple[Card, ...], Future[Library]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, cards: Sequence[Card]) -> Future[Library]:
        key = tuple(cards)
        with self._lock:
            built = self._built.get(key)
            if built is not None and not (built.done() and built.exception()):  # what failed is built again
                self._built.move_to_end(key)
                return built
            future: Future[Library] = Future()
            self._built[key] = future
            while len(self._built) > self._keep:
                self._built.popitem(last=False)
        threading.Thread(target=self._build, args=(key, future), name="library", daemon=True).start()
        return future

    def _build(self, cards: tuple[Card, ...], future: Future[Library]) -> None:
        try:
            future.set_result(Library(cards, self._embedder))
        except Exception as error:  # the boundary of one set of cards: handed to the calls that have them
            future.set_exception(error)
