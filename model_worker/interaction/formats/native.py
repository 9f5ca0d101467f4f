"""offhook's own format: manifest.json, tokenizer.json, and safetensors in one or several files.

The manifest has the whole InteractionConfig and the size and sha256 of each other file. It is written last: a directory
without it is no checkpoint yet.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from model_worker.archives import file_sha256
from model_worker.interaction.config import InteractionConfig
from model_worker.interaction.formats.base import Find, base_store
from model_worker.interaction.formats.difference import SUFFIXES
from model_worker.interaction.formats.weights import (
    SINGLE,
    CheckpointError,
    Part,
    SafeStore,
    Store,
    Translate,
    existing,
    read_json,
)

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
FORMAT = "offhook-interaction"
VERSION = 1
SHARD = 2 << 30  # bytes of a file after which another is begun


def read_config(directory: Path) -> InteractionConfig:
    """The configuration in the manifest."""
    path = directory / MANIFEST
    raw = _manifest(path)
    try:
        return InteractionConfig.from_dict(raw["config"])
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: its config is not one that this offhook knows ({error!r}). Update offhook, or write the "
            "checkpoint again with this version."
        ) from error


def sources(directory: Path, config: InteractionConfig, find: Find | None = None) -> list[tuple[Store, Translate]]:
    """Where the weights are, once every file has been found to be the one that the manifest means.

    `find` tells where the catalogue has what the checkpoint builds on, if it does.
    """
    manifest = _manifest(directory / MANIFEST)
    files: dict[str, Any] = manifest["files"]
    paths = existing(directory, sorted(files))
    changed = [path.name for path in paths if not _same(path, files[path.name])]
    if changed:
        raise CheckpointError(
            f"{directory}: {', '.join(changed)} is not what {MANIFEST} lists (size and sha256). Fetch it again."
        )
    own = SafeStore(path for path in paths if path.suffix == ".safetensors")
    base = base_store(manifest.get("base", {}), config, own, find, directory)
    return [(own, translate), (base, translate)]


def translate(name: str) -> Sequence[Part]:
    """Our own names are ours. What differs from a base is in what base_store made of both."""
    return () if name.endswith(SUFFIXES) else (Part(name),)


def save(
    directory: Path,
    config: InteractionConfig,
    tensors: Iterable[tuple[str, Tensor]],
    tokenizer: Tokenizer,
    shard: int = SHARD,
    base: Mapping[str, str] | None = None,
) -> None:
    """Write a checkpoint. No more than about `shard` bytes of `tensors` are held at a time.

    `base`: part of the model -> name in the catalogue of what the tensors that are left out come from (base.py).
    Raises OSError or SafetensorError, leaving a directory that is no checkpoint.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MANIFEST).unlink(missing_ok=True)
    names = [TOKENIZER]
    (directory / TOKENIZER).write_text(tokenizer.to_str(), encoding="utf-8")
    held: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        if held and size + tensor.nbytes > shard:
            names.append(f"model-{len(names):05}.safetensors")
            save_file(held, directory / names[-1])
            held, size = {}, 0
        held[name] = tensor
        size += tensor.nbytes
    names.append(SINGLE if len(names) == 1 else f"model-{len(names):05}.safetensors")
    save_file(held, directory / names[-1])
    files = {name: _entry(directory / name) for name in names}
    manifest = {"format": FORMAT, "version": VERSION, "config": config.as_dict(), "files": files, "base": base or {}}
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _manifest(path: Path) -> dict[str, Any]:
    raw = read_json(path)
    if raw.get("format") != FORMAT or raw.get("version") != VERSION:
        raise CheckpointError(
            f"{path} is of format {raw.get('format')!r}, version {raw.get('version')!r}; this offhook reads "
            f"{FORMAT!r}, version {VERSION}."
        )
    if not isinstance(raw.get("files"), dict) or TOKENIZER not in raw["files"] or "config" not in raw:
        raise CheckpointError(f"{path} lists no config, or not all files. Fetch it again.")
    return raw


def _entry(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": file_sha256(path)}


def _same(path: Path, entry: Any) -> bool:
    if not isinstance(entry, dict) or entry.get("size") != path.stat().st_size:
        return False
    return entry.get("sha256") == file_sha256(path)
