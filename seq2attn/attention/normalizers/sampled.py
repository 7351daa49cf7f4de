"""One slot for each query: the best, or one that is drawn."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Bool, Float
from torch import Tensor

from seq2attn.attention.attention import Memory, Past
from seq2attn.attention.normalizers.dense import Softmax, masked


class Hardmax(Softmax):
    """All the weight on the best slot, the first of equals.

    The gradient is the softmax's, "straight through" (Bengio et al. 2013): biased, but there. The temperature
    is that of the gradient.
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
        """None: no kernel takes the best slot."""
        return None


class Gumbel(Softmax):
    """softmax((e + g) / tau) with Gumbel noise g in training (Jang et al. 2017; Maddison et al. 2017).

    The best slot of e + g is slot s with the probability softmax(e)_s. Evaluation has no noise: softmax(e).

    temperature: tau; the lower, the nearer to a sample, and the wilder the gradient.
    hard: one slot has all the weight, and the gradient is that of the soft weights; in evaluation the best.
    """

    def __init__(
        self,
        query_size: int = 1,
        heads: int = 1,
        *,
        temperature: Annotated[float, Gt(0)] = 1.0,
        hard: bool = False,
    ) -> None:
        super().__init__(query_size, heads)  # the softmax of evaluation is not tempered
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
        """The softmax's in evaluation, if the weights are soft."""
        return None if self.training or self.hard else super().fused(dot, memory, bias, dropout)


class Hard(Softmax):
    """One slot is drawn from softmax(e), and only its value is read (Xu et al. 2015, section 4.1).

    The weights are the probabilities. No gradient goes through a draw: the loss has to add
    (log p(y) - baseline) grad log p(slot). Evaluation takes the most probable slot.

    soft_rate: how probable it is that all queries of a batch get the expectation, the whole softmax, instead
    of a draw, which lowers the variance. The coin is thrown in first(), once for each batch, and kept in
    past.belief: ones for the expectation.
    """

    def __init__(
        self, query_size: int = 1, heads: int = 1, *, soft_rate: Annotated[float, Ge(0), Lt(1)] = 0.5
    ) -> None:
        super().__init__(query_size, heads)
        self.soft_rate = soft_rate

    def initial_state(self, zeros: Float[Tensor, "*b S"]) -> Float[Tensor, "*b S"] | None:
        """Ones if this batch gets the expectation, else zeros."""
        if not self.training:
            return zeros
        return zeros + (torch.rand((), device=zeros.device) < self.soft_rate)

    def sample(self, weights: Float[Tensor, "*b T S"], past: Past) -> Float[Tensor, "*b T S"] | None:
        """One-hot (..., T, S), zeros where nothing may be seen; the weights if the batch gets those."""
        if not self.training:
            return _one_hot(weights) * (weights > 0)
        # Exponential race: the largest p / E is slot s with the probability p_s, and p = 0 never wins.
        drawn = _one_hot(weights / _exponential(weights)) * (weights > 0)
        if past.alignment_state is None:
            return drawn
        return torch.where(past.alignment_state[..., None, :1] > 0, weights, drawn)

    def fused(
        self, dot: Tensor, memory: Memory, bias: Tensor | None, dropout: float
    ) -> Float[Tensor, "*b T V"] | None:
        """None: a kernel gives the expectation."""
        return None


def _exponential(like: Tensor) -> Tensor:
    """Draws from Exp(1), never 0; -log of them is Gumbel noise."""
    return torch.empty_like(like).exponential_().clamp(min=torch.finfo(like.dtype).tiny)


def _one_hot(x: Tensor) -> Tensor:
    """One at the largest of each row, the first of equals; without gradient."""
    return torch.zeros_like(x).scatter(-1, x.argmax(-1, keepdim=True), 1.0)


def _straight_through(scores: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Exactly one-hot, with the gradient of the weights."""
    hidden = masked(scores.detach(), mask)
    # The bracket first: (one-hot + p) - p is not exactly one-hot.
    return _one_hot(hidden) * mask + (weights - weights.detach())
