"""Stored tensors: found by their names, checked as a whole before the first is read, then read one by one."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from calls.errors import OffhookError
from model_worker.interaction.formats.shapes import Shapes

LISTED = 20  # names of each kind of trouble that an error shows
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


class CheckpointError(OffhookError):
    """A checkpoint is missing, partial, or not what its configuration says; the text lists what, and what to do."""


@dataclass(frozen=True, slots=True)
class Part:
    """One of our tensors, as (some rows of) a stored one. `rows` None: all of it."""

    name: str
    rows: range | Tensor | None = None  # int64 [n] where they do not lie side by side


Translate = Callable[[str], Sequence[Part] | None]
"""What a stored name holds. None: nothing we know; empty: something that this model does not use."""


class Store(Protocol):
    """A file, or some files, of named tensors."""

    @property
    def shapes(self) -> Shapes: ...

    def read(self, name: str) -> Tensor: ...


class SafeStore:
    """Safetensors files, mapped into memory one at a time: their tensors are best read file by file."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.shapes: Shapes = {}
        self._paths: dict[str, Path] = {}
        self._mapped: tuple[Path, Any] | None = None
        for path in paths:
            file = self._map(path)
            for name in file.keys():  # noqa: SIM118 - not a dict
                self.shapes[name] = tuple(file.get_slice(name).get_shape())
                self._paths[name] = path

    def read(self, name: str) -> Tensor:
        tensor: Tensor = self._map(self._paths[name]).get_tensor(name)
        return tensor

    def _map(self, path: Path) -> Any:
        if self._mapped is None or self._mapped[0] != path:
            try:
                self._mapped = path, safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path} cannot be read as safetensors ({error}). Fetch it again.") from error
        return self._mapped[1]


class TorchStore:
    """A file of torch.save: a state dict, alone or under the key "model". Nothing in it is executed."""

    def __init__(self, path: Path) -> None:
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{path} is no file of tensors that torch reads safely ({error}). Fetch it again, or save the bare "
                "state dict of the model with torch.save."
            ) from error
        if isinstance(saved, dict) and isinstance(saved.get("model"), dict):
            saved = saved["model"]
        if not isinstance(saved, dict) or not all(isinstance(tensor, Tensor) for tensor in saved.values()):
            raise CheckpointError(
                f"{path} holds more than tensors. Save the bare state dict of the model with torch.save."
            )
        self._tensors: dict[str, Tensor] = saved

    @property
    def shapes(self) -> Shapes:
        return {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        return self._tensors[name]


def safetensors_files(directory: Path) -> list[Path]:
    """The shards that an index names, or the only file; none if there is neither."""
    index = directory / INDEX
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{index} has no weight_map. Fetch it again.")
        return existing(directory, sorted({str(name) for name in weight_map.values()}))
    return [directory / SINGLE] if (directory / SINGLE).is_file() else []


def existing(directory: Path, names: Sequence[str]) -> list[Path]:
    """Those files of a checkpoint. Raises CheckpointError if one is not there, or would lie elsewhere."""
    elsewhere = [name for name in names if Path(name).name != name]
    if elsewhere:
        raise CheckpointError(f"{directory} names files outside itself: {_listed(elsewhere)}. It cannot be trusted.")
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{directory} is not complete. Missing files:{_listed(missing)}\nFetch them and try again."
        )
    return [directory / name for name in names]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}). Fetch it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object. Fetch it again.")
    return value


def gather(
    sources: Sequence[tuple[Store, Translate]],
    wanted: Shapes,
    where: Path,
    device: torch.device | str,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """All wanted tensors out of what is stored, on `device` in `dtype`.

    Names and shapes are checked before any is read. A tensor is converted as it is read, so that there are never two
    copies of all. Raises CheckpointError with everything that is missing, of the wrong shape, unknown or there twice.
    """
    found: set[str] = set()
    wrong: list[str] = []
    unknown: list[str] = []
    plan: list[tuple[Store, str, Sequence[Part]]] = []
    for store, translate in sources:
        for name, shape in store.shapes.items():
            parts = translate(name)
            if parts is None or any(part.name not in wanted or part.name in found for part in parts):
                unknown.append(name)
                continue
            found.update(part.name for part in parts)
            should = _stored_shape(parts, wanted)
            if parts and shape != should:
                wrong.append(f"{name} is {list(shape)}, should be {list(should)}")
            plan.append((store, name, parts))
    missing = [name for name in wanted if name not in found]
    if missing or wrong or unknown:
        raise CheckpointError(_report(where, missing, wrong, unknown))
    tensors = {}
    for store, name, parts in plan:
        for part in parts:
            tensors[part.name] = _take(store.read(name), part, device, dtype, where)
    return tensors


def _stored_shape(parts: Sequence[Part], wanted: Shapes) -> tuple[int, ...]:
    """The shape that the stored tensor of these parts must have: their rows together."""
    if not parts:
        return ()
    return (sum(wanted[part.name][0] for part in parts), *wanted[parts[0].name][1:])


def _take(stored: Tensor, part: Part, device: torch.device | str, dtype: torch.dtype, where: Path) -> Tensor:
    if not stored.is_floating_point():
        raise CheckpointError(
            f"{part.name} in {where} is stored as {stored.dtype}: quantised weights are not read here."
        )
    if isinstance(part.rows, range):
        stored = stored[part.rows.start : part.rows.stop]
    elif part.rows is not None:
        stored = stored[part.rows]
    # A copy in any case: the file may be replaced while we serve.
    return stored.to(device=device, dtype=dtype, copy=True).contiguous()


def _report(where: Path, missing: list[str], wrong: list[str], unknown: list[str]) -> str:
    lists = (("missing", missing), ("of the wrong shape", wrong), ("unknown or there twice", unknown))
    text = "".join(f"\nTensors {kind} ({len(names)}):{_listed(names)}" for kind, names in lists if names)
    return (
        f"{where} is not the checkpoint that its configuration describes.{text}\n"
        "Fetch all of its files again, from one version, or write it again with the configuration it was trained with."
    )


def _listed(names: Sequence[str]) -> str:
    more = f"\n  and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return "".join(f"\n  {name}" for name in names[:LISTED]) + more
