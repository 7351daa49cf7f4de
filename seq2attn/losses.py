"""Losses as sums and counts: they are normalised once, over the whole update (`training.py`)."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Loss(NamedTuple):
    """Sums over the tokens that count; divide by their number to report."""

    smoothed: Tensor  # (), what is minimised: cross-entropy against the smoothed target, in nats
    nll: Tensor  # (), the negative log-likelihood of the gold tokens, in nats; has no gradient


def cross_entropy(
    logits: Float[Tensor, "B T V"],
    gold: Int[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    smoothing: float = 0.0,
) -> Loss:
    """Cross-entropy with label smoothing (Szegedy et al. 2016): the gold token has 1 - e, and e is spread
    evenly over the whole vocabulary (as in `F.cross_entropy`). Padding does not count. Float32.
    """
    wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return Loss(*_SmoothedCrossEntropy.apply(wide, gold, mask, smoothing))  # type: ignore[no-untyped-call]


class _SmoothedCrossEntropy(torch.autograd.Function):
    """Written out because the vocabulary makes this the widest tensor of all: the gradient is made in the
    place of the log-probabilities, where composed operations would pass over it five times more."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, gold: Tensor, mask: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        log_p = logits.log_softmax(-1)
        nll = -(log_p.gather(-1, gold[..., None]).squeeze(-1) * mask).sum()
        smoothed = nll.clone()
        if smoothing:
            uniform = -(log_p.mean(-1) * mask).sum()
            smoothed = (1 - smoothing) * nll + smoothing * uniform
        ctx.save_for_backward(log_p, gold, mask)
        ctx.smoothing = smoothing
        ctx.mark_non_differentiable(nll)
        return smoothed, nll

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        log_p, gold, mask = ctx.saved_tensors
        gradient = log_p.exp_()  # softmax; nobody else holds the log-probabilities
        if ctx.smoothing:
            gradient -= ctx.smoothing / gradient.shape[-1]
        gradient.scatter_add_(
            -1, gold[..., None], gradient.new_full((), ctx.smoothing - 1).expand(*gold.shape, 1)
        )
        gradient *= (grad * mask)[..., None]
        return gradient, None, None, None
