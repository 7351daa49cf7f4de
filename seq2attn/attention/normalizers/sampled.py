"""All weight on a single position for each query: the one with the highest score, or a sample."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Bool, Float
from torch import Tensor

from seq2attn.attention.memory import Memory, Past
from seq2attn.attention.normalizers.dense import Softmax, mask_scores


class Hardmax(Softmax):
    """All weight on the position with the highest score; of equal ones, the first.

    The gradient is the softmax's, "straight through" (Bengio et al. 2013): biased, but not zero. The
    temperature is that of the gradient.
    """

    def forward(
        self,
        scores: Float[Tensor, "*b T S"],
        mask: Bool[Tensor, "*c M S"],
        past: Past,
        query: Float[Tensor, "*b T Q"],
    ) -> Float[Tensor, "*b T S"]:
        """See the class."""
        return _straight_through(scores, mask, super().forward(scores, mask, past, query))

    def fused(
        self, dot: Tensor, memory: Memory, bias: Tensor | None, dropout: float
    ) -> Float[Tensor, "*b T V"] | None:
        """Return None: no kernel selects the best position."""
        return None


class Gumbel(Softmax):
    """softmax((e + g) / tau) with Gumbel noise g in training (Jang et al. 2017; Maddison et al. 2017).

    The maximum of e + g is at position s with probability softmax(e)_s. Evaluation has no noise: softmax(e).

    temperature: tau; the lower, the nearer to a sample, and the higher the variance of the gradient.
    hard: the maximum has all the weight, and the gradient is that of the soft weights.
    """

    def __init__(
        self,
        query_size: int = 1,
        heads: int = 1,
        *,
        temperature: Annotated[float, Gt(0)] = 1.0,
        hard: bool = False,
    ) -> None:
        super().__init__(query_size, heads)  # in evaluation the temperature is 1
        self.noise_temperature, self.hard = temperature, hard

    def forward(
        self,
        scores: Float[Tensor, "*b T S"],
        mask: Bool[Tensor, "*c M S"],
        past: Past,
        query: Float[Tensor, "*b T Q"],
    ) -> Float[Tensor, "*b T S"]:
        """See the class."""
        if self.training:
            scores = (scores - _exponential(scores).log()) / self.noise_temperature
        weights = super().forward(scores, mask, past, query)
        return _straight_through(scores, mask, weights) if self.hard else weights

    def fused(
        self, dot: Tensor, memory: Memory, bias: Tensor | None, dropout: float
    ) -> Float[Tensor, "*b T V"] | None:
        """Use softmax's path in evaluation, unless `hard`."""
        return None if self.training or self.hard else super().fused(dot, memory, bias, dropout)


class Hard(Softmax):
    """A position is sampled from softmax(e), and the context is its value (Xu et al. 2015, section 4.1).

    The weights are the probabilities. No gradient goes through a sample: the loss has to add
    (log p(y) - baseline) grad log p(position). Evaluation takes the most probable position.

    soft_rate: the probability that all queries of a batch get the expectation, the whole softmax, instead of
    a sample, which lowers the variance. It is decided in initial_state(), once per batch, and kept in
    past.alignment_state: ones for the expectation.
    """

    def __init__(
        self, query_size: int = 1, heads: int = 1, *, soft_rate: Annotated[float, Ge(0), Lt(1)] = 0.5
    ) -> None:
        super().__init__(query_size, heads)
        self.soft_rate = soft_rate

    def initial_state(self, zeros: Float[Tensor, "*b S"]) -> Float[Tensor, "*b S"] | None:
        """Return ones if this batch gets the expectation, else zeros."""
        if not self.training:
            return zeros
        return zeros + (torch.rand((), device=zeros.device) < self.soft_rate)

    def sample(self, weights: Float[Tensor, "*b T S"], past: Past) -> Float[Tensor, "*b T S"] | None:
        """Return one-hot samples (..., T, S), zeros in all-masked rows; or the weights, if this batch
        gets the expectation."""
        if not self.training:
            return _one_hot(weights) * (weights > 0)
        # Exponential race: p / E is largest at s with probability p_s, and never where p = 0.
        sampled = _one_hot(weights / _exponential(weights)) * (weights > 0)
        if past.alignment_state is None:
            return sampled
        return torch.where(past.alignment_state[..., None, :1] > 0, weights, sampled)

    def fused(
        self, dot: Tensor, memory: Memory, bias: Tensor | None, dropout: float
    ) -> Float[Tensor, "*b T V"] | None:
        """Return None: a kernel gives the expectation."""
        return None


def _exponential(like: Tensor) -> Tensor:
    """Return samples from Exp(1), never 0; -log of them is Gumbel noise."""
    return torch.empty_like(like).exponential_().clamp(min=torch.finfo(like.dtype).tiny)


def _one_hot(x: Tensor) -> Tensor:
    """Return 1 at the largest of each row, the first of equals; without gradient."""
    return torch.zeros_like(x).scatter(-1, x.argmax(-1, keepdim=True), 1.0)


def _straight_through(scores: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Return weights that are exactly one-hot, with the gradient of `weights`."""
    scores = mask_scores(scores.detach(), mask)
    # The difference is computed first: (one-hot + p) - p is not exactly one-hot.
    return _one_hot(scores) * mask + (weights - weights.detach())
