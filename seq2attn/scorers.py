"""Scorers: (..., T, Q) queries and (..., S, K) keys -> (..., T, S) scores.

To add one: write the class, add its line to SCORERS. Keyword-only parameters are its options in a recipe.
"""

import math
from typing import Annotated

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor, nn

from seq2attn.attention import Past, Scorer
from seq2attn.errors import Seq2attnError


class Dot(Scorer):
    """q . k (Luong et al. 2015)."""

    def __init__(self, query_size: int, key_size: int) -> None:
        super().__init__()
        if query_size != key_size:
            raise Seq2attnError(
                f"{type(self).__name__} needs queries and keys of one size, got {query_size} and {key_size}; "
                "use general or additive, or make the sizes equal"
            )

    def dot(self, query: Float[Tensor, "*b T Q"]) -> Float[Tensor, "*b T Q"] | None:
        """q."""
        return query


class ScaledDot(Dot):
    """q . k / sqrt(d) with d the size of one head (Vaswani et al. 2017)."""

    def dot(self, query: Float[Tensor, "*b T Q"]) -> Float[Tensor, "*b T Q"] | None:
        """q / sqrt(d)."""
        return query / math.sqrt(query.shape[-1])


class General(Scorer):
    """q . W k (Luong et al. 2015); W k is made once per source."""

    def __init__(self, query_size: int, key_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(key_size, query_size, bias=False)

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S K"]:
        """W k."""
        return self.project(states)  # type: ignore[no-any-return]

    def dot(self, query: Float[Tensor, "*b T Q"]) -> Float[Tensor, "*b T Q"] | None:
        """q."""
        return query


class Additive(Scorer):
    """v . tanh(W q + U k [+ b]) (Bahdanau et al. 2015, A.1.2); U k is made once per source.

    size: width of the hidden layer (the query's size if None); bias: whether there is a b.
    """

    def __init__(
        self, query_size: int, key_size: int, *, size: Annotated[int, Ge(1)] | None = None, bias: bool = False
    ) -> None:
        super().__init__()
        size = query_size if size is None else size
        self.query = nn.Linear(query_size, size, bias=False)
        self.key = nn.Linear(key_size, size, bias=bias)
        self.energy = nn.Linear(size, 1, bias=False)

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S K"]:
        """U k + b."""
        return self.key(states)  # type: ignore[no-any-return]

    def forward(
        self, query: Float[Tensor, "*b T Q"], keys: Float[Tensor, "*b S A"], past: Past
    ) -> Float[Tensor, "*b T S"]:
        """See the class; memory (..., T, S, A)."""
        together = self.query(query).unsqueeze(-2) + keys.unsqueeze(-3)
        return self.energy(torch.tanh(together)).squeeze(-1)  # type: ignore[no-any-return]


class Concat(Additive):
    """v . tanh(W [q; k]) (Luong et al. 2015): additive scoring with W = [W_q | W_k], by its other name."""


SCORERS: dict[str, type[Scorer]] = {
    "additive": Additive,
    "concat": Concat,
    "dot": Dot,
    "general": General,
    "scaled_dot": ScaledDot,
}
