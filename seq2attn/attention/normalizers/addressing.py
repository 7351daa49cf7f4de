"""Addressing by content and by location together (Graves et al. 2014, section 3.3)."""

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seq2attn.attention.interfaces import Normalizer
from seq2attn.attention.memory import Past
from seq2attn.attention.normalizers.dense import mask_scores
from seq2attn.attention.normalizers.local import lengths, positions
from seq2attn.attention.normalizers.monotonic import first_position, previous_state


class NTM(Normalizer):
    """The four stages of a Neural Turing Machine's head (Graves et al. 2014, eq. 5-9).

    content     w^c = softmax(scores); a cosine scorer with a strength from the query gives beta cos(q, k)
    gate        w^g = g w^c + (1 - g) w_{t-1},  g = sigmoid(w_g . q + b_g)
    shift       w~_i = sum_o s_o w^g_{i-o},  s = softmax(W_s q + b_s) over offsets o = -r ... r
    sharpening  w_i = w~_i^gamma / sum_j w~_j^gamma,  gamma = 1 + softplus(w_gamma . q + b_gamma)

    The source is a ring of each row's own length; `circular` False: weight that leaves it at an end is lost,
    and the rest is renormalised to sum to 1. Offset 1 shifts to the next position. Before the first query,
    all weight is on position 0. A shift counts positions in the gaps of a mask, but they get no weight.

    shifts: r; a step holds 2 r + 1 numbers for every position.
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
        """Return all weight on the first position."""
        return first_position(zeros)

    def forward(
        self,
        scores: Float[Tensor, "*b 1 S"],
        mask: Bool[Tensor, "*c 1 S"],
        past: Past,
        query: Float[Tensor, "*b 1 Q"],
    ) -> Float[Tensor, "*b 1 S"]:
        """Return the weights; Seq2attnError without a `past.alignment_state`."""
        content = mask_scores(scores, mask).softmax(-1)
        gate = self.gate(query).sigmoid()
        gated = gate * content + (1 - gate) * previous_state(self, past)
        shifted = self.shifted(gated, mask, query)
        gamma = 1 + F.softplus(self.sharpen(query))
        # In logarithms, as a power of small weights underflows; the floor keeps the gradient at 0 finite.
        sharp = gamma * shifted.clamp(min=torch.finfo(shifted.dtype).tiny).log()
        weights: Tensor = mask_scores(sharp, mask).softmax(-1)
        return weights * mask

    def step(
        self,
        scores: Float[Tensor, "*b 1 S"],
        mask: Bool[Tensor, "*c 1 S"],
        past: Past,
        query: Float[Tensor, "*b 1 Q"],
    ) -> tuple[Float[Tensor, "*b 1 S"], Float[Tensor, "*b S"]]:
        """Return the weights, which are the next alignment state; an all-masked row keeps the old state."""
        weights = self(scores, mask, past, query)
        state = torch.where(mask.any(-1, keepdim=True), weights, previous_state(self, past))
        return weights, state.squeeze(-2)

    def shifted(
        self, weights: Float[Tensor, "*b 1 S"], mask: Bool[Tensor, "*c 1 S"], query: Float[Tensor, "*b 1 Q"]
    ) -> Float[Tensor, "*b 1 S"]:
        """Return the convolution with the shifts, along each row's own length."""
        probabilities: Tensor = self.shift(query).softmax(-1)  # (..., 1, offsets)
        offsets = torch.arange(-self.shifts, self.shifts + 1, device=weights.device)
        origins = positions(weights)[:, None] - offsets  # (S, offsets): where the weight of each comes from
        length = lengths(mask).clamp(min=1).unsqueeze(-1)
        inside = self.circular | ((origins >= 0) & (origins < length))  # (..., 1, S, offsets)
        expanded = weights.unsqueeze(-1).expand(*weights.shape, len(offsets))
        gathered = expanded.gather(-2, (origins % length).expand_as(expanded)) * inside
        return (gathered * probabilities.unsqueeze(-2)).sum(-1)
