"""Weights on every unmasked position: softmax, softmax with a sink, sigmoid, and plain division by the
sum."""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Gt
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seq2attn.attention.interfaces import Normalizer
from seq2attn.attention.memory import Memory, Past
from seq2attn.attention.precision import full_precision
from seq2attn.attention.renamed import warn_renamed


def nonempty(mask: Bool[Tensor, "*c M S"]) -> Bool[Tensor, "*c M S"]:
    """Return the mask, but with all-masked rows all True: normalize over this, then multiply by the mask.

    The values and gradients of such rows are then 0; a softmax of nothing but -inf would be nan.
    """
    return mask | ~mask.any(-1, keepdim=True)


def seen(mask: Bool[Tensor, "*c M S"]) -> Bool[Tensor, "*c M S"]:
    """The deprecated name of `nonempty`."""
    warn_renamed("normalizers", "seen", "nonempty")
    return nonempty(mask)


def mask_scores(scores: Float[Tensor, "*b T S"], mask: Bool[Tensor, "*c M S"]) -> Float[Tensor, "*b T S"]:
    """Return the scores, -inf where masked; an all-masked row keeps its scores."""
    return scores.masked_fill(~nonempty(mask), float("-inf"))


def fused_softmax(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, dropout: float) -> Tensor:
    """Return softmax(query keys' + mask) values by torch's fused kernel; a boolean mask is True where a query
    may attend.

    On a CPU the gradient of half precision takes ten times as long as that of float32. On MPS some versions
    of torch read a tensor that is a view as if it were contiguous (pytorch#181133).
    """
    if query.device.type == "mps":
        query, keys, values = query.contiguous(), keys.contiguous(), values.contiguous()
    half = query.dtype in (torch.bfloat16, torch.float16)
    if query.device.type != "cpu" or not half or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, keys, values, mask, dropout, scale=1.0)
    with torch.autocast("cpu", enabled=False):
        mask = mask if mask.dtype == torch.bool else mask.float()
        wide = query.float(), keys.float(), values.float(), mask
        return F.scaled_dot_product_attention(*wide, dropout, scale=1.0).to(query.dtype)


class Softmax(Normalizer):
    """exp(e / tau) / sum exp(e / tau) over the unmasked positions.

    temperature: tau; towards 0 the highest score has all the weight, towards infinity all weights are equal.
    learned_temperature: log tau is learned, one for each head, and starts at this temperature.
    """

    def __init__(
        self,
        query_size: int = 1,
        heads: int = 1,
        *,
        temperature: Annotated[float, Gt(0)] = 1.0,
        learned_temperature: bool = False,
    ) -> None:
        super().__init__(query_size, heads)
        self.temperature = temperature
        start = torch.full((heads, 1, 1), math.log(temperature))
        self.log_temperature = nn.Parameter(start) if learned_temperature else None

    def forward(
        self,
        scores: Float[Tensor, "*b T S"],
        mask: Bool[Tensor, "*c M S"],
        past: Past,
        query: Float[Tensor, "*b T Q"],
    ) -> Float[Tensor, "*b T S"]:
        """See the class."""
        return mask_scores(self._tempered(scores), mask).softmax(-1) * mask

    def fused(
        self, dot: Tensor, memory: Memory, bias: Tensor | None, dropout: float
    ) -> Float[Tensor, "*b T V"] | None:
        """Use torch's fused kernel, with the bias in the place of its mask."""
        dot, mask = self._tempered(dot), memory.mask
        if bias is not None:
            mask = self._tempered(bias).masked_fill(~mask, float("-inf")).to(dot.dtype)
        return fused_softmax(dot, memory.keys, memory.values, mask, dropout)

    def _tempered(self, x: Tensor) -> Tensor:
        """Return x / tau."""
        if self.log_temperature is not None:
            return x * torch.exp(-self.log_temperature).to(x.dtype)
        return x if self.temperature == 1 else x / self.temperature


