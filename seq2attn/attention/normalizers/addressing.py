"""Addressing by content and by place, together (Graves et al. 2014, section 3.3)."""

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seq2attn.attention.attention import Normalizer, Past
from seq2attn.attention.normalizers.dense import masked
from seq2attn.attention.normalizers.local import lengths, places
from seq2attn.attention.normalizers.monotonic import stands, start


class NTM(Normalizer):
    """The four stages of a Neural Turing Machine's head (Graves et al. 2014, eq. 5-9).

    content     w^c = softmax(scores); a cosine scorer with a strength from the query gives beta cos(q, k)
    gate        w^g = g w^c + (1 - g) w_{t-1},  g = sigmoid(w_g . q + b_g)
    shift       w~_i = sum_o s_o w^g_{i-o},  s = softmax(W_s q + b_s) over offsets o = -r ... r
    sharpening  w_i = w~_i^gamma / sum_j w~_j^gamma,  gamma = 1 + softplus(w_gamma . q + b_gamma)

    The memory is a ring of each row's own length; `circular` False: what leaves it at an end is lost, and the
    rest sums to one again. Offset 1 goes to the next slot. Before the first query it stands at slot 0. Slots
    that a mask with gaps hides count in a shift, but keep nothing.

    shifts: r; a step holds 2 r + 1 numbers for every slot.
    """

    stateful = position_dependent = True

    def __init__(
        self,
        query_size: int = 1,
        heads: int = 1,
        *,
        shifts: Annotated[int, Ge(0), Le(100)] = 1,
        circular: bool = True,
    ) -> None:
        super().__init__(query_size, heads)
        self.shifts, self.circular = shifts, circular
        self.gate = nn.Linear(query_size, 1)
        self.shift = nn.Linear(query_size, 2 * shifts + 1)
        self.sharpen = nn.Linear(query_size, 1)

    def initial_state(self, zeros: Float[Tensor, "*b S"]) -> Float[Tensor, "*b S"]:
        """At the first slot."""
        return start(zeros)

    def forward(
        self,
        scores: Float[Tensor, "*b 1 S"],
        mask: Bool[Tensor, "*c 1 S"],
        past: Past,
        query: Float[Tensor, "*b 1 Q"],
    ) -> Float[Tensor, "*b 1 S"]:
        """The weights; Seq2attnError without a `past.belief`."""
        content = masked(scores, mask).softmax(-1)
        gate = self.gate(query).sigmoid()
        moved = self.moved(gate * content + (1 - gate) * stands(self, past), mask, query)
        gamma = 1 + F.softplus(self.sharpen(query))
        # In logarithms, as a power of small weights underflows; the floor keeps the gradient at 0 finite.
        sharp = gamma * moved.clamp(min=torch.finfo(moved.dtype).tiny).log()
        weights: Tensor = masked(sharp, mask).softmax(-1)
        return weights * mask

    def step(
        self,
        scores: Float[Tensor, "*b 1 S"],
        mask: Bool[Tensor, "*c 1 S"],
        past: Past,
        query: Float[Tensor, "*b 1 Q"],
    ) -> tuple[Float[Tensor, "*b 1 S"], Float[Tensor, "*b S"]]:
        """The weights, which are the next belief; who sees nothing keeps the old one."""
        weights = self(scores, mask, past, query)
        return weights, torch.where(mask.any(-1, keepdim=True), weights, stands(self, past)).squeeze(-2)

    def moved(
        self, weights: Float[Tensor, "*b 1 S"], mask: Bool[Tensor, "*c 1 S"], query: Float[Tensor, "*b 1 Q"]
    ) -> Float[Tensor, "*b 1 S"]:
        """The convolution with the shifts, along each row's own length."""
        chances: Tensor = self.shift(query).softmax(-1)
        offsets = torch.arange(-self.shifts, self.shifts + 1, device=weights.device)
        origins = places(weights)[:, None] - offsets  # (S, offsets): whence each slot gets its mass
        length = lengths(mask).clamp(min=1).unsqueeze(-1)
        inside = self.circular | ((origins >= 0) & (origins < length))  # (..., 1, S, offsets)
        taken = weights.unsqueeze(-1).expand(*weights.shape, len(offsets))
        taken = taken.gather(-2, (origins % length).expand_as(taken)) * inside
        return (taken * chances.unsqueeze(-2)).sum(-1)
