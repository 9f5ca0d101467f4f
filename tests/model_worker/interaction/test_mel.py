"""Log-mel, a Chunk at a time, is what it would be of the whole."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")
pytest.importorskip(
    "transformers", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test"
)

import numpy as np
import torch
from torch import Tensor
from transformers import WhisperFeatureExtractor
from transformers.audio_utils import mel_filter_bank

from model_worker.interaction.mel import CARRIED, Mel, MelState
from tests.model_worker.interaction.audio import CHUNK, in_chunks, sound

ROW = torch.tensor([0])


def whole(pcm: Tensor, mels: int, level: float | None = None) -> np.ndarray:
    """All frames of a stretch from its first sample, in float64 and at once: [mels, n], scaled."""
    samples = np.concatenate([np.zeros(CARRIED), pcm.double().numpy()])
    frames = np.lib.stride_tricks.sliding_window_view(samples, 400)[::160]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = np.abs(np.fft.rfft(frames * hann)) ** 2
    bank = mel_filter_bank(201, mels, 0.0, 8_000.0, 16_000, norm="slaney", mel_scale="slaney")
    raw = np.log10(np.maximum(power @ bank, 1e-10)).T
    top = raw.max() if level is None else level
    return (np.maximum(raw, top - 8) + 4) / 4


def hear(mel: Mel, state: MelState, rows: Tensor, pcm: Tensor) -> Tensor:
    return mel.scale(state, rows, mel.hear(state, rows, pcm))


@pytest.mark.parametrize(("mels", "level"), [(80, None), (128, None), (80, 0.0)])
def test_every_chunk_is_as_in_the_whole_heard_so_far(mels: int, level: float | None) -> None:
    pcm = sound(1, 12)
    mel, state = Mel(mels, level), MelState.fresh(1)
    for number, chunk in enumerate(in_chunks(pcm), 1):
        frames = hear(mel, state, ROW, chunk[None])[0]
        expected = whole(pcm[: number * CHUNK], mels, level)[:, -40:]
        assert frames.shape == (mels, 40)
        assert np.abs(frames.numpy() - expected).max() < 1e-3


@pytest.mark.parametrize("mels", [80, 128])
def test_the_scale_is_whispers(mels: int) -> None:
    """Our frames are Whisper's of the same sound 40 samples (2.5 ms) later, but for the first two, which it mirrors."""
    pcm = sound(2, 10).flip(0)
    delayed = torch.cat([torch.zeros(40), pcm])[: len(pcm)]
    extract = WhisperFeatureExtractor(feature_size=mels)
    theirs = torch.from_numpy(extract(delayed.numpy(), sampling_rate=16_000)["input_features"][0])[:, 3:398]
    mel, state = Mel(mels), MelState.fresh(1)
    raw = torch.cat([mel.hear(state, ROW, chunk[None])[0] for chunk in in_chunks(pcm)], dim=1)
    ours = mel.scale(state, ROW, raw[None])[0][:, 3:398]
    assert (ours - theirs).abs().max() < 1e-3


def test_a_batch_is_each_stream_alone() -> None:
    streams = torch.stack([sound(seed, 6) for seed in range(7)])
    mel, together = Mel(80), MelState.fresh(9)
    rows = torch.tensor([8, 1, 6, 3, 0, 5, 2])
    alone = [MelState.fresh(1) for _ in streams]
    for part in streams.split(CHUNK, dim=1):
        batch = hear(mel, together, rows, part)
        for number, state in enumerate(alone):
            assert (hear(mel, state, ROW, part[number : number + 1])[0] - batch[number]).abs().max() < 1e-5


def test_a_reset_row_is_fresh_and_the_others_stay() -> None:
    mel, state, rows = Mel(80), MelState.fresh(2), torch.tensor([0, 1])
    loud = torch.stack([sound(1, 4), sound(2, 4)])
    for part in loud.split(CHUNK, dim=1):
        mel.hear(state, rows, part)
    kept = (state.tail[1].clone(), state.loudest[1].clone())
    state.reset(0)
    fresh = MelState.fresh(1)
    assert torch.equal(state.tail[0], fresh.tail[0])
    assert torch.equal(state.loudest[0], fresh.loudest[0])
    assert (torch.equal(state.tail[1], kept[0]), torch.equal(state.loudest[1], kept[1])) == (True, True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_zero_and_counted(value: float) -> None:
    mel = Mel(80)
    first, second = in_chunks(sound(3, 2))
    broken, zeroed = first.clone(), first.clone()
    broken[6_000:] = value
    zeroed[6_000:] = 0.0
    state, clean = MelState.fresh(1), MelState.fresh(1)
    assert torch.equal(hear(mel, state, ROW, broken[None]), hear(mel, clean, ROW, zeroed[None]))
    assert torch.equal(hear(mel, state, ROW, second[None]), hear(mel, clean, ROW, second[None]))
    assert (state.broken.tolist(), clean.broken.tolist()) == ([400], [0])


def test_silence_is_one_value() -> None:
    silence = torch.zeros(1, CHUNK)
    assert torch.equal(hear(Mel(80), MelState.fresh(1), ROW, silence), torch.full((1, 80, 40), -1.5))
    assert torch.equal(hear(Mel(80, level=0.0), MelState.fresh(1), ROW, silence), torch.full((1, 80, 40), -1.0))


def test_louder_than_full_scale_is_full_scale() -> None:
    mel, chunk = Mel(80), in_chunks(sound(4, 4))[3] * 1e30
    state, clipped = MelState.fresh(1), MelState.fresh(1)
    frames = hear(mel, state, ROW, chunk[None])
    assert torch.isfinite(frames).all()
    assert torch.equal(frames, hear(mel, clipped, ROW, chunk.clamp(-1, 1)[None]))


def test_a_part_of_a_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match="6400"):
        Mel(80).hear(MelState.fresh(1), ROW, torch.zeros(1, 6_399))
