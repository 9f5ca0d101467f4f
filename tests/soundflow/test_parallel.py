"""What trains sees exactly what serves: the whole stream at once against the tier, Chunk by Chunk."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")
pytest.importorskip(
    "transformers", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test"
)

from dataclasses import replace

import torch

from model_worker.interaction.config import EAR_TOKENS, SMALL, TEST, DecoderConfig, InteractionConfig, MemoryConfig
from model_worker.interaction.decoder import Decoder
from model_worker.interaction.memory import Memory
from model_worker.interaction.tier import NOTHING, Markers, Tier
from soundflow.items import RESPOND
from soundflow.train.layout import FEATURE, offline, sights, streaming
from soundflow.train.parallel import collate, states

EAR = DecoderConfig(
    vocabulary=len(EAR_TOKENS),
    width=32,
    layers=2,
    heads=4,
    kv_heads=2,
    head_width=8,
    feed_forward=48,
    rope_theta=10_000.0,
    qkv_bias=False,
    tied=True,
    control_head=True,
)
TWO_TIERS = replace(
    TEST, ear=EAR, ear_memory=MemoryConfig(prefix=1, text=1, chunks=4), tower=replace(TEST.tower, ear=24)
)
CHUNKS = 14


def network(shape: DecoderConfig, features: int | None = None) -> Decoder:
    torch.manual_seed(3)
    decoder = Decoder(shape, features).eval().requires_grad_(False)
    for parameter in decoder.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return decoder


def tier_of(config: InteractionConfig, decoder: Decoder, memory: MemoryConfig, shape: DecoderConfig, ear: bool) -> Tier:
    kept = Memory(memory, shape, 2, torch.device("cpu"), torch.float32)
    return Tier(config, decoder, kept, range(1, 3), ear=ear)


def test_the_ear_decides_alike_beyond_what_it_remembers() -> None:
    memory = TWO_TIERS.ear_memory
    assert memory is not None
    assert memory.chunks < CHUNKS
    ear = network(EAR, TWO_TIERS.ear_features)
    tier = tier_of(TWO_TIERS, ear, memory, EAR, ear=True)
    markers = Markers.of_ear()
    prefix = [EAR_TOKENS.index("assist")]
    tier.open(0, prefix)
    heard = torch.randn(CHUNKS, 10, TWO_TIERS.features)
    responded = [chunk % 5 == 2 for chunk in range(CHUNKS)]
    served, before = [], NOTHING
    for chunk in range(CHUNKS):
        served.append(tier.hear([(0, chunk, before)], heard[chunk][None]).item())
        before = markers.control(responded[chunk])

    said = {chunk: [0] for chunk in range(CHUNKS) if responded[chunk]}
    whole = streaming(markers, prefix, [RESPOND] * CHUNKS, said, words=False)
    short = streaming(markers, prefix, [RESPOND] * 3, {}, words=False)  # padding must not matter
    batch = collate([whole, short], memory)
    own = heard[..., -TWO_TIERS.ear_features :].reshape(1, CHUNKS * 10, -1).expand(2, -1, -1)
    out = states(ear, batch, own)[0][batch.control[0] == RESPOND]
    trained = ear.control(out, markers.keep_silence, markers.text_begin)
    assert max(served) - min(served) > 0.01
    torch.testing.assert_close(trained, torch.tensor(served), atol=1e-5, rtol=0)


def test_the_decoder_decides_alike_with_words_that_outlive_the_audio() -> None:
    config = replace(TEST, memory=MemoryConfig(prefix=8, text=16, chunks=4))
    decoder = network(config.decoder)
    tier = tier_of(config, decoder, config.memory, config.decoder, ear=False)
    tokens, markers = config.tokens, Markers.of_decoder(config.tokens)
    prefix = [tokens.online, 5, 6, 7, tokens.text_end]
    answers = {
        2: [tokens.text_begin, tokens.normal, 11, 12, tokens.text_end],
        7: [tokens.text_begin, 13, tokens.text_end],
    }
    tier.open(0, prefix)
    heard = torch.randn(CHUNKS, 10, config.features)
    served, before, count = [], NOTHING, 0
    for chunk in range(CHUNKS):
        served.append(tier.hear([(0, chunk, before)], heard[chunk][None]).item())
        before = markers.control(chunk in answers)
        for number, token in enumerate(answers.get(chunk, [])):
            tier.write([(0, token, count, chunk, number, 1)], 1)
            count += 1

    whole = streaming(markers, prefix, [RESPOND] * CHUNKS, answers, words=True)
    batch = collate([whole], config.memory)
    out = states(decoder, batch, heard.reshape(1, CHUNKS * 10, -1))[0]
    decided = out[batch.control[0] == RESPOND]
    trained = decoder.control(decided, markers.keep_silence, markers.text_begin)
    # Serving keeps the prefix in as many places as it has, so that times, and not positions, differ.
    torch.testing.assert_close(trained, torch.tensor(served), atol=1e-5, rtol=0)


def test_words_follow_each_other_and_the_rest_is_not_scored() -> None:
    tokens, markers = TEST.tokens, Markers.of_decoder(TEST.tokens)
    answer = [tokens.text_begin, tokens.urgent, 7, tokens.text_end]
    layout = streaming(markers, [tokens.online], [0, 1, -1], {1: answer}, words=True)
    scored = [(int(a), int(b)) for a, b in zip(layout.ids, layout.words, strict=True) if b >= 0]
    assert scored == [(tokens.text_begin, tokens.urgent), (tokens.urgent, 7), (7, tokens.text_end)]
    assert [int(c) for c in layout.control if c >= 0] == [0, 1]
    assert (layout.ids == FEATURE).sum() == 30


def test_a_finished_clip_is_seen_whole() -> None:
    tokens = TEST.tokens
    answer = [tokens.text_begin, tokens.normal, 9, tokens.text_end]
    layout = offline(tokens, [tokens.offline, 4], 40, answer)
    sight = sights(layout, TEST.memory)
    assert sight.own.tolist() == list(range(len(layout)))
    assert (layout.control == -1).all()


def test_more_words_than_are_remembered_are_refused() -> None:
    markers = Markers.of_decoder(SMALL.tokens)
    answer = [SMALL.tokens.text_begin, *[1] * 70, SMALL.tokens.text_end]
    layout = streaming(markers, [1], [0, 1], {1: answer}, words=True)
    with pytest.raises(ValueError, match="shorter crop"):
        sights(layout, SMALL.memory)
