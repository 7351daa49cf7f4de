"""Additive scores: a hidden layer over query and key together."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seq2attn.attention.interfaces import Scorer
from seq2attn.attention.memory import Past
from seq2attn.errors import Seq2attnError


class Additive(Scorer):
    """v . tanh(W q + U k [+ b]) (Bahdanau et al. 2015, A.1.2); U k is made once per source.

    size: width of the hidden layer (the query's size if None); bias: whether there is a b.
    normalize: g v/|v| in the place of v, with g = 1/sqrt(size) at the start.
    score_bias: the initial value of a learned r that is added to all scores; it matters to some normalizers
    (in a softmax it cancels). The hidden layer is (..., T, S, size), or `budget` numbers if that is less.
    """

    renamed: ClassVar[Mapping[str, str]] = {**Scorer.renamed, "inside": "key_term"}
    # The largest hidden layer, in numbers: a larger one is computed in chunks, and again for the gradient.
    budget = 2**26

    def __init__(
        self,
        query_size: int,
        key_size: int,
        *,
        size: Annotated[int, Ge(1)] | None = None,
        bias: bool = False,
        normalize: bool = False,
        score_bias: float | None = None,
    ) -> None:
        super().__init__()
        size = query_size if size is None else size
        self.query = nn.Linear(query_size, size, bias=False)
        self.key: nn.Module = nn.Linear(key_size, size, bias=bias)
        self.energy = nn.Linear(size, 1, bias=False)
        self.gain = nn.Parameter(torch.tensor(size**-0.5)) if normalize else None
        self.score_bias = None if score_bias is None else nn.Parameter(torch.tensor(float(score_bias)))

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S K"]:
        """Return U k + b, followed by the features of k that a subclass needs."""
        return self.key(states)  # type: ignore[no-any-return]

    def key_term(self, keys: Float[Tensor, "*b S K"], past: Past) -> Float[Tensor, "*b S A"]:
        """Return the term that is added to W q inside the tanh; a subclass adds to it."""
        return keys

    def forward(
        self, query: Float[Tensor, "*b T Q"], keys: Float[Tensor, "*b S K"], past: Past
    ) -> Float[Tensor, "*b T S"]:
        """See the class."""
        query_term, key_term = self.query(query), self.key_term(keys, past)  # (..., T, A), (..., S, A)
        vector = self.energy.weight
        if self.gain is not None:
            vector = self.gain * F.normalize(vector, dim=-1)
        queries = max(1, self.budget // max(1, key_term.numel()))
        if queries >= query_term.shape[-2]:
            scores = _scores(query_term, key_term, vector)
        else:
            chunks = query_term.split(queries, dim=-2)
            scores = torch.cat([_recomputed_scores(chunk, key_term, vector) for chunk in chunks], -2)
        return scores if self.score_bias is None else scores + self.score_bias


class Concat(Additive):
    """v . tanh(W [q; k] [+ b]) (Luong et al. 2015): additive scoring with W = [W_q | W_k].

    key_identity: W_k is the identity, as in the runs that the paper reports; it needs size = key_size.
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        *,
        size: Annotated[int, Ge(1)] | None = None,
        bias: bool = False,
        key_identity: bool = False,
    ) -> None:
        if key_identity and size is None:
            size = key_size
        super().__init__(query_size, key_size, size=size, bias=bias)
        if key_identity:
            if size != key_size:
                raise Seq2attnError(
                    f"Concat with key_identity adds keys as they are: expected size {key_size} (that of the "
                    f"keys), got {size}; leave size away, or set key_identity: false"
                )
            self.key = nn.Identity()
            self.query = nn.Linear(query_size, size, bias=bias)


def _scores(
    query: Float[Tensor, "*b T A"], keys: Float[Tensor, "*b S A"], vector: Float[Tensor, "1 A"]
) -> Float[Tensor, "*b T S"]:
    """Return v . tanh(q + k); the hidden layer is (..., T, S, A)."""
    return F.linear(torch.tanh(query.unsqueeze(-2) + keys.unsqueeze(-3)), vector).squeeze(-1)


def _recomputed_scores(query: Tensor, keys: Tensor, vector: Tensor) -> Tensor:
    """Return the same, but recompute the hidden layer in the backward pass instead of keeping it."""
    if not torch.is_grad_enabled():
        return _scores(query, keys, vector)
    scores: Tensor = checkpoint(_scores, query, keys, vector, use_reentrant=False, preserve_rng_state=False)
    return scores
