"""Sums, norms and softmaxes in full precision, whatever autocast says."""

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Return a context without autocast. The meta device has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
