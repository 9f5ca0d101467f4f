"""One pass over batches of any size: padded to a few fixed sizes, and on a GPU captured once as a CUDA graph each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WARM_UPS = 2  # passes before a capture: libraries make their plans and work spaces in them

Body = Callable[[Tensor, Tensor], Tensor]
"""A pass: numbers [B, n] int64 and a tensor [B, ...] in, [B, ...] out. It may change `numbers` in place."""


class Padded:
    """Runs `body`. `idle` are the numbers of a row of padding, `given` the shape and type of the tensor's rows.

    Inputs are copied into buffers that stay where they are, so that a captured graph finds them.
    """

    def __init__(
        self, body: Body, idle: Sequence[int], given: Tensor, device: torch.device, sizes: Sequence[int]
    ) -> None:
        self._body = body
        self.sizes = sorted(sizes)
        with torch.inference_mode():
            self._idle = torch.tensor([list(idle)], device=device)
            self._numbers = {size: self._idle.repeat(size, 1) for size in self.sizes}
            self._given = {size: given.to(device).expand(size, *given.shape).contiguous() for size in self.sizes}
            self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
            if device.type == "cuda":
                for size in reversed(self.sizes):  # the largest first: the others fit into its memory
                    self._capture(size)

    @property
    def largest(self) -> int:
        """Rows a call at most."""
        return self.sizes[-1]

    @torch.inference_mode()
    def __call__(self, numbers: Sequence[Sequence[int]], given: Tensor | None = None, repeat: int = 1) -> Tensor:
        """The output for 1 to `largest` rows after `repeat` passes. The host is not waited for."""
        rows = len(numbers)
        if not 1 <= rows <= self.largest:
            raise ValueError(f"a batch has 1 to {self.largest} rows, not {rows}")
        size = next(size for size in self.sizes if size >= rows)
        self._fill(self._numbers[size][:rows], torch.tensor(numbers))
        self._numbers[size][rows:] = self._idle
        if given is not None:
            self._fill(self._given[size][:rows], given)
        out = self._numbers[size]
        for _ in range(repeat):
            out = self._run(size)
        return out[:rows].clone()

    @staticmethod
    def _fill(buffer: Tensor, tensor: Tensor) -> None:
        """Only from pinned memory does a copy to a GPU run behind the host's back."""
        pinned = buffer.is_cuda and not tensor.is_cuda
        buffer.copy_(tensor.pin_memory() if pinned else tensor, non_blocking=pinned)

    def _run(self, size: int) -> Tensor:
        if size not in self._graphs:
            return self._body(self._numbers[size], self._given[size])
        graph, out = self._graphs[size]
        graph.replay()
        return out

    def _capture(self, size: int) -> None:
        """Record the pass over the buffers of one size."""
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                self._body(self._numbers[size], self._given[size])
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        pool = next((other.pool() for other, _ in self._graphs.values()), None)
        with torch.cuda.graph(graph, pool=pool):
            out = self._body(self._numbers[size], self._given[size])
        self._graphs[size] = (graph, out)
