"""The tower is transformers' own encoder, told a window."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")
pytest.importorskip(
    "transformers", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test"
)

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import WhisperConfig
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniAudioEncoderConfig
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from model_worker.interaction.config import TowerConfig
from model_worker.interaction.tower import Tower

SMALL = TowerConfig(mels=80, width=64, heads=4, layers=3, feed_forward=128)


def omni_encoder() -> Qwen2_5OmniAudioEncoder:
    torch.manual_seed(1)
    config = Qwen2_5OmniAudioEncoderConfig(
        num_mel_bins=80, d_model=64, encoder_attention_heads=4, encoder_layers=3, encoder_ffn_dim=128, output_dim=48
    )
    encoder = Qwen2_5OmniAudioEncoder(config).eval()
    spread(encoder)
    return encoder


@torch.no_grad()
def spread(module: torch.nn.Module) -> None:
    """Weights large enough for a mistake to show."""
    for parameter in module.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)


def spread_tower(seed: int, **changed: Any) -> Tower:
    torch.manual_seed(seed)
    tower = Tower(replace(SMALL, **changed), 48).eval()
    spread(tower)
    return tower


def whisper_states(tower: Tower, window: Tensor) -> tuple[Tensor, ...]:
    """States after each layer of transformers' Whisper encoder with the tower's weights."""
    config = WhisperConfig(
        num_mel_bins=80,
        d_model=64,
        encoder_layers=3,
        encoder_attention_heads=4,
        encoder_ffn_dim=128,
        max_source_positions=window.shape[2] // 2,
    )
    encoder = WhisperEncoder(config).eval()
    weights = {name: tensor for name, tensor in tower.state_dict().items() if name.startswith(("conv", "layers"))}
    missing, unexpected = encoder.load_state_dict(weights, strict=False)
    assert set(missing) == {"embed_positions.weight", "layer_norm.weight", "layer_norm.bias"}
    assert unexpected == []
    return tuple(encoder(window, output_hidden_states=True).hidden_states)


@torch.no_grad()
def test_without_context_it_is_transformers_encoder_on_chunks_of_40_frames() -> None:
    encoder, tower = omni_encoder(), Tower(SMALL, 48).eval()
    weights = encoder.state_dict()
    del weights["audio_bos_eos_token.weight"]
    tower.load_state_dict(weights)
    frames = torch.randn(80, 7 * 40)
    theirs = encoder(frames, feature_lens=torch.full((7,), 40)).last_hidden_state.view(7, 10, 48)
    ours = tower(frames.view(80, 7, 40).transpose(0, 1))
    assert (ours - theirs).abs().max() < 1e-5


@torch.no_grad()
def test_with_context_only_the_newest_chunk_of_the_window_leaves() -> None:
    tower = spread_tower(2, context=2, taps=(1, 3), join="stack")
    window = torch.randn(4, 80, 120)
    tower.tap_mean.normal_()
    tower.tap_std.uniform_(0.5, 2)
    # Before its last normalisation, the state after the third layer is not among transformers' hidden states.
    states = whisper_states(tower, window)
    third: list[Tensor] = []
    handle = tower.layers[2].register_forward_hook(lambda _, __, out: third.append(out))
    ours = tower(window)
    handle.remove()
    taps = (torch.cat([states[1][:, 40:], third[0]], dim=2) - tower.tap_mean) / tower.tap_std
    assert (ours - tower.proj(taps.reshape(4, 10, 256))).abs().max() < 1e-5
    # The last layer, computed for the newest states only, is the last layer computed for all.
    assert (tower.layers[2](states[2], 60)[:, 40:] - third[0]).abs().max() < 1e-5


@torch.no_grad()
def test_a_batch_is_each_window_alone() -> None:
    tower = spread_tower(3, context=1, adapter=32, join="stack")
    windows = torch.randn(5, 80, 80)
    together = tower(windows)
    assert together.shape == (5, 10, 48)
    for number in range(5):
        assert (tower(windows[number : number + 1])[0] - together[number]).abs().max() < 1e-5


@pytest.mark.parametrize("wrong", [{"join": "sum"}, {"taps": (4,)}, {"taps": (0,)}])
def test_a_tower_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"join|taps"):
        Tower(replace(SMALL, **wrong), 48)
