"""What a language model learnt on top of what the catalogue has, kept small.

A checkpoint may have, in place of a matrix `NAME.weight` of its base:

    NAME.up [rows, rank], NAME.down [rank, columns]   their product is added to the base's
    NAME.markers [n, columns]                         stand in place of the base's last n rows

so of 135 million weights that were trained at a low rank ten megabytes are stored.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from model_worker.interaction.formats.weights import CheckpointError, Store

UP, DOWN, MARKERS = ".up", ".down", ".markers"
SUFFIXES = (UP, DOWN, MARKERS)
_WEIGHT = ".weight"


def differences(tensors: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What must be stored of a part so that it can be made of its base: nothing of what is equal, a product of two
    narrow matrices where that is smaller than the matrix, else the tensor itself. Names are those of `tensors`."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        old, layer = base.get(name), name.removesuffix(_WEIGHT)
        if old is not None and torch.equal(tensor, old):
            continue
        if old is None or tensor.ndim != 2:
            out[name] = tensor
            continue
        changed = len(tensor) - int((tensor != old).any(dim=1).nonzero()[0])  # rows, from the first to the end
        if changed < len(tensor) // 2:
            out[f"{layer}{MARKERS}"] = tensor[-changed:].clone()
        elif narrow := _narrow(tensor, old):
            out[f"{layer}{UP}"], out[f"{layer}{DOWN}"] = narrow
        else:
            out[name] = tensor
    return out


def _narrow(new: Tensor, old: Tensor) -> tuple[Tensor, Tensor] | None:
    """Two factors of what was added to a matrix, each as large as the other; None if they would not be half as large as
    it. What the sum was rounded by is left out: as a matrix it is about as large as `noise`."""
    left, sizes, right = torch.linalg.svd(new.double() - old.double(), full_matrices=False)
    noise = torch.finfo(torch.float32).eps * float(old.abs().max()) * sum(size**0.5 for size in old.shape)
    rank = int((sizes > noise).sum())
    if rank * sum(old.shape) > old.numel() // 2:
        return None
    root = sizes[:rank].sqrt()
    return (left[:, :rank] * root).float(), (root[:, None] * right[:rank]).float()


def restored(base: dict[str, Tensor], own: Store) -> dict[str, Tensor]:
    """The base with the differences that `own` has: in place, so that no matrix is there twice.

    Raises CheckpointError for one that does not fit.
    """
    for name in own.shapes:
        if not name.endswith(SUFFIXES):
            continue
        layer, _, kind = name.rpartition(".")
        other = {UP: DOWN, DOWN: UP}.get(f".{kind}")
        if other and f"{layer}{other}" not in own.shapes:
            raise CheckpointError(f"{name} is stored without its other half {layer}{other}. Fetch it again.")
        weight = f"{layer}{_WEIGHT}"
        if weight not in base:
            raise CheckpointError(f"{name} is stored as a difference, but its base has no {weight}.")
        if name.endswith(MARKERS):
            base[weight] = _with_rows(base[weight].float(), name, own)
        elif name.endswith(UP):
            base[weight] = _with_product(base[weight].float(), name, f"{layer}{DOWN}", own)
    return base


def _with_rows(weight: Tensor, name: str, own: Store) -> Tensor:
    rows = own.read(name).float()
    if rows.ndim != 2 or rows.shape[1] != weight.shape[1] or len(rows) > len(weight):
        raise CheckpointError(f"{name} is {list(rows.shape)}: no rows of {list(weight.shape)}.")
    return torch.cat([weight[: len(weight) - len(rows)], rows])


def _with_product(weight: Tensor, up: str, down: str, own: Store) -> Tensor:
    tensor, other = own.read(up).float(), own.read(down).float()
    if (len(tensor), *other.shape[1:]) != tuple(weight.shape) or tensor.shape[1:] != other.shape[:1]:
        raise CheckpointError(
            f"{up} {list(tensor.shape)} and {down} {list(other.shape)} do not make a {list(weight.shape)}."
        )
    return weight + tensor @ other
