"""Items made of nothing but numbers, for the tests of what is kept and how."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from calls.audio import CHUNK_S, CHUNK_SAMPLES
from calls.model import Mode
from soundflow.items import Item, Split, Turn


def made_item(seed: int, chunks: int = 20, split: Split = "train") -> Item:
    """A silent turn and one that is responded to, at Chunks that the seed chooses; the audio is noise."""
    rng = np.random.default_rng(seed)
    audio = rng.integers(-3000, 3000, chunks * CHUNK_SAMPLES).astype(np.int16)
    end = int(rng.integers(max(8, chunks // 2), chunks))
    turns = (
        Turn("proactive/safety-sound", 0.3, 2.0, False, "rain", "rain", sources=("a", "b")),
        Turn("proactive/safety-sound", 2.4, end * CHUNK_S, True, "a baby", "baby_cry", "A baby?", "urgent", early=True),
    )
    return Item(f"item-{seed}", "proactive/safety-sound", Mode.ANSWER, "Help.", audio, turns, split, seed, "a kitchen")


def same(one: Item, other: Item) -> bool:
    return one.meta() == other.meta() and np.array_equal(one.audio, other.audio)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """The kernel refuses to write on where a file has this size, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
