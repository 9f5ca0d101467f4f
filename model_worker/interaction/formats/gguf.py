"""A Llama-shaped language model in a GGUF file as our decoder, dequantised: the catalogue has SmolLM2 in that form.

The file (version 3, little-endian): magic, version, numbers of tensors and of keys, the keys, then (name, dimensions,
type, offset) of each tensor, then the data, aligned to 32 bytes. The kinds Q4_0, Q4_1 and Q8_0 are blocks of 32 values
with a scale (and an offset) of 16 bits. llama.cpp's rotary order pairs neighbours, ours pairs halves: so the rows of q
and k are put back.
"""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from model_worker.interaction.config import DecoderConfig
from model_worker.interaction.formats.weights import CheckpointError

FILE = "model.gguf"
MAGIC = 0x46554747
VERSION = 3
ALIGNED = 32  # bytes
BLOCK = 32  # values
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
BYTES = {"F32": 4 * BLOCK, "F16": 2 * BLOCK, "Q4_0": 18, "Q4_1": 20, "Q8_0": 34}  # of 32 values
KINDS = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 8: "Q8_0"}
NAMES = {
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
    "attn_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
}
CONTROL = 3  # token type of a word that only the format may write


class Gguf:
    """A GGUF file: `keys`, and tensors that are dequantised as they are read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = 0
        try:
            self._bytes = np.memmap(path, np.uint8, "r")
            magic, version = self._scalar("I"), self._scalar("I")
            if (magic, version) != (MAGIC, VERSION):
                raise CheckpointError(f"{path} is no GGUF of version {VERSION}. Fetch it again.")
            tensors, keys = self._scalar("Q"), self._scalar("Q")
            self.keys: dict[str, Any] = dict(self._key() for _ in range(keys))
            self._tensors = dict(self._entry() for _ in range(tensors))
        except (OSError, ValueError, struct.error, KeyError) as error:
            raise CheckpointError(f"{path} cannot be read as GGUF ({error!r}). Fetch it again.") from error
        self._data = -(-self._at // ALIGNED) * ALIGNED

    def read(self, name: str) -> Tensor:
        """One tensor in float32, [rows, columns]. Raises CheckpointError if there is none or of a kind not known."""
        if name not in self._tensors:
            raise CheckpointError(f"{self.path} has no {name}: it is no Llama-shaped model.")
        shape, kind, offset = self._tensors[name]
        if kind not in KINDS:
            raise CheckpointError(f"{self.path}: {name} is of kind {kind}; this offhook reads {', '.join(BYTES)}.")
        size = prod(shape) // BLOCK * BYTES[KINDS[kind]]
        start = self._data + offset
        blocks = np.asarray(self._bytes[start : start + size]).reshape(-1, BYTES[KINDS[kind]])
        return torch.from_numpy(dequantised(blocks, KINDS[kind]).reshape(shape))

    def _key(self) -> tuple[str, Any]:
        name = self._string()
        return name, self._value(self._scalar("I"))

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind == ARRAY:
            inner, count = self._scalar("I"), self._scalar("Q")
            return [self._value(inner) for _ in range(count)]
        return self._scalar(SCALARS[kind])

    def _entry(self) -> tuple[str, tuple[tuple[int, ...], int, int]]:
        name = self._string()
        dimensions = [self._scalar("Q") for _ in range(self._scalar("I"))]
        return name, (tuple(reversed(dimensions)), self._scalar("I"), self._scalar("Q"))

    def _scalar(self, kind: str) -> Any:
        value = struct.unpack_from("<" + kind, self._bytes.data, self._at)[0]
        self._at += struct.calcsize("<" + kind)
        return value

    def _string(self) -> str:
        size = self._scalar("Q")
        raw = bytes(self._bytes[self._at : self._at + size])
        self._at += size
        return raw.decode("utf-8", "replace")


def dequantised(blocks: NDArray[np.uint8], kind: str) -> NDArray[np.float32]:
    """Blocks [n, bytes] -> [n, 32]."""
    if kind in ("F32", "F16"):
        return blocks.view(np.float32 if kind == "F32" else np.float16).astype(np.float32)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    if kind == "Q8_0":
        return scale * blocks[:, 2:].view(np.int8).astype(np.float32)
    packed = blocks[:, -BLOCK // 2 :]
    nibbles = np.concatenate([packed & 0x0F, packed >> 4], axis=1).astype(np.float32)
    if kind == "Q4_0":
        return scale * (nibbles - 8.0)
    offset = blocks[:, 2:4].copy().view(np.float16).astype(np.float32)
    return scale * nibbles + offset


def llama_decoder(directory: Path, config: DecoderConfig) -> dict[str, Tensor]:
    """The language model's tensors, float32, under our decoder's names: all but a control head.

    The markers' embeddings, which follow the file's vocabulary, are the mean of all words: nothing is known of them
    yet. Raises CheckpointError if the model is not of the config's shape.
    """
    file = Gguf(directory / FILE)
    words = file.read("token_embd.weight")
    if words.shape[1] != config.width or words.shape[0] > config.vocabulary:
        raise CheckpointError(f"{file.path}: embeddings are {list(words.shape)}; the decoder is {config.width} wide.")
    markers = words.mean(dim=0, keepdim=True).expand(config.vocabulary - len(words), -1)
    tensors = {"embed_tokens.weight": torch.cat([words, markers]), "norm.weight": file.read("output_norm.weight")}
    if not config.tied:
        tensors["lm_head.weight"] = tensors["embed_tokens.weight"].clone()
    for number in range(config.layers):
        for theirs, ours in NAMES.items():
            tensor = file.read(f"blk.{number}.{theirs}")
            if theirs.startswith(("attn_q", "attn_k")):
                tensor = halves(tensor, config.head_width)
            tensors[f"layers.{number}.{ours}"] = tensor
    return tensors


def halves(weight: Tensor, head_width: int) -> Tensor:
    """Rows of q or k [heads * head_width, width] from neighbours' order to halves' order."""
    rows, width = weight.shape
    return weight.view(rows // head_width, head_width // 2, 2, width).transpose(1, 2).reshape(rows, width)


def llama_tokenizer(directory: Path) -> Tokenizer:
    """The byte-level tokenizer in the file, SmolLM2's way of cutting: digits one by one, then GPT-2's pattern."""
    keys = Gguf(directory / FILE).keys
    if keys.get("tokenizer.ggml.model") != "gpt2":
        raise CheckpointError(f"{directory / FILE} has no byte-level tokenizer.")
    vocabulary = {word: number for number, word in enumerate(keys["tokenizer.ggml.tokens"])}
    merges = [tuple(pair.split(" ", 1)) for pair in keys["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = keys["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens([word for word, kind in zip(vocabulary, kinds, strict=True) if kind == CONTROL])
    return tokenizer
