"""A padded batch gives what its rows give, whatever stood in its buffers before."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")

import torch
from torch import Tensor

from model_worker.interaction.build import batches
from model_worker.interaction.padded import Padded
from model_worker.scheduler import BATCH
from tests.model_worker.interaction.served import DEVICES, SMALL, serve


class Sums:
    """A pass with a state of its own: adds to slots, counts down in place, and says what the slots hold."""

    def __init__(self, device: str) -> None:
        self.slots = torch.zeros(9, device=device)  # the last for padding

    def __call__(self, numbers: Tensor, given: Tensor) -> Tensor:
        slot, times = numbers.unbind(1)
        rows = torch.where(times > 0, slot, 8)
        self.slots.index_add_(0, rows, given.sum(dim=1))
        numbers[:, 1] -= 1
        return self.slots[slot]


@pytest.mark.parametrize("device", DEVICES)
def test_padding_and_what_was_there_before_do_not_count(device: str) -> None:
    sums = Sums(device)
    padded = Padded(sums, (8, 0), torch.zeros(2), torch.device(device), (4, 2, 1))
    sums.slots.zero_()
    ones = torch.ones(4, 2)
    assert padded([(slot, 3) for slot in range(4)], ones, repeat=2).tolist() == [4.0] * 4
    assert padded([(slot, 3) for slot in range(3)], ones[:3]).tolist() == [6.0] * 3
    first = padded([(5, 1)], 7 * ones[:1], repeat=3)
    second = padded([(6, 1)], 8 * ones[:1])
    assert (first.tolist(), second.tolist()) == ([14.0], [16.0])  # each its own, not a look at the same buffer
    assert sums.slots[:8].tolist() == [6.0, 6.0, 6.0, 4.0, 0.0, 14.0, 16.0, 0.0]


@pytest.mark.parametrize("rows", [0, 5])
def test_a_batch_of_another_size_is_refused(rows: int) -> None:
    padded = Padded(Sums("cpu"), (8, 0), torch.zeros(2), torch.device("cpu"), (4,))
    with pytest.raises(ValueError, match="1 to 4 rows"):
        padded([(0, 1)] * rows, torch.ones(rows, 2))


def test_every_batch_that_can_come_has_a_size_and_no_other_is_made() -> None:
    assert batches(3, padded=False) == [1, 2, 3]
    assert [batches(slots, padded=True) for slots in (1, 2, 5, 8)] == [[1], [1, 2], [1, 2, 4, 8], [1, 2, 4, 8]]
    assert batches(BATCH, padded=True)[-1] == BATCH == 32
    assert serve(SMALL, slots=40)._perceive.sizes == list(range(1, BATCH + 1))
    assert serve(SMALL, slots=2)._perceive.sizes == [1, 2]
