"""Finding the knowledge card that answers what was said: MiniLM sentence vectors joined with a lexical score.

The encoder (all-MiniLM-L6-v2; Wang et al. 2020, Reimers and Gurevych 2019) is six small BERT layers. It is run in
numpy: a query of ten words costs about 10 ms, and no deep-learning framework is loaded for it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter, OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import tokenizers

Array = npt.NDArray[np.float32]

WIDTH = 384
_HEADS = 12
_LAYERS = 6
_MOST_TOKENS = 256  # as in its training
_EPSILON = 1e-12
_SETS_KEPT = 32
_BATCH = 32


class Card(Protocol):
    """A piece of the tenant's knowledge."""

    @property
    def id(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def text(self) -> str: ...


CardT = TypeVar("CardT", bound=Card)


class TextEmbedder(Protocol):
    """Texts -> unit vectors, float32 [n, width]; `embed_set` may remember a set it has seen."""

    def embed(self, texts: Sequence[str]) -> Array: ...
    def embed_set(self, texts: Sequence[str]) -> Array: ...


class Embedder:
    """MiniLM. Holds weights and the vectors of recent card sets. `directory` is `catalogue.path("minilm")`."""

    def __init__(self, directory: Path) -> None:
        self._weights = read_safetensors(directory / "model.safetensors")
        self._tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._tokenizer.enable_truncation(_MOST_TOKENS)
        self._tokenizer.enable_padding()
        self._sets: OrderedDict[bytes, Array] = OrderedDict()

    def embed(self, texts: Sequence[str]) -> Array:
        """Texts -> unit vectors, float32 [n, 384]. Texts over 256 tokens are cut."""
        if not texts:
            return np.zeros((0, WIDTH), np.float32)
        # Batches of like length, so that little is spent on padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors = np.empty((len(texts), WIDTH), np.float32)
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            vectors[chosen] = self._encode([texts[i] for i in chosen])
        return vectors

    def embed_set(self, texts: Sequence[str]) -> Array:
        """As `embed`, but the vectors of the last 32 sets are remembered, so that a call's start costs nothing."""
        key = hashlib.sha256("\0".join(texts).encode()).digest()
        known = self._sets.pop(key, None)
        vectors = self.embed(texts) if known is None else known
        self._sets[key] = vectors
        while len(self._sets) > _SETS_KEPT:
            self._sets.popitem(last=False)
        return vectors

    def _encode(self, texts: Sequence[str]) -> Array:
        batch = self._tokenizer.encode_batch(list(texts))
        ids = np.array([encoding.ids for encoding in batch])
        mask = np.array([encoding.attention_mask for encoding in batch], np.float32)
        w = self._weights
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x + w["embeddings.position_embeddings.weight"][: ids.shape[1]], "embeddings.LayerNorm")
        unseen = (1.0 - mask)[:, None, None, :] * np.float32(-1e9)
        for layer in range(_LAYERS):
            x = self._layer(x, unseen, f"encoder.layer.{layer}")
        pooled = (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        unit: Array = pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-9)
        return unit.astype(np.float32)

    def _layer(self, x: Array, unseen: Array, name: str) -> Array:
        """One BERT layer: [n, tokens, 384] -> the same."""
        n, tokens, _ = x.shape

        def heads(part: str) -> Array:
            projected = self._dense(x, f"{name}.attention.self.{part}")
            return projected.reshape(n, tokens, _HEADS, -1).transpose(0, 2, 1, 3)

        scores = heads("query") @ heads("key").transpose(0, 1, 3, 2) / np.float32(math.sqrt(WIDTH / _HEADS)) + unseen
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        attended = (weights @ heads("value")).transpose(0, 2, 1, 3).reshape(n, tokens, WIDTH)
        x = self._norm(
            x + self._dense(attended, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm"
        )
        inner = _gelu(self._dense(x, f"{name}.intermediate.dense"))
        return self._norm(x + self._dense(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _dense(self, x: Array, name: str) -> Array:
        projected: Array = x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return projected

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(_EPSILON))
        normed: Array = scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return normed


def _gelu(x: Array) -> Array:
    """x times the normal distribution function, with erf by Abramowitz and Stegun 7.1.26 (error under 2e-7)."""
    z = np.abs(x) * np.float32(1 / math.sqrt(2))
    t = 1.0 / (1.0 + np.float32(0.3275911) * z)
    series = ((((1.061405429 * t - 1.453152027) * t) + 1.421413741) * t - 0.284496736) * t + 0.254829592
    erf = 1.0 - series * t * np.exp(-z * z)
    smooth: Array = (0.5 * x * (1.0 + np.copysign(erf, x))).astype(np.float32)
    return smooth


def read_safetensors(path: Path) -> dict[str, Array]:
    """The float32 tensors of a safetensors file, mapped into memory and shared between processes."""
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header: dict[str, Any] = json.loads(stream.read(size))
    data = np.memmap(path, np.uint8, "r", offset=8 + size)
    tensors = {}
    for name, entry in header.items():
        if entry.get("dtype") == "F32":
            start, end = entry["data_offsets"]
            tensors[name] = np.asarray(data[start:end]).view(np.float32).reshape(entry["shape"])
    return tensors


_DENSE_SHARE = 0.7
_K1, _B = 1.2, 0.75  # Robertson and Zaragoza 2009
_STOP_WORDS = """
a an and are as at be but by can could do does for from have how i if in is it me my of on or our so that the this to
was we what when where which will with would you your
"""
_STOP = frozenset(_STOP_WORDS.split())


class CardIndex(Generic[CardT]):
    """Search over one tenant's cards. Scores are about 0..1 and comparable between queries."""

    def __init__(self, cards: Sequence[CardT], embedder: TextEmbedder) -> None:
        self._cards = list(cards)
        self._embedder = embedder
        # A title is often the caller's question almost word for word; the text drowns it.
        self._titles = embedder.embed_set([card.title for card in self._cards])
        self._texts = embedder.embed_set([f"{card.title}. {card.text}" for card in self._cards])
        self._terms = [Counter(terms(f"{card.title} {card.title} {card.text}")) for card in self._cards]
        self._lengths = [sum(counts.values()) for counts in self._terms]
        self._mean_length = max(1.0, sum(self._lengths) / max(1, len(self._lengths)))
        self._document_counts = Counter(term for counts in self._terms for term in counts)

    def search(self, text: str, k: int = 3) -> list[tuple[CardT, float]]:
        """The `k` best cards for what was said, best first, with their scores."""
        if not self._cards or not text.strip():
            return []
        query = self._embedder.embed([text])[0]
        dense = np.maximum(self._titles @ query, self._texts @ query)
        scores = _DENSE_SHARE * dense + (1.0 - _DENSE_SHARE) * self._lexical(terms(text))
        best = np.argsort(-scores, kind="stable")[:k]
        return [(self._cards[i], float(scores[i])) for i in best]

    def _lexical(self, query: Sequence[str]) -> Array:
        """BM25 of each card over the most that the query could score: 0..1."""
        total = len(self._cards)
        weights = {
            term: math.log(1 + (total - self._document_counts[term] + 0.5) / (self._document_counts[term] + 0.5))
            for term in set(query)
        }
        most = sum(weights.values()) * (_K1 + 1)
        scores = np.zeros(total, np.float32)
        if most == 0:
            return scores
        for i, counts in enumerate(self._terms):
            length = _K1 * (1 - _B + _B * self._lengths[i] / self._mean_length)
            scores[i] = sum(w * counts[t] * (_K1 + 1) / (counts[t] + length) for t, w in weights.items() if t in counts)
        return scores / np.float32(most)


def terms(text: str) -> list[str]:
    """The words that count in a lexical match, crudely stemmed: lower case, no stop words, no plural or -ing, -ed."""
    found = []
    for word in re.findall(r"[^\W_]+", text.lower().replace("'", "")):
        for end in ("ing", "ies", "es", "ed", "s"):
            if word.endswith(end) and len(word) - len(end) >= 3:
                word = word[: -len(end)] + ("y" if end == "ies" else "")
                break
        if word not in _STOP:
            found.append(word)
    return found
