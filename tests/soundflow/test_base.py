"""What others have trained arrives under our names: checked against transformers' own models."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")
pytest.importorskip(
    "transformers", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test"
)

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from model_worker.catalogue import Catalogue, CatalogueError
from model_worker.interaction.config import COMPACT, SMALL
from model_worker.interaction.formats.ctranslate2 import Binary, whisper_tower
from model_worker.interaction.formats.gguf import Gguf, dequantised, halves, llama_decoder, llama_tokenizer
from model_worker.interaction.formats.weights import CheckpointError
from model_worker.interaction.tower import Tower
from soundflow.train.prepare import own_tokenizer


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on busy cores make small matrices ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pulled(name: str) -> Path:
    try:
        return Catalogue().path(name)
    except CatalogueError as error:
        pytest.skip(str(error))


def test_the_tower_has_whispers_states_at_the_taps() -> None:
    config = replace(COMPACT.tower, context=2)
    weights = whisper_tower(pulled("whisper-base"), config)
    tower = Tower(config, 16).eval()
    missing, unexpected = tower.load_state_dict(weights, strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {"adapter", "proj", "ear", "tap_mean", "tap_std"}
    torch.manual_seed(1)
    window = torch.randn(2, 80, 120) * 0.4
    whisper = WhisperEncoder(
        WhisperConfig(
            num_mel_bins=80,
            d_model=512,
            encoder_layers=6,
            encoder_attention_heads=8,
            encoder_ffn_dim=2048,
            max_source_positions=60,
        )
    ).eval()
    theirs = {name: tensor for name, tensor in weights.items() if name in whisper.state_dict()}
    assert len(theirs) == len(weights)
    whisper.load_state_dict({**theirs, "embed_positions.weight": tower.positions}, strict=False)
    layers: list[torch.Tensor] = []
    for layer in whisper.layers:
        layer.register_forward_hook(
            lambda _, __, out: layers.append(out if isinstance(out, torch.Tensor) else out[0]) and None
        )
    with torch.no_grad():
        whisper(window)
        ours = tower.states(window)
    wanted = torch.cat([layers[tap - 1][:, -20:] for tap in config.taps], dim=2)
    torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=1e-4)


def test_the_language_model_knows_what_it_knew() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    directory = pulled("smollm2-135m")
    shape = COMPACT.decoder
    weights = llama_decoder(directory, shape)
    tokenizer = llama_tokenizer(directory)
    assert tokenizer.get_vocab_size() == COMPACT.tokens.user  # the markers follow
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        rope_theta=shape.rope_theta,
        rms_norm_eps=shape.norm_eps,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    model.model.load_state_dict(weights)
    model.tie_weights()
    ids = torch.tensor([tokenizer.encode("The capital of France is").ids])
    with torch.no_grad():
        following = int(model(ids).logits[0, -1].argmax())
    assert tokenizer.decode([following]).strip() == "Paris"


def test_blocks_are_dequantised_as_ggml_defines_them() -> None:
    half = np.array([0.5], np.float16).view(np.uint8)
    nibbles = np.arange(16, dtype=np.uint8) | (np.arange(16, dtype=np.uint8)[::-1] << 4)
    order = np.concatenate([np.arange(16), np.arange(16)[::-1]]).astype(np.float32)
    q4_0 = np.concatenate([half, nibbles])[None]
    np.testing.assert_array_equal(dequantised(q4_0, "Q4_0")[0], 0.5 * (order - 8))
    least = np.array([-2.0], np.float16).view(np.uint8)
    q4_1 = np.concatenate([half, least, nibbles])[None]
    np.testing.assert_array_equal(dequantised(q4_1, "Q4_1")[0], 0.5 * order - 2)
    whole = np.arange(-16, 16, dtype=np.int8)
    q8_0 = np.concatenate([half, whole.view(np.uint8)])[None]
    np.testing.assert_array_equal(dequantised(q8_0, "Q8_0")[0], 0.5 * whole.astype(np.float32))


def test_neighbours_become_halves() -> None:
    rows = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7, 10, 14, 11, 15, 12, 16, 13, 17])[:, None]
    assert halves(rows, 8)[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17]


@pytest.mark.parametrize(("name", "read"), [("model.bin", Binary), ("model.gguf", Gguf)])
@pytest.mark.parametrize("content", [b"", b"\x06\x00", struct.pack("<IQQ", 3, 1 << 60, 1), b"GGUF" + b"\x03\0\0\0" * 4])
def test_what_is_no_such_file_is_refused_by_name(tmp_path: Path, name: str, read: type, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read(path)


def test_the_small_models_words_are_whole_and_leave_room_for_the_markers() -> None:
    tokenizer = own_tokenizer(SMALL)
    assert tokenizer.encode("seven").tokens == ["seven"]
    assert len(tokenizer.encode("a baby crying").ids) == 3
    assert tokenizer.get_vocab_size() <= SMALL.tokens.user
    assert SMALL.tokens.highest < SMALL.decoder.vocabulary
    assert tokenizer.decode(tokenizer.encode("Grüße, 47!").ids) == "Grüße, 47!"
