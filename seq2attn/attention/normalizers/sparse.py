"""Weights that are exactly zero on most positions: sparsemax and its family, entmax.

For alpha > 1 the weights are p = [(alpha - 1) e - tau]_+ ^ (1 / (alpha - 1)), with the threshold tau that
makes them sum to one (Peters et al. 2019, section 3): softmax for alpha -> 1, sparsemax for alpha = 2. A
position whose score is 1 / (alpha - 1) above all others has all the weight. Outside of the support the
gradient is exactly zero, and so is p: a loss of log p is infinite there.
"""

import math
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seq2attn.attention.interfaces import Normalizer
from seq2attn.attention.memory import Past
from seq2attn.attention.normalizers.dense import mask_scores
from seq2attn.errors import Seq2attnError

BISECTIONS = 50  # more than float32 has digits, nearly what float64 has


class Sparsemax(Normalizer):
    """argmin_p |p - e|^2 over all distributions p (Martins & Astudillo 2016): many weights exactly zero.

    By sorting: time O(S log S) for each query. The larger the scores, the fewer positions have weight.
    """

    def forward(
        self,
        scores: Float[Tensor, "*b T S"],
        mask: Bool[Tensor, "*c M S"],
        past: Past,
        query: Float[Tensor, "*b T Q"],
    ) -> Float[Tensor, "*b T S"]:
        """See the class."""
        return entmax(mask_scores(scores, mask), 1.0) * mask


class Entmax(Normalizer):
    """[(alpha - 1) e - tau]_+ ^ (1 / (alpha - 1)) (Peters et al. 2019), between softmax and sparsemax.

    alpha: by sorting for 1.5 and 2, by bisection for all others.
    learned: alpha = 1 + sigmoid(a) with one a for each head, started at this alpha (Correia et al. 2019).
    """

    def __init__(
        self,
        query_size: int = 1,
        heads: int = 1,
        *,
        alpha: Annotated[float, Gt(1), Le(2)] = 1.5,
        learned: bool = False,
    ) -> None:
        super().__init__(query_size, heads)
        if learned and alpha == 2:
            raise Seq2attnError(
                "a learned alpha of entmax is 1 + sigmoid(a), less than 2: got alpha=2; "
                "start lower, at 1.9 for example, or use sparsemax"
            )
        self.power = alpha - 1
        start = torch.full((heads, 1, 1), math.log((alpha - 1) / (2 - alpha)) if learned else 0.0)
        self.log_odds = nn.Parameter(start) if learned else None

    def forward(
        self,
        scores: Float[Tensor, "*b T S"],
        mask: Bool[Tensor, "*c M S"],
        past: Past,
        query: Float[Tensor, "*b T Q"],
    ) -> Float[Tensor, "*b T S"]:
        """See the class."""
        power = self.power if self.log_odds is None else self.log_odds.sigmoid()
        return entmax(mask_scores(scores, mask), power) * mask


def entmax(scores: Float[Tensor, "*b T S"], power: Tensor | float) -> Float[Tensor, "*b T S"]:
    """Return entmax over the last axis; power: alpha - 1, in (0, 1]. Scores of a row may be -inf, but not
    all."""
    return _Entmax.apply(scores, power)  # type: ignore[no-any-return, no-untyped-call]


class _Entmax(torch.autograd.Function):
    """Entmax with a gradient that needs only the weights: s g - s <s, g> / sum s, with s = p^(2 - alpha) on
    the support."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, power: Tensor | float) -> Tensor:
        # A score that is 1 or more below the largest has no weight. The clamp makes -inf finite.
        x = ((scores - scores.amax(-1, keepdim=True)) * power).clamp(min=-2)
        if isinstance(power, Tensor) or power not in (1.0, 0.5):
            weights = _bisected(x, power)
        else:
            weights = _sparsemax(x) if power == 1.0 else _entmax15(x)
        ctx.power = power
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        (weights,), power = ctx.saved_tensors, ctx.power
        s = weights.pow(1 - power).masked_fill(weights == 0, 0)
        share = s / s.sum(-1, keepdim=True)
        of_scores = s * gradient - share * (s * gradient).sum(-1, keepdim=True)
        if not ctx.needs_input_grad[1]:
            return of_scores, None
        of_power = gradient * _by_alpha(weights, s, power)
        return of_scores, of_power.sum(-1, keepdim=True).sum_to_size(power.shape)


def _sparsemax(x: Tensor) -> Tensor:
    """Return sparsemax of x (Martins & Astudillo 2016, algorithm 1)."""
    ordered = x.sort(-1, descending=True).values
    ranks = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
    above = ordered.cumsum(-1) - 1
    support = (ranks * ordered > above).sum(-1, keepdim=True)
    return (x - above.gather(-1, support - 1) / support).clamp(min=0)


def _entmax15(x: Tensor) -> Tensor:
    """Return 1.5-entmax; x is half of the scores (Peters et al. 2019, algorithm 2)."""
    ordered = x.sort(-1, descending=True).values
    ranks = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
    mean = ordered.cumsum(-1) / ranks
    spread = ranks * (ordered.square().cumsum(-1) / ranks - mean.square())
    threshold = mean - ((1 - spread) / ranks).clamp(min=0).sqrt()
    support = (threshold <= ordered).sum(-1, keepdim=True)
    return (x - threshold.gather(-1, support - 1)).clamp(min=0).square()


def _bisected(x: Tensor, power: Tensor | float) -> Tensor:
    """Return entmax for any alpha, by bisection.

    p = t^(1 / power) (1 + x / t)^(1 / power) with -tau = t in [S^-power, 1]. The second factor, by log1p,
    stays exact as power goes to 0; the first cancels as the weights are divided by their sum.
    """
    low = torch.zeros_like(x[..., :1]) + x.shape[-1] ** -power
    high = torch.ones_like(low)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        too_much = (middle.log() / power).exp() * _second_factor(x, middle, power).sum(-1, keepdim=True) > 1
        low, high = low.where(too_much, middle), middle.where(too_much, high)
    weights = _second_factor(x, low, power)
    return weights / weights.sum(-1, keepdim=True)


def _second_factor(x: Tensor, t: Tensor, power: Tensor | float) -> Tensor:
    return ((x / t).clamp(min=-1).log1p() / power).exp()


def _by_alpha(weights: Tensor, s: Tensor, power: Tensor) -> Tensor:
    """Return dp / d alpha (Correia et al. 2019, proposition 1).

    Their p - share is written as power p (R - r) / sum s with r = (p^-power - 1) / power and R = <p, r>,
    which loses fewer digits as alpha goes to 1.
    """
    surprise = -weights.where(weights > 0, 1).log()
    r = (power * surprise).expm1() / power
    total = s.sum(-1, keepdim=True)
    entropy = (weights * surprise).sum(-1, keepdim=True)
    away = weights * ((weights * r).sum(-1, keepdim=True) - r) / total
    return (away + weights * surprise - s / total * entropy) / power
