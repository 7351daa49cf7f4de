"""Scores of places, whatever stands there."""

from typing import Annotated

import torch.nn.functional as F
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor, nn

from seq2attn.attention.attention import Past, Scorer


class Location(Scorer):
    """W q [+ b], one number for each place, whatever stands there (Luong et al. 2015, "location").

    length: how many places it knows; those behind get a score that no other is below, so that they are looked
    at only where no place that it knows may be seen. bias: places have a score of their own, which does not
    cancel as it is not the same for all.
    """

    position_dependent = True
    allows_talking_heads = False

    def __init__(
        self, query_size: int, key_size: int, *, length: Annotated[int, Ge(1)] = 100, bias: bool = False
    ) -> None:
        super().__init__()
        self.place = nn.Linear(query_size, length, bias=bias)

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S 0"]:
        """Nothing but how many there are."""
        return states[..., :0]

    def forward(
        self, query: Float[Tensor, "*b T Q"], keys: Float[Tensor, "*b S K"], past: Past
    ) -> Float[Tensor, "*b T S"]:
        """See the class."""
        slots = keys.shape[-2]
        scores = self.place(query)[..., :slots]
        return F.pad(scores, (0, slots - scores.shape[-1]), value=NEVER)


NEVER = -1e9  # finite, so that a source that is seen behind all known places alone gives no nan
