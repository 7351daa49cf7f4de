"""Scores of source positions that do not depend on the keys."""

from typing import Annotated

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor, nn

from seq2attn.attention.interfaces import Scorer
from seq2attn.attention.memory import Past


class Location(Scorer):
    """W q [+ b], a score for each source position, independent of its key (Luong et al. 2015, "location").

    length: the number of positions with a score. Positions beyond get a score below any other, so that they
    have weight only where all positions before them are masked. bias: a learned score for each position; as
    positions differ in it, it does not cancel in a softmax.
    """

    position_dependent = True
    allows_talking_heads = False

    def __init__(
        self, query_size: int, key_size: int, *, length: Annotated[int, Ge(1)] = 100, bias: bool = False
    ) -> None:
        super().__init__()
        self.place = nn.Linear(query_size, length, bias=bias)

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S 0"]:
        """Return empty keys: only their number matters."""
        return states[..., :0]

    def forward(
        self, query: Float[Tensor, "*b T Q"], keys: Float[Tensor, "*b S K"], past: Past
    ) -> Float[Tensor, "*b T S"]:
        """See the class."""
        scores, positions = self.place(query), torch.arange(keys.shape[-2], device=query.device)
        size = scores.shape[-1]
        known: Tensor = scores.index_select(-1, positions.clamp(max=size - 1))
        return known.masked_fill(positions >= size, LOWEST)


LOWEST = -1e9  # finite, so that there is no nan if only positions beyond `length` are unmasked
