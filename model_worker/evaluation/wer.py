"""Word error rate, with the spelling differences that are not errors taken out first."""

from __future__ import annotations

import re
from collections.abc import Iterable

from model_worker.spoken import cardinal, digits

_SAME = {
    "ok": "okay", "dialled": "dialed", "mr": "mister", "log in": "login", "im": "i am", "thats": "that is",
    "good bye": "goodbye", "key words": "keywords", "touch tone": "touchtone",
}  # fmt: skip


def words(text: str) -> list[str]:
    """Lower case, no punctuation, numbers as words: `Press 1, it's` -> `press one its`."""
    text = re.sub(r"['’]", "", text.lower())
    text = re.sub(r"\d+", lambda m: f" {cardinal(int(m[0])) if len(m[0]) < 3 else digits(m[0])} ", text)
    text = " ".join(re.findall(r"[^\W_]+", text))
    for this, that in _SAME.items():
        text = re.sub(rf"\b{this}\b", that, text)
    return text.split()


def errors(reference: list[str], heard: list[str]) -> int:
    """Substitutions, insertions and deletions between two word lists (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(reference, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
    return row[-1]


def word_error_rate(pairs: Iterable[tuple[str, str]]) -> float:
    """Errors over reference words, for (reference, heard) pairs."""
    wrong = total = 0
    for reference, heard in pairs:
        expected = words(reference)
        wrong += errors(expected, words(heard))
        total += len(expected)
    return wrong / max(total, 1)
