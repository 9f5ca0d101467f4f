"""One process, or several by `accelerate launch`: the loop does not see the difference.

accelerate is an extra of its own; a single process does without it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from soundflow.errors import SoundflowError


class Processes:
    """This process alone."""

    index = 0
    first = True

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """What to call instead of each of them."""
        return network, optimizer

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]


class Accelerated(Processes):
    """One of the processes that `accelerate launch` has started. Gradients are averaged over all of them."""

    def __init__(self) -> None:
        """Raises SoundflowError without accelerate."""
        try:
            from accelerate import Accelerator  # type: ignore[import-not-found]
        except ModuleNotFoundError as error:
            raise SoundflowError("several processes need accelerate: pip install accelerate") from error
        self._accelerator = Accelerator()
        self.index = self._accelerator.process_index
        self.first = self._accelerator.is_main_process

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        return tuple(self._accelerator.prepare(network, optimizer))

    def backward(self, loss: Tensor) -> None:
        self._accelerator.backward(loss)


def processes(world_size: int) -> Processes:
    """By the number of processes that were started together."""
    return Accelerated() if world_size > 1 else Processes()
