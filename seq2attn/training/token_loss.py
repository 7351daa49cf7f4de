"""What predicting tokens costs: cross-entropy over a vocabulary, of logits or of what they are made from.

The vocabulary makes logits the widest tensors of all. Both functions here write out their gradients, because
composed operations would pass over those tensors five times more; and the second never makes them whole.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seq2attn.models.decoders import Projection
from seq2attn.runtime.chunks import blocks

ROWS = 512  # of logits that are made at once: enough to keep a device busy


class Loss(NamedTuple):
    """Sums over the tokens that count; divide by their number to report."""

    smoothed: Tensor  # (), what is minimised: cross-entropy against the smoothed target, in nats
    nll: Tensor  # (), the negative log-likelihood of the gold tokens, in nats; has no gradient


def cross_entropy(
    predicted: Tensor | Projection,
    gold: Int[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    smoothing: float = 0.0,
    beyond: int = 0,
) -> Loss:
    """Cross-entropy with label smoothing (Szegedy et al. 2016): the gold token has 1 - e, and e is spread
    evenly over the whole vocabulary (as in `F.cross_entropy`). Padding does not count. Float32.

    predicted: logits (B, T, V); or what they are made from, of which no more than ROWS (B T) are ever made at
    once, and none for padding, with their gradient.
    beyond: the last so many tokens are none of the vocabulary, but copied (decoders/copying.py).
    """
    if isinstance(predicted, Projection):
        states, layer, learning = predicted.states[mask], predicted.layer, torch.is_grad_enabled()
        return Loss(*_Projected.apply(states, layer.weight, layer.bias, gold[mask], smoothing, learning))  # type: ignore[no-untyped-call]
    wide = predicted.float() if predicted.dtype in (torch.float16, torch.bfloat16) else predicted
    size = predicted.shape[-1] - beyond
    return Loss(*_SmoothedCrossEntropy.apply(wide, gold, mask, smoothing, size))  # type: ignore[no-untyped-call]


class _SmoothedCrossEntropy(torch.autograd.Function):
    """Written out because the vocabulary makes this the widest tensor of all: the gradient is made in the
    place of the log-probabilities, where composed operations would pass over it five times more."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, gold: Tensor, mask: Tensor, smoothing: float, size: int
    ) -> tuple[Tensor, Tensor]:
        log_p = logits.log_softmax(-1)
        nll = -(log_p.gather(-1, gold[..., None]).squeeze(-1) * mask).sum()
        smoothed = nll.clone()
        if smoothing:
            uniform = -(log_p[..., :size].mean(-1) * mask).sum()
            smoothed = (1 - smoothing) * nll + smoothing * uniform
        ctx.save_for_backward(log_p, gold, mask)
        ctx.smoothing, ctx.size = smoothing, size
        ctx.mark_non_differentiable(nll)
        return smoothed, nll

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, None, None]:
        log_p, gold, mask = ctx.saved_tensors
        gradient = _gradient(log_p, gold, ctx.smoothing, ctx.size)
        gradient *= (grad * mask)[..., None]
        return gradient, None, None, None, None


class _Projected(torch.autograd.Function):
    """Logits W h + b are made some rows at a time, and from them at once the gradient to h, W and b: what is
    as wide as the vocabulary is gone before the next rows come."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Float[Tensor, "N R"],
        weight: Float[Tensor, "V R"],
        bias: Float[Tensor, " V"] | None,
        gold: Int[Tensor, " N"],
        smoothing: float,
        learning: bool,
    ) -> tuple[Tensor, Tensor]:
        narrow = weight.to(states.dtype)
        offset = None if bias is None else bias.to(states.dtype)
        to_states, to_weight = torch.empty_like(states), torch.zeros_like(weight)
        to_bias = None if bias is None else torch.zeros_like(bias)
        smoothed, nll = weight.new_zeros(()), weight.new_zeros(())
        for some, right, to_some in zip(*(x.split(ROWS) for x in (states, gold, to_states)), strict=True):
            logits = F.linear(some, narrow, offset)
            for rows in blocks(len(some), some.device):
                log_p = logits[rows].to(weight.dtype).log_softmax(-1)
                lost = -log_p.gather(-1, right[rows, None]).sum()
                nll += lost
                smoothed += (1 - smoothing) * lost
                if smoothing:
                    smoothed -= smoothing * log_p.mean(-1).sum()
                if not learning:
                    continue
                gradient = _gradient(log_p, right[rows], smoothing, len(weight))
                logits[rows] = gradient
                if to_bias is not None:
                    to_bias += gradient.sum(0)
            if learning:
                torch.mm(logits, narrow, out=to_some)
                to_weight += logits.T @ some
        ctx.save_for_backward(to_states, to_weight, to_bias)
        ctx.mark_non_differentiable(nll)
        return smoothed, nll

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None, None]:
        to_states, to_weight, to_bias = ctx.saved_tensors
        of_bias = None if to_bias is None else to_bias * grad
        return to_states * grad.to(to_states.dtype), to_weight * grad, of_bias, None, None, None


def _gradient(log_p: Tensor, gold: Tensor, smoothing: float, size: int) -> Tensor:
    """That of the loss to the logits (..., V): softmax less the smoothed target over the first `size`. Made
    in place of the log-probabilities, which nobody else holds."""
    gradient = log_p.exp_()
    if smoothing:
        gradient[..., :size] -= smoothing / size
    right = gold[..., None]
    return gradient.scatter_add_(-1, right, gradient.new_full((), smoothing - 1).expand(right.shape))
