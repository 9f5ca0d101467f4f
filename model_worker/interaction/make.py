"""Makes small checkpoints with random weights, in each of the three formats that `checkpoint.load` reads.

They have the files, names and layouts of real ones and know nothing: for tests, and for measuring speed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from model_worker.interaction.config import OMNI_3B, PRESETS, TEST, DecoderConfig, InteractionConfig, TowerConfig
from model_worker.interaction.formats import native, omni, published
from model_worker.interaction.formats.weights import INDEX
from model_worker.interaction.random_weights import RandomWeights
from model_worker.interaction.tokens import PUBLISHED

EXAMPLES = """examples:
  python -m model_worker.interaction.make --size test --seed 1 models/tiny
  python -m model_worker.interaction.make --format published --seed 1 models/as-published
  python -m model_worker.interaction.make --size 3b --seed 1 models/3b-random      (about 7 GB)
"""
WORDS = 400  # of the tokenizer: fewer than any model here has
TEXT = (
    "Good morning, you are through to the service desk. How can I help you today? I would like to know when my parcel "
    "arrives; the number is four seven one, double zero nine. One moment please, I am looking that up for you. It was "
    "sent on Monday and should be with you tomorrow before noon. Is there anything else that I can do for you? No, "
    "thanks. Then I wish you a pleasant day. Please hold the line while I connect you to a colleague."
)
PUBLISHED_TEST = replace(
    OMNI_3B,
    name="published-test",
    tower=TowerConfig(mels=128, width=64, heads=4, layers=2, feed_forward=128),
    # Narrow, because the published ids want a vocabulary of 151,936.
    decoder=replace(
        OMNI_3B.decoder, width=32, layers=3, heads=4, kv_heads=2, head_width=8, feed_forward=64, norm_eps=1e-6
    ),
    memory=TEST.memory,
)


def make_native(directory: Path, weights: RandomWeights) -> None:
    """Our own format."""
    native.save(directory, weights.config, weights.all(), make_tokenizer())


def make_published(directory: Path, weights: RandomWeights, older: bool = False) -> None:
    """The published layout: two shards, q, k and v side by side. `older`: one .pt file, interleaved group by group."""
    _begin(directory, weights.config)
    config = weights.config.decoder
    (directory / published.CONFIG).write_text(yaml.safe_dump(_litgpt_config(config)), encoding="utf-8")
    (directory / published.OMNI_CONFIG[0]).mkdir(exist_ok=True)
    _write_json(directory / published.OMNI_CONFIG[0] / "config.json", _omni_config(weights.config))
    tensors = _inverse(weights, lambda name: published.translate(name, config), _litgpt_names(config, older))
    if older:
        torch.save(tensors, directory / published.DECODER)
    else:
        _save_shards(directory, tensors)
    tower = {name.removeprefix("tower."): tensor for name, tensor in weights.all() if name.startswith("tower.")}
    torch.save(tower | {omni.TOWER_NOT_USED: torch.zeros(2, config.width)}, directory / published.TOWER)


def make_omni(directory: Path, weights: RandomWeights) -> None:
    """A Qwen2.5-Omni directory: the thinker without eyes, in two shards."""
    _begin(directory, weights.config)
    _write_json(directory / "config.json", _omni_config(weights.config))
    names = {"tower.": "thinker.audio_tower.", "decoder.lm_head.": "thinker.lm_head.", "decoder.": "thinker.model."}
    tensors = {}
    for name, tensor in weights.all():
        ours = next(prefix for prefix in names if name.startswith(prefix))
        tensors[names[ours] + name.removeprefix(ours)] = tensor
    tensors["thinker.audio_tower." + omni.TOWER_NOT_USED] = torch.zeros(2, weights.config.decoder.width)
    _save_shards(directory, tensors)


def make_tokenizer() -> Tokenizer:
    """A byte-level tokenizer of 400 words: any text goes through it unchanged."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=WORDS, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def _begin(directory: Path, config: InteractionConfig) -> None:
    if config.tokens != PUBLISHED or config.ear or config.tower.context or config.tower.taps:
        raise ValueError(f"{config.name} cannot be written in a format of others: only in our own")
    directory.mkdir(parents=True, exist_ok=True)
    make_tokenizer().save(str(directory / native.TOKENIZER))


