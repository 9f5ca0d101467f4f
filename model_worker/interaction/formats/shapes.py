"""The names and shapes of every tensor of a model, inside: what a checkpoint of any format is translated into.

Decoders have transformers' Qwen2 names without the leading "model.", the tower those of transformers'
Qwen2_5OmniAudioEncoder; the part of the model stands in front: "tower.", "decoder.", "ear.".
"""

from __future__ import annotations

import torch

from model_worker.interaction.config import DecoderConfig, InteractionConfig, TowerConfig
from model_worker.interaction.tower import Tower

Shapes = dict[str, tuple[int, ...]]


def decoder_shapes(config: DecoderConfig) -> Shapes:
    """Of a Qwen2- or Llama-shaped decoder."""
    width, heads, kv = config.width, config.heads * config.head_width, config.kv_heads * config.head_width
    shapes: Shapes = {"embed_tokens.weight": (config.vocabulary, width)}
    for number in range(config.layers):
        layer = f"layers.{number}."
        for name, rows in (("q", heads), ("k", kv), ("v", kv)):
            shapes[f"{layer}self_attn.{name}_proj.weight"] = (rows, width)
            if config.qkv_bias:
                shapes[f"{layer}self_attn.{name}_proj.bias"] = (rows,)
        shapes[f"{layer}self_attn.o_proj.weight"] = (width, heads)
        shapes[f"{layer}mlp.gate_proj.weight"] = (config.feed_forward, width)
        shapes[f"{layer}mlp.up_proj.weight"] = (config.feed_forward, width)
        shapes[f"{layer}mlp.down_proj.weight"] = (width, config.feed_forward)
        shapes[f"{layer}input_layernorm.weight"] = (width,)
        shapes[f"{layer}post_attention_layernorm.weight"] = (width,)
    shapes["norm.weight"] = (width,)
    if not config.tied:
        shapes["lm_head.weight"] = (config.vocabulary, width)
    if config.control_head:
        shapes["control_head.weight"] = (2, width)
    return shapes


def ear_shapes(config: DecoderConfig, features: int) -> Shapes:
    """Of the ear: a decoder that translates the features it reads by a linear layer."""
    linear = {"features.weight": (config.width, features), "features.bias": (config.width,)}
    return {**decoder_shapes(config), **linear}


def tower_shapes(config: TowerConfig, out: int) -> Shapes:
    """Of a Tower whose features are `out` wide."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in Tower(config, out).state_dict().items()}


def model_shapes(config: InteractionConfig) -> Shapes:
    """Of everything."""
    parts = {
        "tower": tower_shapes(config.tower, config.decoder.width),
        "decoder": decoder_shapes(config.decoder),
        "ear": ear_shapes(config.ear, config.ear_features) if config.ear else {},
    }
    return {f"{part}.{name}": shape for part, shapes in parts.items() for name, shape in shapes.items()}
