"""Local attention: a window of source positions (Luong et al. 2015, section 3.2).

Positions are counted from 0. A row ends after its last unmasked position, however much padding follows.
"""

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from seq2attn.attention.interfaces import Normalizer
from seq2attn.attention.memory import Past
from seq2attn.attention.normalizers.dense import mask_scores


def positions(scores: Float[Tensor, "*b S"]) -> Int[Tensor, " S"]:
    """Return the source positions 0, 1, ..., S-1."""
    return torch.arange(scores.shape[-1], device=scores.device)


def lengths(mask: Bool[Tensor, "*c S"]) -> Int[Tensor, "*c 1"]:
    """Return the length of each row: the last unmasked position + 1; 0 where there is none."""
    return (mask * torch.arange(1, mask.shape[-1] + 1, device=mask.device)).amax(-1, keepdim=True)


class LocalM(Normalizer):
    """Softmax over the window |s - p_t| <= reach with p_t = min(round(t pace), length - 1).

    Local-m of Luong et al. (2015): the window moves along the source at a steady pace. t counts the queries
    from 0; `pace` is the number of positions from query to query (1 in the paper; source length / target
    length elsewhere). A window always includes p_t; if a mask with gaps hides all its positions, its weights
    are 0.
    """

    ordered = position_dependent = True

    def __init__(
        self,
        query_size: int = 1,
        heads: int = 1,
        *,
        reach: Annotated[int, Ge(0)] = 10,
        pace: Annotated[float, Gt(0)] = 1.0,
    ) -> None:
        super().__init__(query_size, heads)
        self.reach, self.pace = reach, pace

    def forward(
        self,
        scores: Float[Tensor, "*b T S"],
        mask: Bool[Tensor, "*c M S"],
        past: Past,
        query: Float[Tensor, "*b T Q"],
    ) -> Float[Tensor, "*b T S"]:
        """See the class."""
        steps = past.step + torch.arange(scores.shape[-2], device=scores.device)[:, None]
        centre = (steps * self.pace + 0.5).floor().long().minimum(lengths(mask) - 1)
        window = mask & ((positions(scores) - centre).abs() <= self.reach)
        return mask_scores(scores, window).softmax(-1) * window


class LocalP(Normalizer):
    """Softmax over the window |s - floor(p_t)| <= reach, times exp(-(s - p_t)^2 / (2 sigma^2)).

    Local-p of Luong et al. (2015, eq. 9-10): p_t = length sigmoid(v . tanh(W q)) and sigma = reach / 2. The
    window is centred on a whole position, at most the last; so W and v get gradients from the Gaussian alone.
    If the window falls into a gap of the mask, all its weights are 0.

    size: width of the hidden layer (the query's size if None). renormalise: divide the product by its sum,
    which is softmax(score - (s - p_t)^2 / (2 sigma^2)) over the window; the paper does not, so its weights
    sum to less than one.
    """

    position_dependent = True
    sums_to_one = False

    def __init__(
        self,
        query_size: int = 1,
        heads: int = 1,
        *,
        reach: Annotated[int, Ge(1)] = 10,
        size: Annotated[int, Ge(1)] | None = None,
        renormalise: bool = False,
    ) -> None:
        super().__init__(query_size, heads)
        self.reach, self.sums_to_one = reach, renormalise
        self.hidden = nn.Linear(query_size, query_size if size is None else size, bias=False)
        self.place = nn.Linear(self.hidden.out_features, 1, bias=False)

    def forward(
        self,
        scores: Float[Tensor, "*b T S"],
        mask: Bool[Tensor, "*c M S"],
        past: Past,
        query: Float[Tensor, "*b T Q"],
    ) -> Float[Tensor, "*b T S"]:
        """See the class."""
        length = lengths(mask)  # (..., M, 1)
        centre = length * self.place(self.hidden(query).tanh()).sigmoid()
        middle = centre.floor().long().minimum(length - 1)
        window = mask & ((positions(scores) - middle).abs() <= self.reach)
        log_gaussian = -2 * ((positions(scores) - centre) / self.reach) ** 2  # as sigma = reach / 2
        scores = scores + log_gaussian if self.sums_to_one else scores
        weights: Tensor = mask_scores(scores, window).softmax(-1) * window
        return weights if self.sums_to_one else weights * log_gaussian.exp()
