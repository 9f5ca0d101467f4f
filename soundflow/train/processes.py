"""One process, or several by `accelerate launch` or `torchrun`: the loop does not see the difference.

accelerate is an extra of its own; a single process does without it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from soundflow.errors import SoundflowError

WAIT = timedelta(hours=12)
"""For the first process, which encodes the streams and chooses the thresholds."""


class Processes:
    """This process alone, on the GPU if there is one."""

    index = 0
    first = True

    def __init__(self) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """What to call instead of each of them."""
        return network.to(self.device), optimizer

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        """Until all processes are here."""

    def close(self) -> None:
        """Part from the other processes."""


class Accelerated(Processes):
    """One of the processes that were started together, each with a GPU of its own if there are any. Gradients are
    averaged over all of them."""

    def __init__(self) -> None:
        """Raises SoundflowError without accelerate."""
        try:
            from accelerate import Accelerator
            from accelerate.utils import DistributedDataParallelKwargs
        except ModuleNotFoundError as error:
            raise SoundflowError("several processes need accelerate: pip install 'offhook[train]'") from error
        # The examples of one process may have no words to say, or no decision to make: then its gradients are nothing.
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        self._accelerator = Accelerator(kwargs_handlers=[unused])
        # Of its own: an exchange of gradients that hangs is given up much sooner.
        self._waiting = torch.distributed.new_group(backend="gloo", timeout=WAIT)
        self.device = self._accelerator.device
        self.index = self._accelerator.process_index
        self.first = self._accelerator.is_main_process

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        return tuple(self._accelerator.prepare(network, optimizer))

    def backward(self, loss: Tensor) -> None:
        self._accelerator.backward(loss)

    def wait(self) -> None:
        torch.distributed.barrier(group=self._waiting)

    def close(self) -> None:
        self._accelerator.end_training()


def processes(world_size: int) -> Processes:
    """By the number of processes that were started together."""
    return Accelerated() if world_size > 1 else Processes()
