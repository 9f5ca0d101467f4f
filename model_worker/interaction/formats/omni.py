"""A Qwen2.5-Omni directory in transformers' format: config.json, tokenizer.json, safetensors in one or several files.

Only the thinker is read: its decoder and its audio tower. The tower hears a Chunk alone, as in the published Audio
Interaction Model, whose token ids these are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model_worker.interaction.config import OMNI_3B, DecoderConfig, InteractionConfig, TowerConfig
from model_worker.interaction.formats.weights import (
    CheckpointError,
    Part,
    SafeStore,
    Store,
    Translate,
    read_json,
    safetensors_files,
)
from model_worker.interaction.tokens import PUBLISHED

NOT_USED = ("thinker.visual.", "talker.", "token2wav.")
TOWER_NOT_USED = "audio_bos_eos_token.weight"  # frames clips that the Audio Interaction Model frames with markers


def read_config(directory: Path) -> InteractionConfig:
    """The sizes in config.json, with the memory of the 3b preset."""
    path = directory / "config.json"
    thinker = section(read_json(path), path, "thinker_config")
    decoder = decoder_config(thinker, path)
    return InteractionConfig(
        name=directory.name,
        tokens=PUBLISHED,
        tower=tower_config(thinker, path, decoder.width),
        decoder=decoder,
        memory=OMNI_3B.memory,
    )


def sources(directory: Path, config: InteractionConfig) -> list[tuple[Store, Translate]]:
    """Where the weights are and what they are called."""
    files = safetensors_files(directory)
    if not files:
        raise CheckpointError(f"{directory} has neither model.safetensors nor its index. Fetch the weights too.")
    return [(SafeStore(files), lambda name: translate(name, config.decoder))]


def translate(name: str, config: DecoderConfig) -> Sequence[Part] | None:
    """What a tensor of Qwen2.5-Omni is here."""
    if name.startswith(NOT_USED):
        return ()
    if name.startswith("thinker.audio_tower."):
        return translate_tower(name.removeprefix("thinker.audio_tower."))
    if name.startswith("thinker.model."):
        return (Part("decoder." + name.removeprefix("thinker.model.")),)
    if name == "thinker.lm_head.weight":
        # Some files keep a tied output layer once more.
        return () if config.tied else (Part("decoder.lm_head.weight"),)
    return None


def translate_tower(name: str) -> Sequence[Part] | None:
    """What a tensor of transformers' Qwen2_5OmniAudioEncoder is here."""
    return () if name == TOWER_NOT_USED else (Part("tower." + name),)


def tower_config(thinker: Mapping[str, Any], path: Path, width: int) -> TowerConfig:
    """Sizes of the audio tower; its features must be `width` wide."""
    audio = section(thinker, path, "audio_config")
    if number(audio, path, "output_dim") != width:
        raise CheckpointError(
            f"{path}: audio_config.output_dim is {audio['output_dim']}, but the decoder is {width} wide. The tower and "
            "the decoder are not of one model; fetch both from the same one."
        )
    return TowerConfig(
        mels=number(audio, path, "num_mel_bins"),
        width=number(audio, path, "d_model"),
        heads=number(audio, path, "encoder_attention_heads"),
        layers=number(audio, path, "encoder_layers"),
        feed_forward=number(audio, path, "encoder_ffn_dim"),
    )


def decoder_config(thinker: Mapping[str, Any], path: Path) -> DecoderConfig:
    """Sizes of the thinker's decoder."""
    text = section(thinker, path, "text_config")
    if text.get("use_sliding_window"):
        raise CheckpointError(f"{path}: text_config.use_sliding_window is set; this decoder has none.")
    # Newer versions of transformers keep rope_theta among the other parameters of the rotary embedding.
    rope = {**(text.get("rope_parameters") or {}), **text}
    return DecoderConfig(
        vocabulary=number(text, path, "vocab_size"),
        width=number(text, path, "hidden_size"),
        layers=number(text, path, "num_hidden_layers"),
        heads=number(text, path, "num_attention_heads"),
        kv_heads=number(text, path, "num_key_value_heads"),
        head_width=number(text, path, "hidden_size") // number(text, path, "num_attention_heads"),
        feed_forward=number(text, path, "intermediate_size"),
        rope_theta=float(number(rope, path, "rope_theta")),
        qkv_bias=True,
        tied=bool(text.get("tie_word_embeddings", False)),
        norm_eps=float(number(text, path, "rms_norm_eps")),
    )


def section(raw: Mapping[str, Any], path: Path, name: str) -> Mapping[str, Any]:
    """A part of a configuration."""
    value = raw.get(name)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} has no {name}: it is not the configuration of a Qwen2.5-Omni model.")
    return value


def number(raw: Mapping[str, Any], path: Path, name: str) -> Any:
    """A size in a configuration."""
    value = raw.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise CheckpointError(
            f"{path}: {name} is {value!r}, should be a number above 0. Fetch the configuration again."
        )
    return value
