"""What is stored of a language model that learnt a little: what comes back, and what is refused."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")
pytest.importorskip(
    "transformers", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test"
)

import torch
from torch import Tensor

from model_worker.interaction.formats.base import Held
from model_worker.interaction.formats.difference import differences, restored
from model_worker.interaction.formats.weights import CheckpointError

torch.manual_seed(0)
BASE = {
    "a.weight": torch.randn(40, 24),
    "b.weight": torch.randn(30, 24),
    "words.weight": torch.randn(100, 24),
    "norm.weight": torch.ones(24),
}


def learnt() -> dict[str, Tensor]:
    """The base after training: `a` at rank 2, `b` whole, the last words, a normalisation, and something new."""
    torch.manual_seed(1)
    out = {name: tensor.clone() for name, tensor in BASE.items()}
    out["a.weight"] += torch.randn(40, 2) @ torch.randn(2, 24)
    out["b.weight"] += torch.randn(30, 24)
    out["words.weight"][-5:] = torch.randn(5, 24)
    out["norm.weight"] = torch.full((24,), 1.5)
    out["adapter.weight"] = torch.randn(3, 24)
    return out


def test_only_what_differs_is_stored_and_all_of_it_comes_back() -> None:
    model = learnt()
    stored = differences(model, BASE)
    assert {name: tuple(tensor.shape) for name, tensor in stored.items()} == {
        "a.up": (40, 2),
        "a.down": (2, 24),
        "b.weight": (30, 24),
        "words.markers": (5, 24),
        "norm.weight": (24,),
        "adapter.weight": (3, 24),
    }
    back = restored(dict(BASE), Held(stored)) | {name: stored[name] for name in stored if name.endswith(".weight")}
    assert back.keys() == model.keys()
    for name, tensor in model.items():
        torch.testing.assert_close(back[name], tensor, atol=1e-5, rtol=1e-5)
    assert differences(BASE, BASE) == {}


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"a.up": torch.zeros(40, 2)}, "without its other half a.down"),
        ({"a.down": torch.zeros(2, 24)}, "without its other half a.up"),
        ({"a.up": torch.zeros(40, 2), "a.down": torch.zeros(3, 24)}, "do not make a"),
        ({"a.up": torch.zeros(39, 2), "a.down": torch.zeros(2, 24)}, "do not make a"),
        ({"a.up": torch.zeros(40), "a.down": torch.zeros(2, 24)}, "do not make a"),
        ({"c.up": torch.zeros(40, 2), "c.down": torch.zeros(2, 24)}, "its base has no c.weight"),
        ({"words.markers": torch.zeros(101, 24)}, "no rows of"),
        ({"words.markers": torch.zeros(5, 23)}, "no rows of"),
    ],
)
def test_a_difference_that_does_not_fit_is_refused_by_name(broken: dict[str, Tensor], told: str) -> None:
    with pytest.raises(CheckpointError, match=told):
        restored(dict(BASE), Held(broken))
