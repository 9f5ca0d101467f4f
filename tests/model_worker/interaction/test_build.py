"""What a device can do decides how fast a checkpoint is served, not what it says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from model_worker.interaction import build as building
from model_worker.interaction.build import paced
from model_worker.interaction.checkpoint import Checkpoint
from model_worker.interaction.config import TEST
from model_worker.interaction.make import make_tokenizer
from model_worker.interaction.memory import Memory
from tests.model_worker.interaction.audio import in_chunks, sound
from tests.model_worker.interaction.served import PREFIX, TWO_TIERS, Heard, listen, serve


@pytest.mark.parametrize(
    ("millions", "on_gpu", "words"), [(3, False, 8), (135, False, 3), (3_000, False, 2), (135, True, 8)]
)
def test_a_cpu_writes_fewer_words_of_a_large_decoder(millions: int, on_gpu: bool, words: int) -> None:
    large = torch.empty(millions * 1_000_000, device="meta")
    checkpoint = Checkpoint("native", TEST, {}, {"embed_tokens.weight": large}, {}, make_tokenizer())
    assert paced(checkpoint, on_gpu) == replace(TEST, words_a_chunk=words)


def test_where_nothing_can_be_compiled_it_serves_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a GPU whose machine has no C compiler."""

    def backend(*_: object) -> Callable[..., object]:
        raise FileNotFoundError("no C compiler")

    def said() -> list[Heard]:
        serving = serve(TWO_TIERS)
        return listen(serving, [(serving.open(PREFIX), 0, in_chunks(sound(1, 12)))])

    def as_on_a_gpu(*given: Any, compiled: bool) -> Memory:
        return Memory(*given, compiled=True)

    expected = said()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    monkeypatch.setattr(building, "Memory", as_on_a_gpu)
    with caplog.at_level(logging.WARNING):
        assert said() == expected
    assert [record.name for record in caplog.records] == [building.__name__] * 2  # a tier each
    assert "no C compiler" in caplog.text


def test_that_there_is_no_memory_to_compile_is_no_reason_to_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(building, "Memory", lambda *given, compiled: Memory(*given, compiled=True))
    monkeypatch.setattr(building.Decoder, "warm", full)
    with pytest.raises(torch.OutOfMemoryError):
        serve(TWO_TIERS)
