"""Buffers that a model's forward pass changes, such as the running statistics of batch norm."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from seq2attn.runtime.distributed import Group


class SharedBuffers:
    """The buffers of a model in an update of several batches.

    Each batch starts from the buffers before the update; after it they are the mean of what the batches have
    made of them. So they do not depend on the order of the batches, nor on the process that computes one.
    What one process alone makes of one batch is left as it is.
    """

    def __init__(self, model: nn.Module, num_batches: int, group: Group) -> None:
        self._batches, self._group = num_batches, group
        self._buffers = list(_changing(model)) if num_batches > 1 or group.size > 1 else []
        self._before = [buffer.clone() for buffer in self._buffers]
        self._sums = [torch.zeros_like(buffer, dtype=torch.float64) for buffer in self._buffers]

    def batch_done(self) -> None:
        """Note the buffers after a batch, and let the next one start from those before the update."""
        with torch.no_grad():
            for buffer, before, total in zip(self._buffers, self._before, self._sums, strict=True):
                total += buffer
                buffer.copy_(before)

    def update_done(self) -> None:
        """Set the buffers to their mean over the batches of all processes."""
        self._group.add(self._sums)
        with torch.no_grad():
            for buffer, total in zip(self._buffers, self._sums, strict=True):
                buffer.copy_(total / self._batches)


def _changing(model: nn.Module) -> Iterator[Tensor]:
    """Yield the buffers of real numbers and counts."""
    return (buffer for buffer in model.buffers() if buffer.dtype != torch.bool and buffer.numel())
