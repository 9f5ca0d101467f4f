"""Where tokens stand, what they see, and that neither grows."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model_worker.interaction import build as building
from model_worker.interaction.config import TEST, MemoryConfig
from model_worker.interaction.memory import BLOCK, EMPTY, Memory
from model_worker.interaction.tokens import CHUNK_TOKENS
from tests.model_worker.interaction.audio import in_chunks, sound
from tests.model_worker.interaction.served import PREFIX, SMALL, TWO_TIERS, listen, serve

SIZES = MemoryConfig(prefix=3, text=5, chunks=3)
NARROW = replace(TEST.decoder, layers=1, kv_heads=1, head_width=4)


def memory(slots: int = 1) -> Memory:
    return Memory(SIZES, NARROW, slots, torch.device("cpu"), torch.float32)


class Calls:
    """Appends to a memory as the two passes do, times only, and remembers everything beside it."""

    def __init__(self) -> None:
        self.memory = memory()
        self.row = torch.tensor([0])
        self.memory.times[0, :3] = torch.arange(3)
        self.chunk, self.texts, self.silent = 0, 0, False
        self.ever: list[list[int]] = []  # times of each Chunk
        self.text: list[int] = []
        self.response: list[int] | None = None  # Chunk, tokens said

    def hear(self, respond: bool) -> None:
        number = torch.tensor([self.chunk])
        times = self.memory.chunk_times(number)[0]
        kept = times.clone()
        if not self.silent:
            kept[0] = EMPTY
        else:
            self.ever[-1].append(int(times[0]))
        self.memory.forget_chunk(self.row, number)
        self.memory.times[0, self.memory.chunk_places(number)[0]] = kept
        self.ever.append(times[1:].tolist())
        self.silent = not respond
        if respond:
            self.response = [self.chunk, 0]
        self.chunk += 1

    def write(self) -> None:
        if self.response:
            time = self.memory.text_times(*map(torch.tensor, self.response))
            self.memory.times[0, self.memory.text_places(torch.tensor(self.texts))] = time
            self.text.append(int(time))
            self.response[1] += 1
            self.texts += 1

    @property
    def remembered(self) -> list[int]:
        """What 0009 says is remembered, in order."""
        chunks = [time for chunk in self.ever[-SIZES.chunks :] for time in chunk]
        return sorted([*range(3), *self.text[-SIZES.text :], *chunks])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["silent", "respond", "write"]), max_size=60))
def test_what_is_remembered_and_in_which_order(steps: list[str]) -> None:
    calls = Calls()
    for step in steps:
        calls.write() if step == "write" else calls.hear(step == "respond")
        times = calls.memory.times[0]
        assert sorted(times[times != EMPTY].tolist()) == calls.remembered
        asked = torch.tensor([[calls.remembered[-1], calls.remembered[len(calls.remembered) // 2]]])
        sees, own, places = calls.memory.see(calls.row, asked)
        for query in (0, 1):
            seen = sorted(times[sees[0, query]].tolist())
            assert seen == [time for time in calls.remembered if time <= asked[0, query]]
            assert own[0, query] == len(seen) - 1
        order = [calls.remembered.index(time) for time in times[times != EMPTY].tolist()]
        assert places[0, times != EMPTY].tolist() == order


def test_positions_after_ten_thousand_chunks_are_those_after_ten() -> None:
    calls = Calls()
    highest = {}
    for chunk in range(10_001):
        calls.hear(respond=chunk % 7 == 3)
        for _ in range(chunk % 4):
            calls.write()
        asked = calls.memory.chunk_times(torch.tensor([chunk]))
        highest[chunk] = int(calls.memory.see(calls.row, asked)[1].max())
        del calls.ever[:-4], calls.text[:-10]
    assert max(highest.values()) < SIZES.places
    assert max(highest.values()) == max(highest[chunk] for chunk in range(100))


def test_the_ring_wraps_exactly() -> None:
    kept = memory()
    first, last = SIZES.prefix + SIZES.text, SIZES.places
    places = [kept.chunk_places(torch.tensor([chunk]))[0].tolist() for chunk in range(7)]
    own = [row[1:] for row in places]
    assert own[0] == list(range(first, first + CHUNK_TOKENS))
    assert own[0] == own[3] == own[6]
    assert own[1] == own[4] == [place + BLOCK for place in own[0]]
    assert [row[0] for row in places[1:4]] == [first + 12, first + 25, last - 1]
    assert {kept.text_places(torch.tensor(n)).item() for n in range(20)} == set(range(3, 8))


def test_a_memory_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two Chunks"):
        Memory(MemoryConfig(3, 5, 1), NARROW, 1, torch.device("cpu"), torch.float32)


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each batch that something is compiled for, in build() as on a GPU."""
    rows: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        rows.append(next(len(tensor) for tensor in inputs if tensor.dtype == torch.int64))
        return graph.forward

    def as_on_a_gpu(*given: Any, compiled: bool) -> Memory:
        return Memory(*given, compiled=True)

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    monkeypatch.setattr(building, "Memory", as_on_a_gpu)
    return rows


MANY = tuple(range(1, 10))  # more sizes than torch compiles one function for


def test_nothing_is_compiled_once_it_serves(compiles: list[int]) -> None:
    """Two tiers, all sizes, prefixes and words that are taken over; and a second model in the same process."""
    for sizes in (MANY, (2, 3), (2, 3)):
        compiles.clear()
        serving = serve(TWO_TIERS, slots=9, sizes=sizes)
        built = sorted([*sizes, *sizes, 1, 1] if 1 not in sizes else [*sizes, *sizes])
        assert sorted(compiles) == built
        lives = []
        for calls in (1, 4, 9):
            with ThreadPoolExecutor(1) as another:  # a worker opens its calls in threads that did not build the model
                opening = [another.submit(serving.open, PREFIX[: 2 + n], said=[[5, 6]]) for n in range(calls)]
            ears = [one.result() for one in opening]
            lives += listen(serving, [(ear, n, in_chunks(sound(n, 4))) for n, ear in enumerate(ears)])
            for ear in ears:
                serving.release(ear)
        assert any(life.words for life in lives)
        assert sorted(compiles) == built


def test_without_memory_for_a_copy_of_the_prefix_the_call_is_there_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clone = Tensor.clone

    def full(self: Tensor, **how: Any) -> Tensor:
        if self.dim() == 4:
            raise torch.OutOfMemoryError("full")
        return clone(self, **how)

    serving = serve(SMALL)
    first = serving.open(PREFIX)
    serving._decoder._prefixes.clear()
    monkeypatch.setattr(Tensor, "clone", full)
    second = serving.open(PREFIX)
    assert not serving._decoder._prefixes
    keys = serving._decoder.memory.keys
    assert torch.equal(keys[:, first.slot], keys[:, second.slot])