def _litgpt_names(config: DecoderConfig, older: bool) -> list[str]:
    fused = "attn.attn" if older else "attn.qkv"
    in_layer = [*published.IN_LAYER, f"{fused}.weight", f"{fused}.bias"]
    return [*published.OUTSIDE, *(f"transformer.h.{n}.{name}" for n in range(config.layers) for name in in_layer)]


def _inverse(weights: RandomWeights, translate: Callable[[str], Any], names: list[str]) -> dict[str, Tensor]:
    """The stored tensors of these names, put together from the parts that they are said to hold."""
    shapes = weights.shapes
    stored = {}
    for name in names:
        parts = translate(name)
        tensors = [weights.make(part.name, shapes[part.name]) for part in parts]
        if len(parts) == 1:
            stored[name] = tensors[0]
            continue
        whole = torch.cat(tensors)
        rows = torch.cat([torch.as_tensor(part.rows) for part in parts])
        stored[name] = torch.empty_like(whole).index_copy_(0, rows, whole)
    return stored


def _save_shards(directory: Path, tensors: dict[str, Tensor]) -> None:
    names = sorted(tensors)
    weight_map = {}
    for number, share in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in share}, directory / file)
        weight_map.update(dict.fromkeys(share, file))
    size = sum(tensor.nbytes for tensor in tensors.values())
    _write_json(directory / INDEX, {"metadata": {"total_size": size}, "weight_map": weight_map})


def _litgpt_config(config: DecoderConfig) -> dict[str, Any]:
    """The settings in model_config.yaml that a Qwen2-shaped decoder of LitGPT has."""
    return {
        **{name: ours for name, (ours, _) in published.SHAPED.items()},
        "name": "random",
        "vocab_size": PUBLISHED.text_end,
        "padded_vocab_size": config.vocabulary,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_query_groups": config.kv_heads,
        "head_size": config.head_width,
        "intermediate_size": config.feed_forward,
        "rope_base": int(config.rope_theta),
        "attn_bias": config.qkv_bias,
        "norm_eps": config.norm_eps,
    }


def _omni_config(config: InteractionConfig) -> dict[str, Any]:
    """The settings in a Qwen2.5-Omni config.json that concern hearing and writing."""
    tower, decoder = config.tower, config.decoder
    turns = decoder.head_width // 2  # of the rotary embedding: shared out to time, height and width
    audio = {
        "num_mel_bins": tower.mels,
        "d_model": tower.width,
        "encoder_attention_heads": tower.heads,
        "encoder_layers": tower.layers,
        "encoder_ffn_dim": tower.feed_forward,
        "output_dim": decoder.width,
    }
    text = {
        "vocab_size": decoder.vocabulary,
        "hidden_size": decoder.width,
        "num_hidden_layers": decoder.layers,
        "num_attention_heads": decoder.heads,
        "num_key_value_heads": decoder.kv_heads,
        "intermediate_size": decoder.feed_forward,
        "rope_theta": decoder.rope_theta,
        "rope_scaling": {"type": "default", "mrope_section": [turns - 2 * (turns // 3), turns // 3, turns // 3]},
        "rms_norm_eps": decoder.norm_eps,
        "tie_word_embeddings": decoder.tied,
    }
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": decoder.width}
    thinker = {"audio_config": audio, "text_config": text, "vision_config": vision}
    return {"model_type": "qwen2_5_omni", "enable_audio_output": False, "thinker_config": thinker}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m model_worker.interaction.make",
        description="Make a checkpoint of the Audio Interaction Model with random weights (bfloat16).",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="where to write it; made if it is not there")
    parser.add_argument("--format", choices=("native", "published", "omni"), default="native")
    parser.add_argument(
        "--size", choices=tuple(PRESETS), default="test", help="sizes other than test only in the native format"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--older", action="store_true", help="published: one .pt file with interleaved q, k and v, as LitGPT once wrote"
    )
    options = parser.parse_args(arguments)
    if options.format != "native" and options.size != "test":
        parser.error(f"size {options.size} is written only in the native format")
    if options.older and options.format != "published":
        parser.error("--older is about the published format")
    config = PRESETS[options.size] if options.format == "native" else PUBLISHED_TEST
    weights = RandomWeights(config, options.seed)
    if options.format == "native":
        make_native(options.directory, weights)
    elif options.format == "published":
        make_published(options.directory, weights, options.older)
    else:
        make_omni(options.directory, weights)
    print(f"{options.directory}: {config.name}, {options.format} format, random weights of seed {options.seed}")


if __name__ == "__main__":
    main()
