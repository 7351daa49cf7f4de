"""Power iterations of spectral norms (Miyato et al. 2018), made when they are wanted.

torch's `spectral_norm` makes a power iteration whenever a layer is called in training. A batch then changes
the weights that the next batch of the same update is computed with, so that a gradient would depend on how
an update is divided. Here the iterations are made between updates: `hold` ends torch's own.
"""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList


def hold(model: nn.Module) -> None:
    """Let the spectral norms of a model make no power iterations by themselves. Call it after
    `model.train()`, which undoes it."""
    for norm in _norms(model):
        norm.eval()


@torch.no_grad()
def power_iterations(model: nn.Module, count: int = 1) -> None:
    """Make power iterations of all spectral norms, in float32."""
    for norm in _norms(model):
        training = norm.training
        norm.train()
        for _ in range(count):
            norm()
        norm.train(training)


def _norms(model: nn.Module) -> Iterator[ParametrizationList]:
    return (part for part in model.modules() if isinstance(part, ParametrizationList))
