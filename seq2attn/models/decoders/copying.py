"""Copying: a step may generate a piece of the source, even if the vocabulary does not have it.

The pointer-generator (See et al. 2017, "Get To The Point"), for every decoder with attention:

    P(w) = g P_vocab(w) + (1 - g) sum_{i: position i copies w} a_i    (eq. 9)
    g = sigmoid(w [context; state; word] + b)                         (eq. 8)

Ids from the vocabulary's size V on stand for pieces that it lacks: V + i for the piece at source position i.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from seq2attn.attention.precision import full_precision


class CopySource(NamedTuple):
    """The ids that the positions of a source copy. Batch first, so that a search can reorder it."""

    ids: Tensor  # (B, S), in the vocabulary; or V + the first position of the same piece
    first: Tensor  # (B, S), the first position with the same id

    @classmethod
    def of(cls, ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> "CopySource":
        """Compute it once per source; nothing can be copied from padding."""
        ids = ids * mask
        same = ids.unsqueeze(-1) == ids.unsqueeze(-2)  # (B, S, S)
        return cls(ids, same.byte().argmax(-1))


class PointerGenerator(nn.Module):
    """The gate between generating and copying, and the mixture of the two distributions.

    size: the width of [context; state; word];
    layer, head: the cross-attention whose weights are the distribution over source positions, from 0; head
    None: the mean of the heads.
    """

    def __init__(self, size: int, layer: int = 0, head: int | None = None) -> None:
        super().__init__()
        self.gate, self.layer, self.head = nn.Linear(size, 1), layer, head

    def forward(
        self,
        logits: Float[Tensor, "B T V"],
        gate_inputs: Sequence[Float[Tensor, "B T _"]],
        weights: Float[Tensor, "B *h T S"],
        source: CopySource,
    ) -> tuple[Float[Tensor, "B T W"], Float[Tensor, "B T"]]:
        """Return the logits (B, T, V + S) of the mixture, and g (B, T).

        gate_inputs: context, state and word.

        With g = 1 the first V are the given logits. An id beyond V that a sentence does not have gets -inf.
        All-masked rows have copy probability 0. Everything is float32 or wider, also under autocast.
        """
        with full_precision(logits.device):
            dtype = self.gate.weight.dtype
            gate_logit = self.gate(torch.cat([part.to(dtype) for part in gate_inputs], -1))  # (B, T, 1)
            weights = self.select_head(weights)  # (B, T, S)
            gate_logit = gate_logit.masked_fill(~(weights > 0).any(-1, keepdim=True), float("inf"))
            ids = source.ids.unsqueeze(1).expand_as(weights)  # (B, T, S)
            first = source.first.unsqueeze(1).expand_as(weights)  # (B, T, S)
            # (B, T, S): at each position, the weights of all positions with the same id
            mass = torch.zeros_like(weights).scatter_add(-1, first, weights).gather(-1, first)
            log_mass = mass.clamp(min=torch.finfo(mass.dtype).tiny).log().to(dtype)  # (B, T, S)
            is_first = first == torch.arange(first.shape[-1], device=first.device)  # (B, T, S)
            mixed: Tensor = _Mixture.apply(logits.to(dtype), gate_logit, log_mass, ids, is_first)  # type: ignore[no-untyped-call]
        return mixed, gate_logit.squeeze(-1).sigmoid()

    def select_head(self, weights: Float[Tensor, "B *h T S"]) -> Float[Tensor, "B T S"]:
        """Return the weights of `head` (the mean of all heads if None) from the weights of its layer."""
        if weights.dim() == 3:
            return weights
        return weights.mean(1) if self.head is None else weights[:, self.head]

    @torch.no_grad()
    def copied(
        self,
        gate: Float[Tensor, "B T"],
        weights: Float[Tensor, "B H T S"],
        copy_ids: Int[Tensor, "B S"],
        target: Int[Tensor, "B T"],
        log_probability: Float[Tensor, "B T"],
    ) -> Float[Tensor, "B T"]:
        """Return the share of each target token's probability that was copied, (1 - g) sum_{i: i copies it}
        a_i / P."""
        same = copy_ids.unsqueeze(1) == target.unsqueeze(2)  # (B, T, S)
        mass = (self.select_head(weights) * same).sum(-1) * (1 - gate)  # (B, T)
        return (mass.log() - log_probability).exp().clamp(max=1.0)


class _Mixture(torch.autograd.Function):
    """The logits of the mixture from logits l, gate logits z and log masses m.

    Up to the constant log(sum exp l / g), log P(w) is l_w where no position copies w, and else
    logaddexp(l_w, logsumexp(l) - z + m_w): as (1 - g) / g = exp(-z), only the S entries that are copied
    differ from l. Forward and backward are written out, because composed operations would pass over the
    vocabulary four more times. Positions that copy the same id have the same mass; only the first one passes
    its gradient on.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Float[Tensor, "B T V"],
        gate_logit: Float[Tensor, "B T 1"],
        log_mass: Float[Tensor, "B T S"],
        ids: Int[Tensor, "B T S"],
        is_first: Bool[Tensor, "B T S"],
    ) -> Float[Tensor, "B T W"]:
        total = logits.logsumexp(-1, keepdim=True)  # (B, T, 1)
        wide = F.pad(logits, (0, ids.shape[-1]), value=float("-inf"))  # (B, T, V + S)
        copied = total - gate_logit + log_mass  # (B, T, S)
        mixed = torch.logaddexp(wide.gather(-1, ids), copied)  # (B, T, S)
        wide.scatter_(-1, ids, mixed)
        share = torch.where(is_first & gate_logit.isfinite(), (copied - mixed).exp(), 0.0)  # (B, T, S)
        ctx.save_for_backward(logits, total, ids, share)
        return wide

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        logits, total, ids, share = ctx.saved_tensors
        size = logits.shape[-1]  # V
        copied = grad.gather(-1, ids) * share  # (B, T, S)
        copied_sum = copied.sum(-1, keepdim=True)  # (B, T, 1)
        gradient = (logits - total).exp_().mul_(copied_sum).add_(grad[..., :size])  # (B, T, V)
        gradient.scatter_add_(-1, ids.clamp(max=size - 1), -copied.masked_fill(ids >= size, 0.0))
        return gradient, -copied_sum, copied, None, None
