"""Weights on every slot that may be seen: softmax, softmax with a sink, sigmoid, and the plain share."""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Gt
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seq2attn.attention.attention import Memory, Normalizer, Past


def seen(mask: Bool[Tensor, "*c M S"]) -> Bool[Tensor, "*c M S"]:
    """The mask, but all true where a query sees nothing: normalise over this, then multiply by the mask.

    That keeps value and gradient finite and zero where a softmax of -inf alone would give nan.
    """
    return mask | ~mask.any(-1, keepdim=True)


def masked(scores: Float[Tensor, "*b T S"], mask: Bool[Tensor, "*c M S"]) -> Float[Tensor, "*b T S"]:
    """The scores, -inf where they may not be seen; a query that sees nothing keeps its scores."""
    return scores.masked_fill(~seen(mask), float("-inf"))


def fused(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, dropout: float) -> Tensor:
    """torch's kernel for softmax(query keys' + mask) values; a mask of bools says what may be seen.

    On a CPU the gradient of half precision takes ten times as long as that of float32. On MPS some of torch's
    versions read a tensor that is a view as if it were none (pytorch#181133).
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
    """exp(e / tau) / sum exp(e / tau) over the slots that may be seen.

    temperature: tau; towards 0 the best slot takes all, towards infinity all slots are equal.
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
        return masked(self._cool(scores), mask).softmax(-1) * mask

    def fused(
        self, dot: Tensor, memory: Memory, bias: Tensor | None, dropout: float
    ) -> Float[Tensor, "*b T V"] | None:
        """torch's fused kernel, with the relative bias in the place of its mask."""
        dot, mask = self._cool(dot), memory.mask
        if bias is not None:
            mask = self._cool(bias).masked_fill(~mask, float("-inf")).to(dot.dtype)
        return fused(dot, memory.keys, memory.values, mask, dropout)

    def _cool(self, x: Tensor) -> Tensor:
        """x / tau."""
        if self.log_temperature is not None:
            return x * torch.exp(-self.log_temperature).to(x.dtype)
        return x if self.temperature == 1 else x / self.temperature


class SoftmaxSink(Normalizer):
    """exp(e) / (exp(s) + sum exp(e)): a sink s without a value takes mass, so that a query may look away.

    One s for each head. At 0 and not learned it is "softmax plus one", the zero sink that Xiao et al. (2024)
    compare. The same as softmax times sigmoid(logsumexp(e) - s).

    start: s at first; learned: whether it changes.
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
        """See the class. The sink is always seen, so no row is empty."""
        return self._with_sink(scores.masked_fill(~mask, float("-inf"))).softmax(-1)[..., :-1]

    def fused(
        self, dot: Tensor, memory: Memory, bias: Tensor | None, dropout: float
    ) -> Float[Tensor, "*b T V"] | None:
        """torch's fused kernel, with the sink as one more slot whose key and value are zero."""
        bias = torch.zeros_like(memory.mask, dtype=dot.dtype) if bias is None else bias
        added = self._with_sink(bias.masked_fill(~memory.mask, float("-inf"))).to(dot.dtype)
        keys, values = (F.pad(part, (0, 0, 0, 1)) for part in (memory.keys, memory.values))
        return fused(dot, keys, values, added, dropout)

    def _with_sink(self, x: Tensor) -> Tensor:
        """Scores (..., T, S) -> (..., T, S + 1), the sink behind them."""
        last = torch.arange(x.shape[-1] + 1, device=x.device) == x.shape[-1]
        return F.pad(x, (0, 1)) + self.sink * last.to(x.dtype)


class Sigmoid(Normalizer):
    """sigmoid(e + b): each slot is looked at or not, whatever the others are (Ramapuram et al. 2024).

    normalized: sigmoid(e + b) / sum sigmoid(e + b), the smoothing of Chorowski et al. (2015, section 2.3):
    flatter than softmax, so that several slots share the weight.
    start: b at first, learned, one for each head. If None nothing is learned: b is -log(slots that may be
    seen), which makes the weights sum to about 1 at first, or 0 if normalized, as in the two papers.
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
        if self.sums_to_one:  # in logarithms, so that a row of tiny sigmoids is no 0 / 0
            return masked(F.logsigmoid(scores), mask).softmax(-1) * mask
        if self.bias is None:
            scores = scores - mask.sum(-1, keepdim=True).clamp(min=1).to(scores.dtype).log()
        return scores.sigmoid() * mask


class Sum(Normalizer):
    """e / sum e over the slots that may be seen, for scores that are never negative.

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
        """q (K^T V) / q (K^T 1): time (T + S) K V in the place of T S (K + V), and no (T, S).

        Where all queries see the same slots, and there are so many of both that it is less.
        """
        T, S, K, V = dot.shape[-2], *memory.keys.shape[-2:], memory.values.shape[-1]
        if memory.mask.shape[-2] > 1 or bias is not None or dropout > 0 or (T + S) * K * V > T * S * (K + V):
            return None
        with torch.autocast(dot.device.type, enabled=False):  # sums over long sources overflow float16
            wide = torch.promote_types(memory.values.dtype, torch.float32)
            query, values = dot.to(wide), memory.values.to(wide)
            keys = memory.keys.to(wide) * memory.mask.mT
            total = query @ keys.sum(-2).unsqueeze(-1)
            context: Tensor = query @ (keys.mT @ values) / _divisor(total)
        return context.to(memory.values.dtype)


def _divisor(total: Tensor) -> Tensor:
    """A sum to divide by: 1 where it is too small for that."""
    return total.where(total > torch.finfo(total.dtype).tiny, 1.0)
