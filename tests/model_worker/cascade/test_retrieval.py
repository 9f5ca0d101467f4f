from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_worker.cascade.retrieval import CardIndex, Embedder, terms


@dataclass(frozen=True)
class Note:
    id: str
    title: str
    text: str


NOTES = [
    Note("hours", "Opening hours", "We are open Monday to Friday 8:30 to 17:00."),
    Note("parking", "Parking", "Cars can be left behind the building, free of charge."),
    Note("prices", "Prices", "A check-up costs 90 dollars, whitening 200."),
    Note("refunds", "Refunds", "Money back within 30 days with a receipt."),
    Note("cancel", "Cancel an appointment", "Call at least 24 hours before, or use order form K-77."),
]


@pytest.fixture(scope="module")
def embedder(models: Callable[[str], Path]) -> Embedder:
    return Embedder(models("minilm"))


def test_the_vectors_are_those_of_the_model_card(embedder: Embedder) -> None:
    """The similarities that sentence-transformers gives for these sentences."""
    vectors = embedder.embed(["That is a happy person", "That is a very happy person", "Today is a sunny day"])
    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(vectors[0] @ vectors[1:].T, [0.9429, 0.2569], atol=2e-3)


def test_padding_changes_nothing(embedder: Embedder) -> None:
    short, long = "parking", "a much longer sentence about where one may leave one's car for the day"
    together = embedder.embed([short, long])
    np.testing.assert_allclose(together[0], embedder.embed([short])[0], atol=1e-5)
    assert embedder.embed([]).shape == (0, 384)


def test_a_set_is_embedded_once(embedder: Embedder) -> None:
    texts = [note.text for note in NOTES]
    assert embedder.embed_set(texts) is embedder.embed_set(texts)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("when do you close today", "hours"),
        ("where do I put my car", "parking"),
        ("how much is it to whiten my teeth", "prices"),
        ("I want my money back", "refunds"),
        ("what is form K-77", "cancel"),
    ],
)
def test_the_right_card_comes_first(embedder: Embedder, said: str, found: str) -> None:
    results = CardIndex(NOTES, embedder).search(said, 2)
    assert results[0][0].id == found
    assert len(results) == 2
    assert results[0][1] > results[1][1]


def test_small_talk_scores_low(embedder: Embedder) -> None:
    index = CardIndex(NOTES, embedder)
    assert index.search("the weather is nice", 1)[0][1] < index.search("I want my money back", 1)[0][1]
    assert index.search("  ", 3) == []
    assert CardIndex([], embedder).search("parking") == []


class Letters:
    """A stand-in encoder for the properties of the index: counts of letters."""

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        counts = np.array([[text.lower().count(c) + 1e-3 for c in "abcdefgh"] for text in texts], np.float32)
        return counts.reshape(-1, 8) / np.linalg.norm(counts.reshape(-1, 8), axis=1, keepdims=True)

    embed_set = embed


@given(st.lists(st.text("abcdefgh ", min_size=1, max_size=20), min_size=1, max_size=8), st.text(max_size=20))
def test_scores_are_ordered_and_bounded(texts: list[str], query: str) -> None:
    notes = [Note(str(i), text, text) for i, text in enumerate(texts)]
    scores = [score for _, score in CardIndex(notes, Letters()).search(query, 5)]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1.001 for score in scores)


def test_terms_lose_what_does_not_count() -> None:
    said = "What's the price of visits, and opening policies?"
    assert terms(said) == ["price", "visit", "open", "policy"]
