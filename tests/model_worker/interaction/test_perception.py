"""What is heard Chunk by Chunk is what the whole would give, at every boundary, for every Stream of a batch."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")
pytest.importorskip(
    "transformers", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test"
)

from dataclasses import replace

import torch
from torch import Tensor
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniAudioEncoderConfig
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder

from model_worker.interaction.config import TEST, InteractionConfig
from model_worker.interaction.make import PUBLISHED_TEST
from model_worker.interaction.mel import QUIETEST
from model_worker.interaction.perception import Perception
from model_worker.interaction.random_weights import RandomWeights
from tests.model_worker.interaction.audio import CHUNK, in_chunks, sound
from tests.model_worker.interaction.test_mel import whole

ROW = torch.tensor([0])
TAPPED = replace(TEST, tower=replace(TEST.tower, layers=3, context=2, taps=(1, 3), join="stack", adapter=48, level=0.0))


def perception(config: InteractionConfig, slots: int = 1) -> Perception:
    weights = RandomWeights(config, seed=5, dtype=torch.float32)
    ears = Perception(config, slots)
    ears.load({name.removeprefix("tower."): made for name, made in weights.all() if name.startswith("tower.")})
    return ears


def window_of_whole(config: InteractionConfig, pcm: Tensor, chunks: int) -> Tensor:
    """The window that ends with a Chunk, cut out of the frames of everything up to there, silence before the start."""
    tower = config.tower
    frames = torch.from_numpy(whole(pcm[: chunks * CHUNK], tower.mels, tower.level)).float()
    quiet = torch.full((tower.mels, 1), QUIETEST)
    level = tower.level if tower.level is not None else float(frames.max()) * 4 - 4
    quiet = (torch.clamp(quiet, min=level - 8) + 4) / 4
    wanted = (tower.context + 1) * 40
    return torch.cat([quiet.expand(-1, max(0, wanted - frames.shape[1])), frames[:, -wanted:]], dim=1)


@pytest.mark.parametrize("config", [TEST, TAPPED], ids=["context 1", "context 2, taps"])
@torch.no_grad()
def test_every_chunk_is_as_if_the_whole_were_encoded(config: InteractionConfig) -> None:
    ears, pcm = perception(config), sound(1, 12)
    for number, chunk in enumerate(in_chunks(pcm), 1):
        features = ears.hear(ROW, chunk[None])
        assert features.shape == (1, 10, config.decoder.width)
        expected = ears.tower(window_of_whole(config, pcm, number)[None])
        assert (features - expected).abs().max() < 1e-3


@torch.no_grad()
def test_the_published_tower_hears_what_transformers_encodes_of_the_whole_at_once() -> None:
    ears, pcm = perception(PUBLISHED_TEST), sound(2, 9).flip(0)  # the loudest first: one level for the whole
    sizes = Qwen2_5OmniAudioEncoderConfig(
        num_mel_bins=128, d_model=64, encoder_attention_heads=4, encoder_layers=2, encoder_ffn_dim=128, output_dim=32
    )
    encoder = Qwen2_5OmniAudioEncoder(sizes).eval()
    missing, unexpected = encoder.load_state_dict(ears.tower.state_dict(), strict=False)
    assert (missing, unexpected) == (["audio_bos_eos_token.weight"], [])
    frames = torch.from_numpy(whole(pcm, 128)).float()
    theirs = encoder(frames, feature_lens=torch.full((9,), 40)).last_hidden_state.view(9, 10, 32)
    loudest = [float(whole(pcm[: n * CHUNK], 128).max()) for n in range(1, 10)]
    assert loudest == pytest.approx([loudest[-1]] * 9)
    for number, chunk in enumerate(in_chunks(pcm)):
        assert (ears.hear(ROW, chunk[None])[0] - theirs[number]).abs().max() < 1e-3


def test_a_batch_of_32_mixed_streams_is_each_alone() -> None:
    """Streams of different ages: some join later, so rows are not in step."""
    config, streams = TEST, torch.stack([sound(seed, 5) for seed in range(32)])
    together, alone = perception(config, slots=40), [perception(config) for _ in range(4)]
    rows = torch.randperm(40, generator=torch.Generator().manual_seed(1))[:32]
    for step in range(5):
        joined = 32 if step > 1 else 20
        part = streams[:joined, step * CHUNK : (step + 1) * CHUNK]
        batch = together.hear(rows[:joined], part)
        for number, ears in zip((0, 7, 19, 31), alone, strict=True):
            if number < joined:
                single = ears.hear(ROW, part[number : number + 1])
                assert (single[0] - batch[number]).abs().max() < 1e-4


def test_a_row_that_is_reset_keeps_no_trace() -> None:
    ears, fresh = perception(TAPPED, slots=3), perception(TAPPED, slots=3)
    first, second = torch.stack(in_chunks(sound(6, 4))), in_chunks(sound(7, 3))
    rows = torch.tensor([1])
    for chunk in first:
        ears.hear(rows, chunk[None])
    ears.hear(rows, torch.full((1, CHUNK), float("nan")))
    ears.reset(1)
    assert ears.state.broken.tolist() == [0, 0, 0]
    for chunk in second:
        assert torch.equal(ears.hear(rows, chunk[None]), fresh.hear(rows, chunk[None]))


def test_a_broken_chunk_is_silence_and_nothing_after_it_is_harmed() -> None:
    ears, clean = perception(TEST), perception(TEST)
    chunks = in_chunks(sound(8, 5))
    for number, chunk in enumerate(chunks):
        broken = number == 2
        heard = ears.hear(ROW, torch.full((1, CHUNK), float("nan")) if broken else chunk[None])
        expected = clean.hear(ROW, torch.zeros(1, CHUNK) if broken else chunk[None])
        assert torch.isfinite(heard).all()
        assert torch.equal(heard, expected)
    assert ears.state.broken.tolist() == [CHUNK]


def test_silent_and_clipped_chunks_give_finite_features() -> None:
    ears = perception(TEST)
    square = torch.sign(sound(9, 1))[None]
    for chunk in (torch.zeros(1, CHUNK), square, square * 1e20, torch.zeros(1, CHUNK)):
        assert torch.isfinite(ears.hear(ROW, chunk)).all()


def test_bfloat16_is_close() -> None:
    exact, coarse = perception(TEST), Perception(TEST, 1, dtype=torch.bfloat16)
    coarse.load(exact.tower.state_dict())
    for chunk in in_chunks(sound(10, 3)):
        a, b = exact.hear(ROW, chunk[None]), coarse.hear(ROW, chunk[None])
        assert b.dtype == torch.bfloat16
        assert (a - b.float()).abs().mean() < 0.05 * a.abs().mean()


def test_a_tower_takes_its_weights_without_a_copy_and_makes_none_before() -> None:
    made = RandomWeights(TAPPED, seed=5, dtype=torch.float32).all()
    weights = {name.removeprefix("tower."): tensor for name, tensor in made if name.startswith("tower.")}
    drawn = torch.get_rng_state()
    ears = Perception(TAPPED, 1)
    assert all(tensor.is_meta for tensor in ears.tower.state_dict().values())
    ears.load(weights)
    assert torch.equal(torch.get_rng_state(), drawn)
    kept = ears.tower.state_dict()
    assert {name: tensor.data_ptr() for name, tensor in kept.items()} == {n: w.data_ptr() for n, w in weights.items()}
    assert not any(parameter.requires_grad for parameter in ears.tower.parameters())
