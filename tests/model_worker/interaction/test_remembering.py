"""What is decided and said is what docs/decisions/0009 says it is, also after much was forgotten, and at any batch."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")

from dataclasses import replace

import torch
from torch import Tensor

from model_worker.interaction.config import InteractionConfig
from model_worker.interaction.perception import Perception
from tests.model_worker.interaction.audio import in_chunks, sound
from tests.model_worker.interaction.served import DEVICES, PREFIX, SMALL, TWO_TIERS, Heard, checkpoint, listen, serve
from tests.model_worker.interaction.slow import listen_slowly

LLAMA = replace(SMALL, decoder=replace(SMALL.decoder, qkv_bias=False, tied=True, norm_eps=1e-5))
HEADED = replace(SMALL, decoder=replace(SMALL.decoder, control_head=True), threshold=0.65)
CONFIGS = {"small": SMALL, "llama": LLAMA, "control head": HEADED, "two tiers": TWO_TIERS}


def features(config: InteractionConfig, pcm: Tensor) -> list[Tensor]:
    """Of each Chunk, heard one by one."""
    perception = Perception(config, 1)
    perception.load(checkpoint(config).tower)
    return [perception.hear(torch.tensor([0]), chunk[None])[0] for chunk in in_chunks(pcm)]


def slowly(config: InteractionConfig, pcm: Tensor) -> Heard:
    made = checkpoint(config)
    return listen_slowly(config, made.decoder, made.ear, PREFIX, features(config, pcm))[0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CONFIGS)
def test_as_defined(name: str, device: str) -> None:
    """Through several turns of every ring."""
    config = CONFIGS[name]
    pcm = sound(1, 30)
    serving = serve(config, slots=2, device=device)
    [heard] = listen(serving, [(serving.admit(PREFIX), 0, in_chunks(pcm))])
    expected = slowly(config, pcm)
    assert heard.scores == pytest.approx(expected.scores, abs=1e-3)
    assert heard.choices() == expected.choices()
    # The sound makes it do all that there is to do.
    assert 3 <= len(heard.responded) <= 27
    assert heard.cut
    assert set(heard.ended) - set(heard.cut)
    assert any(len(words) > config.words_a_chunk for words in heard.words.values())


@pytest.mark.parametrize("config", [SMALL, TWO_TIERS], ids=["one tier", "two tiers"])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sizes", [None, (1, 2, 4, 8, 16, 32)], ids=["as they come", "padded"])
def test_thirty_two_calls_say_what_each_says_alone(
    config: InteractionConfig, device: str, sizes: tuple[int, ...] | None
) -> None:
    """Calls of different ages, silent and speaking, in batches of any size; and no Chunk is lost."""
    sounds = [in_chunks(sound(seed, 6 + seed % 5)) for seed in range(32)]
    together = serve(config, slots=32, device=device, sizes=sizes)
    together._passes = 3 if sizes else 1  # so that some answers end in mid-batch
    lives = listen(together, [(together.admit(PREFIX), seed % 9, chunks) for seed, chunks in enumerate(sounds)])
    alone = serve(config, slots=1, device=device)
    for chunks, life in zip(sounds, lives, strict=True):
        ear = alone.admit(PREFIX)
        [own] = listen(alone, [(ear, 0, chunks)])
        alone.release(ear)
        assert life.scores == pytest.approx(own.scores, abs=1e-3)
        assert len(life.scores) == len(chunks)
        assert life.choices() == own.choices()


@pytest.mark.parametrize("config", [SMALL, TWO_TIERS], ids=["one tier", "two tiers"])
@pytest.mark.parametrize("passes", [1, 2, 3])
def test_what_is_said_does_not_depend_on_the_time_there_is(config: InteractionConfig, passes: int) -> None:
    """A machine with no idle time at all, one with some, one that writes several tokens at once."""
    lives = []
    for idle in (0, 1, 100):
        serving = serve(config)
        serving._passes = passes
        calls = [(serving.admit(PREFIX), seed, in_chunks(sound(seed, 12))) for seed in range(3)]
        lives.append([life.choices() for life in listen(serving, calls, lambda step, idle=idle: idle)])  # type: ignore[misc]
    assert lives[0] == lives[1] == lives[2]
    assert any(words for life in lives[0] for words in life[1].values())  # type: ignore[attr-defined]


def test_the_slow_definition_stays_within_the_places() -> None:
    made = checkpoint(SMALL)
    _, voice = listen_slowly(SMALL, made.decoder, made.ear, PREFIX, features(SMALL, sound(1, 30)))
    assert voice.furthest < SMALL.memory.places
