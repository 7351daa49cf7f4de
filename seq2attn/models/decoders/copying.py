"""Copying: a step may say a piece of the source, also one that the vocabulary does not know.

The pointer-generator (See et al. 2017, "Get To The Point"), for every decoder with attention:

    P(w) = g P_vocab(w) + (1 - g) sum_{i: slot i copies w} a_i    (eq. 9)
    g = sigmoid(w [context; state; word] + b)                     (eq. 8)

Ids from the vocabulary's size V on stand for pieces that it lacks: V + i for the one in slot i of the source.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class Copies(NamedTuple):
    """What the slots of a source copy. Batch first, so that a search can reorder it."""

    ids: Tensor  # (B, S), in the vocabulary; or V + the first slot of its kind
    first: Tensor  # (B, S), the first slot with the same id

    @classmethod
    def of(cls, ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> "Copies":
        """Once per source; under the mask stands nothing that could be copied."""
        ids = ids * mask
        same = ids.unsqueeze(-1) == ids.unsqueeze(-2)
        return cls(ids, same.byte().argmax(-1))


class PointerGenerator(nn.Module):
    """The gate between generating and copying, and the mixture of the two.

    size: of [context; state; word] together;
    layer, head: whose weights on the source say what is copied, from 0; head None: the mean of the heads.
    """

    def __init__(self, size: int, layer: int = 0, head: int | None = None) -> None:
        super().__init__()
        self.gate, self.layer, self.head = nn.Linear(size, 1), layer, head

    def forward(
        self,
        logits: Float[Tensor, "B T V"],
        asked: Sequence[Float[Tensor, "B T _"]],
        weights: Float[Tensor, "B *h T S"],
        copies: Copies,
    ) -> tuple[Float[Tensor, "B T W"], Float[Tensor, "B T"]]:
        """Logits (B, T, V + S) of the mixture, and g (B, T); asked: context, state and word.

        With g = 1 the first V are the logits that came in. An id beyond V that a sentence does not have is
        impossible, -inf. Who sees nothing copies nothing. All is float32 at least, also under autocast.
        """
        with torch.autocast(logits.device.type, enabled=False):
            kind = self.gate.weight.dtype
            odds = self.gate(torch.cat([part.to(kind) for part in asked], -1))
            looked = self.looks(weights)
            odds = odds.masked_fill(~(looked > 0).any(-1, keepdim=True), float("inf"))
            ids, first = (part.unsqueeze(1).expand_as(looked) for part in copies)
            mass = torch.zeros_like(looked).scatter_add(-1, first, looked).gather(-1, first)
            log_mass = mass.clamp(min=torch.finfo(mass.dtype).tiny).log().to(kind)
            own = first == torch.arange(first.shape[-1], device=first.device)
            mixed: Tensor = _Mixture.apply(logits.to(kind), odds, log_mass, ids, own)  # type: ignore[no-untyped-call]
        return mixed, odds.squeeze(-1).sigmoid()

    def looks(self, weights: Float[Tensor, "B *h T S"]) -> Float[Tensor, "B T S"]:
        """The weights of its layer, with or without heads, as it reads them."""
        if weights.dim() == 3:
            return weights
        return weights.mean(1) if self.head is None else weights[:, self.head]

    @torch.no_grad()
    def copied(
        self,
        gate: Float[Tensor, "B T"],
        weights: Float[Tensor, "B H T S"],
        copies: Int[Tensor, "B S"],
        gold: Int[Tensor, "B T"],
        log_probability: Float[Tensor, "B T"],
    ) -> Float[Tensor, "B T"]:
        """How much of each gold token's probability was copied: (1 - g) sum_{i: i copies it} a_i / P."""
        there = copies.unsqueeze(1) == gold.unsqueeze(2)
        mass = (self.looks(weights) * there).sum(-1) * (1 - gate)
        return (mass.log() - log_probability).exp().clamp(max=1.0)


class _Mixture(torch.autograd.Function):
    """logits l, odds z of generating, log masses m -> the logits of the mixture.

    Up to the constant log(sum exp l / g), log P(w) is l_w where nothing copies w, and else
    logaddexp(l_w, logsumexp(l) - z + m_w): as (1 - g) / g = exp(-z), only the S entries that are copied
    differ from l. Written out since composed operations would pass over the vocabulary four times more.
    Slots that copy the same have the same mass; only the first (`own`) has its gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Float[Tensor, "B T V"],
        odds: Float[Tensor, "B T 1"],
        log_mass: Float[Tensor, "B T S"],
        ids: Int[Tensor, "B T S"],
        own: Bool[Tensor, "B T S"],
    ) -> Float[Tensor, "B T W"]:
        total = logits.logsumexp(-1, keepdim=True)
        wide = F.pad(logits, (0, ids.shape[-1]), value=float("-inf"))
        copied = total - odds + log_mass
        mixed = torch.logaddexp(wide.gather(-1, ids), copied)
        wide.scatter_(-1, ids, mixed)
        share = torch.where(own & odds.isfinite(), (copied - mixed).exp(), 0.0)
        ctx.save_for_backward(logits, total, ids, share)
        return wide

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        logits, total, ids, share = ctx.saved_tensors
        size = logits.shape[-1]
        copied = grad.gather(-1, ids) * share
        through = copied.sum(-1, keepdim=True)
        gradient = (logits - total).exp_().mul_(through).add_(grad[..., :size])
        gradient.scatter_add_(-1, ids.clamp(max=size - 1), -copied.masked_fill(ids >= size, 0.0))
        return gradient, -through, copied, None, None