class SoftmaxSink(Normalizer):
    """exp(e) / (exp(s) + sum exp(e)): a sink s without a value takes weight, so that a query need not attend.

    One s for each head. At 0 and not learned it is "softmax plus one", the zero sink that Xiao et al. (2024)
    compare. The same as softmax times sigmoid(logsumexp(e) - s).

    start: the initial s; learned: whether it is learned.
    """

    sums_to_one = False

    def __init__(
        self, query_size: int = 1, heads: int = 1, *, start: float = 0.0, learned: bool = True
    ) -> None:
        super().__init__(query_size, heads)
        self.sink = nn.Parameter(torch.full((heads, 1, 1), start)) if learned else start

    def forward(
        self,
        scores: Float[Tensor, "*b T S"],
        mask: Bool[Tensor, "*c M S"],
        past: Past,
        query: Float[Tensor, "*b T Q"],
    ) -> Float[Tensor, "*b T S"]:
        """See the class. The sink is never masked, so no row is empty."""
        return self._with_sink(scores.masked_fill(~mask, float("-inf"))).softmax(-1)[..., :-1]

    def fused(
        self, dot: Tensor, memory: Memory, bias: Tensor | None, dropout: float
    ) -> Float[Tensor, "*b T V"] | None:
        """Use torch's fused kernel, with the sink as one more position whose key and value are zero."""
        bias = torch.zeros_like(memory.mask, dtype=dot.dtype) if bias is None else bias
        mask = self._with_sink(bias.masked_fill(~memory.mask, float("-inf"))).to(dot.dtype)
        keys, values = (F.pad(part, (0, 0, 0, 1)) for part in (memory.keys, memory.values))
        return fused_softmax(dot, keys, values, mask, dropout)

    def _with_sink(self, x: Tensor) -> Tensor:
        """Append the sink to the scores: (..., T, S) -> (..., T, S + 1)."""
        last = torch.arange(x.shape[-1] + 1, device=x.device) == x.shape[-1]
        return F.pad(x, (0, 1)) + self.sink * last.to(x.dtype)


class Sigmoid(Normalizer):
    """sigmoid(e + b): the weight of a position does not depend on the others (Ramapuram et al. 2024).

    normalized: sigmoid(e + b) / sum sigmoid(e + b), the smoothing of Chorowski et al. (2015, section 2.3):
    flatter than softmax, so that more positions share the weight.
    start: the initial b, learned, one for each head. None: nothing is learned, and b is
    -log(number of unmasked positions), so that the weights sum to about 1 at first, or 0 if normalized, as in
    the two papers.
    """

    def __init__(
        self, query_size: int = 1, heads: int = 1, *, normalized: bool = False, start: float | None = None
    ) -> None:
        super().__init__(query_size, heads)
        self.sums_to_one = normalized
        self.bias = None if start is None else nn.Parameter(torch.full((heads, 1, 1), float(start)))

    def forward(
        self,
        scores: Float[Tensor, "*b T S"],
        mask: Bool[Tensor, "*c M S"],
        past: Past,
        query: Float[Tensor, "*b T Q"],
    ) -> Float[Tensor, "*b T S"]:
        """See the class."""
        if self.bias is not None:
            scores = scores + self.bias
        if self.sums_to_one:  # in logarithms: a row of tiny sigmoids would be 0 / 0
            return mask_scores(F.logsigmoid(scores), mask).softmax(-1) * mask
        if self.bias is None:
            scores = scores - mask.sum(-1, keepdim=True).clamp(min=1).to(scores.dtype).log()
        return scores.sigmoid() * mask


class Sum(Normalizer):
    """e / sum e over the unmasked positions, for scores that are never negative.

    With scores phi(q) . phi(k) this is linear attention (Katharopoulos et al. 2020, eq. 4 and 5). A query
    whose scores are all zero has the weights zero.
    """

    needs_positive = True

    def forward(
        self,
        scores: Float[Tensor, "*b T S"],
        mask: Bool[Tensor, "*c M S"],
        past: Past,
        query: Float[Tensor, "*b T Q"],
    ) -> Float[Tensor, "*b T S"]:
        """See the class."""
        scores = scores.masked_fill(~mask, 0.0)
        return scores / _divisor(scores.sum(-1, keepdim=True))

    def fused(
        self, dot: Tensor, memory: Memory, bias: Tensor | None, dropout: float
    ) -> Float[Tensor, "*b T V"] | None:
        """Compute q (K^T V) / q (K^T 1): time (T + S) K V in the place of T S (K + V), and no (T, S) matrix.

        None if queries have masks of their own, or if T and S are so small that it would take longer.
        """
        T, S, K, V = dot.shape[-2], *memory.keys.shape[-2:], memory.values.shape[-1]
        if memory.mask.shape[-2] > 1 or bias is not None or dropout > 0 or (T + S) * K * V > T * S * (K + V):
            return None
        with full_precision(dot.device):  # sums over long sources overflow float16
            wide = torch.promote_types(memory.values.dtype, torch.float32)
            query, values = dot.to(wide), memory.values.to(wide)
            keys = memory.keys.to(wide) * memory.mask.mT
            total = query @ keys.sum(-2).unsqueeze(-1)
            context: Tensor = query @ (keys.mT @ values) / _divisor(total)
        return context.to(memory.values.dtype)


def _divisor(total: Tensor) -> Tensor:
    """Return a sum to divide by: 1 where it is too small for that."""
    return total.where(total > torch.finfo(total.dtype).tiny, 1.0)
