"""A CTranslate2 Whisper's encoder as our tower: the catalogue has Whisper in that form.

The file (`model.bin`, version 6): version, the name of the spec, its revision, then so many variables of (name, rank,
dimensions, type, bytes, data), then aliases. Names have a length of 16 bits that counts a closing zero. Attention is
stored fused: linear_0 is q, k and v side by side, linear_1 what comes out.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_worker.interaction.config import TowerConfig
from model_worker.interaction.formats.weights import CheckpointError

FILE = "model.bin"
VERSION = 6
TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
ATTENTION = "self_attention/"


class Binary:
    """The variables of a `model.bin`, mapped into memory: [shape] arrays as they are stored."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        try:
            self._bytes = np.memmap(path, np.uint8, "r")
            self.arrays = self._read()
        except (OSError, ValueError, struct.error, KeyError, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"{path} cannot be read as a CTranslate2 model ({error!r}). Fetch it again."
            ) from error

    def _read(self) -> dict[str, NDArray[np.generic]]:
        if (version := self._number("I")) != VERSION:
            raise CheckpointError(f"{self._path} is of version {version}; this offhook reads version {VERSION}.")
        self._name()
        self._number("I")
        arrays: dict[str, NDArray[np.generic]] = {}
        for _ in range(self._number("I")):
            name = self._name()
            shape = [self._number("I") for _ in range(self._number("B"))]
            kind = np.dtype(TYPES[self._number("B")])
            size = self._number("I")
            arrays[name] = self._bytes[self._at : self._at + size].view(kind).reshape(shape)
            self._at += size
        for _ in range(self._number("I")):
            alias = self._name()
            arrays[alias] = arrays[self._name()]
        return arrays

    def _number(self, kind: str) -> int:
        value: int = struct.unpack_from("<" + kind, self._bytes.data, self._at)[0]
        self._at += struct.calcsize("<" + kind)
        return value

    def _name(self) -> str:
        size = self._number("H")
        raw = bytes(self._bytes[self._at : self._at + size - 1])
        self._at += size
        return raw.decode()


def whisper_tower(directory: Path, config: TowerConfig) -> dict[str, Tensor]:
    """The encoder's tensors, float32, under the names of our tower: all but the adapter and the taps' statistics.

    The layers after the last tap are left out by a config with fewer layers. Raises CheckpointError if the encoder is
    not of the config's shape.
    """
    arrays = Binary(directory / FILE).arrays
    stored = {f"conv{n}.{kind}": f"encoder/conv{n}/{kind}" for n in (1, 2) for kind in ("weight", "bias")}
    tensors = {ours: _take(arrays, theirs, directory) for ours, theirs in stored.items()}
    for number in range(config.layers):
        tensors |= _layer(arrays, number, config.width, directory)
    mels = tensors["conv1.weight"].shape[1]
    if (tensors["conv2.weight"].shape[0], mels) != (config.width, config.mels):
        raise CheckpointError(
            f"{directory}: an encoder of width {tensors['conv2.weight'].shape[0]} with {mels} mels; the tower has "
            f"{config.width} and {config.mels}."
        )
    return tensors


def _layer(arrays: dict[str, NDArray[np.generic]], number: int, width: int, where: Path) -> dict[str, Tensor]:
    theirs, ours = f"encoder/layer_{number}/", f"layers.{number}."
    pairs = {
        "self_attn.out_proj": f"{ATTENTION}linear_1",
        "fc1": "ffn/linear_0",
        "fc2": "ffn/linear_1",
    }
    tensors = {
        f"{ours}{a}.{kind}": _take(arrays, f"{theirs}{b}/{kind}", where)
        for a, b in pairs.items()
        for kind in ("weight", "bias")
    }
    for norm, at in (("self_attn_layer_norm", ATTENTION), ("final_layer_norm", "ffn/")):
        tensors[f"{ours}{norm}.weight"] = _take(arrays, f"{theirs}{at}layer_norm/gamma", where)
        tensors[f"{ours}{norm}.bias"] = _take(arrays, f"{theirs}{at}layer_norm/beta", where)
    weight = _take(arrays, f"{theirs}{ATTENTION}linear_0/weight", where)
    bias = _take(arrays, f"{theirs}{ATTENTION}linear_0/bias", where)
    if weight.shape != (3 * width, width) or bias[width : 2 * width].any():
        raise CheckpointError(f"{where}: layer {number} is {list(weight.shape)}, not Whisper's of width {width}.")
    for part, name in enumerate("qkv"):
        tensors[f"{ours}self_attn.{name}_proj.weight"] = weight[part * width : (part + 1) * width].clone()
        if name != "k":  # Whisper's keys have no bias
            tensors[f"{ours}self_attn.{name}_proj.bias"] = bias[part * width : (part + 1) * width].clone()
    return tensors


def _take(arrays: dict[str, NDArray[np.generic]], name: str, where: Path) -> Tensor:
    if name not in arrays:
        raise CheckpointError(f"{where} has no {name}: it is no CTranslate2 Whisper.")
    if arrays[name].dtype not in (np.float16, np.float32):
        raise CheckpointError(
            f"{where}: {name} is stored as {arrays[name].dtype}: quantised weights are not read here."
        )
    return torch.from_numpy(arrays[name].astype(np.float32))
