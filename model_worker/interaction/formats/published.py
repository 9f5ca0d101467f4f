"""The published Audio Interaction Model: a decoder in LitGPT's names beside the state dict of its tower.

    model_config.yaml                         sizes of the decoder
    tokenizer.json
    model.safetensors.index.json and shards   the decoder; or audiointeraction_LM.pt
    audiointeraction_ChunkwisedEncoder.pth    the tower
    qwen25OmniConfig/config.json              sizes of the tower

LitGPT keeps q, k and v in one tensor: today all of q, then k, then v, called `attn.qkv`; formerly `attn.attn`, where
each group of queries is followed by its key and value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from model_worker.interaction.config import OMNI_3B, DecoderConfig, InteractionConfig
from model_worker.interaction.formats.omni import number, section, tower_config, translate_tower
from model_worker.interaction.formats.weights import (
    CheckpointError,
    Part,
    SafeStore,
    Store,
    TorchStore,
    Translate,
    existing,
    read_json,
    safetensors_files,
)
from model_worker.interaction.tokens import PUBLISHED

CONFIG = "model_config.yaml"
DECODER = "audiointeraction_LM.pt"
TOWER = "audiointeraction_ChunkwisedEncoder.pth"
OMNI_CONFIG = ("qwen25OmniConfig", "qwen_2_5_omni_config")  # as the code calls it; as its text does
SHAPED = {
    # What a decoder must be to be one of ours, and what LitGPT takes where the file says nothing.
    "norm_class_name": ("RMSNorm", "LayerNorm"),
    "mlp_class_name": ("LLaMAMLP", "GptNeoxMLP"),
    "rotary_percentage": (1.0, 0.25),
    "parallel_residual": (False, True),
    "bias": (False, True),
    "lm_head_bias": (False, False),
    "norm_qk": (False, False),
    "post_attention_norm": (False, False),
    "post_mlp_norm": (False, False),
    "scale_embeddings": (False, False),
    "rope_condense_ratio": (1, 1),
    "rope_adjustments": (None, None),
    "sliding_window_size": (None, None),
    "attention_scores_scalar": (None, None),
    "attention_logit_softcapping": (None, None),
    "final_logit_softcapping": (None, None),
}
OUTSIDE = {
    "lm_head.weight": "lm_head.weight",
    "transformer.wte.weight": "embed_tokens.weight",
    "transformer.ln_f.weight": "norm.weight",
}
IN_LAYER = {
    "norm_1.weight": "input_layernorm.weight",
    "norm_2.weight": "post_attention_layernorm.weight",
    "attn.proj.weight": "self_attn.o_proj.weight",
    "mlp.fc_1.weight": "mlp.gate_proj.weight",
    "mlp.fc_2.weight": "mlp.up_proj.weight",
    "mlp.proj.weight": "mlp.down_proj.weight",
}
_LAYER = re.compile(r"transformer\.h\.(\d+)\.(.+)")
_FUSED = re.compile(r"attn\.(qkv|attn)\.(weight|bias)")


def read_config(directory: Path) -> InteractionConfig:
    """The sizes in model_config.yaml and in the tower's configuration, with the memory of the 3b preset."""
    decoder = decoder_config(directory / CONFIG)
    path = next((found for name in OMNI_CONFIG if (found := directory / name / "config.json").is_file()), None)
    if path is None:
        raise CheckpointError(f"{directory} has no {OMNI_CONFIG[0]}/config.json, the tower's sizes. Fetch it too.")
    tower = tower_config(section(read_json(path), path, "thinker_config"), path, decoder.width)
    return InteractionConfig(name=directory.name, tokens=PUBLISHED, tower=tower, decoder=decoder, memory=OMNI_3B.memory)


def decoder_config(path: Path) -> DecoderConfig:
    """The decoder's sizes. Raises CheckpointError if it is not Qwen2-shaped."""
    try:
        raw: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} cannot be read as YAML ({error}). Fetch it again.") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} holds no settings. Fetch it again.")
    other = [
        f"{name} is {raw.get(name, default)!r}, should be {ours!r}"
        for name, (ours, default) in SHAPED.items()
        if raw.get(name, default) != ours
    ]
    if other:
        raise CheckpointError(f"{path} describes a decoder that is not Qwen2-shaped: {'; '.join(other)}.")
    heads, width = number(raw, path, "n_head"), number(raw, path, "n_embd")
    vocabulary = raw.get("padded_vocab_size")
    if vocabulary is None:
        multiple = raw.get("padding_multiple", 512)
        vocabulary = -(-number(raw, path, "vocab_size") // multiple) * multiple
    return DecoderConfig(
        vocabulary=vocabulary,
        width=width,
        layers=number(raw, path, "n_layer"),
        heads=heads,
        kv_heads=raw.get("n_query_groups") or heads,
        head_width=raw.get("head_size") or width // heads,
        feed_forward=number(raw, path, "intermediate_size"),
        rope_theta=float(raw.get("rope_base", 10_000)),
        qkv_bias=bool(raw.get("attn_bias", False)),
        tied=False,
        norm_eps=float(raw.get("norm_eps", 1e-5)),
    )


def sources(directory: Path, config: InteractionConfig) -> list[tuple[Store, Translate]]:
    """Where the weights are and what they are called."""
    [tower] = existing(directory, [TOWER])
    shards = safetensors_files(directory)
    decoder: Store = SafeStore(shards) if shards else TorchStore(existing(directory, [DECODER])[0])
    return [(decoder, lambda name: translate(name, config.decoder)), (TorchStore(tower), translate_tower)]


def translate(name: str, config: DecoderConfig) -> Sequence[Part] | None:
    """What a tensor of LitGPT's decoder is here."""
    if name in OUTSIDE:
        return (Part("decoder." + OUTSIDE[name]),)
    if not (match := _LAYER.fullmatch(name)):
        return None
    layer, rest = f"decoder.layers.{int(match[1])}.", match[2]
    if rest in IN_LAYER:
        return (Part(layer + IN_LAYER[rest]),)
    if fused := _FUSED.fullmatch(rest):
        q, k, v = side_by_side(config) if fused[1] == "qkv" else interleaved(config)
        parts = (("q", q), ("k", k), ("v", v))
        return [Part(f"{layer}self_attn.{kind}_proj.{fused[2]}", rows) for kind, rows in parts]
    return None


def side_by_side(config: DecoderConfig) -> tuple[range, range, range]:
    """The rows of q, of k and of v in `attn.qkv`."""
    q, kv = config.heads * config.head_width, config.kv_heads * config.head_width
    return range(q), range(q, q + kv), range(q + kv, q + 2 * kv)


def interleaved(config: DecoderConfig) -> tuple[Tensor, Tensor, Tensor]:
    """The rows of q, of k and of v in `attn.attn`: for each group its queries, its key, its value."""
    queries = config.heads // config.kv_heads
    rows = torch.arange((config.heads + 2 * config.kv_heads) * config.head_width)
    grouped = rows.view(config.kv_heads, queries + 2, config.head_width)
    return grouped[:, :queries].flatten(), grouped[:, queries].flatten(), grouped[:, queries + 1].flatten()
