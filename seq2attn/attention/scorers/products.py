"""Scores that are dot products of a function of the query with a function of the key.

The function of the key is computed once per source, and a fused kernel can be used where no weights are
needed.
"""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor, nn

from seq2attn.attention.interfaces import Scorer
from seq2attn.attention.memory import Past
from seq2attn.errors import Seq2attnError


class Dot(Scorer):
    """q . k (Luong et al. 2015)."""

    def __init__(self, query_size: int, key_size: int) -> None:
        super().__init__()
        require_equal_sizes(self, query_size, key_size)

    def dot(self, query: Float[Tensor, "*b T Q"]) -> Float[Tensor, "*b T Q"] | None:
        """Return q."""
        return query


class ScaledDot(Dot):
    """q . k / sqrt(d) with d the size of one head (Vaswani et al. 2017); q . k itself has variance d."""

    def dot(self, query: Float[Tensor, "*b T Q"]) -> Float[Tensor, "*b T Q"] | None:
        """Return q / sqrt(d)."""
        return query / math.sqrt(query.shape[-1])


class General(Scorer):
    """q . W k (Luong et al. 2015); W k is computed once per source.

    rank: W = P^T Q with P and Q of `rank` rows, so the score is (P q) . (Q k) (None: W is full).
    """

    def __init__(self, query_size: int, key_size: int, *, rank: Annotated[int, Ge(1)] | None = None) -> None:
        super().__init__()
        self.project = nn.Linear(key_size, query_size if rank is None else rank, bias=False)
        self.query = None if rank is None else nn.Linear(query_size, rank, bias=False)

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S K"]:
        """Return W k, or Q k."""
        return self.project(states)  # type: ignore[no-any-return]

    def dot(self, query: Float[Tensor, "*b T Q"]) -> Float[Tensor, "*b T K"] | None:
        """Return q, or P q."""
        return query if self.query is None else self.query(query)


class Cosine(Scorer):
    """g cos(q, k) with g > 0, so that scores are in [-g, g]; the cosine of a zero vector is 0.

    sharpness: the initial g. strength: g is `learned` (Henry et al. 2020, with heads: QK-norm), `fixed`, or
    computed from the `query` as softplus(w . q + b) (Graves et al. 2014, the Neural Turing Machine).
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        *,
        sharpness: Annotated[float, Gt(0)] = 10.0,
        strength: Literal["learned", "fixed", "query"] = "learned",
    ) -> None:
        super().__init__()
        require_equal_sizes(self, query_size, key_size)
        self.strength = nn.Linear(query_size, 1, bias=False) if strength == "query" else None
        start = math.log(sharpness)
        if self.strength is not None:
            start = sharpness + math.log(-math.expm1(-sharpness))  # its softplus is the sharpness
        self.start = nn.Parameter(torch.tensor(start), strength != "fixed")  # log g, or b

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S D"]:
        """Return k / |k|."""
        return F.normalize(states, dim=-1, eps=SHORTEST)

    def dot(self, query: Float[Tensor, "*b T Q"]) -> Float[Tensor, "*b T Q"] | None:
        """Return g q / |q|."""
        if self.strength is None:
            sharpness = self.start.exp()
        else:
            sharpness = F.softplus(self.strength(query) + self.start)
        return sharpness * F.normalize(query, dim=-1, eps=SHORTEST)


class Gaussian(Scorer):
    """-|q - k|^2 / (2 sigma^2): with the softmax, the smoother of Nadaraya (1964) and Watson (1964).

    width: the initial sigma (None: d^1/4, which scores keys of equal length as scaled_dot does);
    learned: whether it is learned; project: compare with W k, so that sizes may differ.
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        *,
        width: Annotated[float, Gt(0)] | None = None,
        learned: bool = True,
        project: bool = False,
    ) -> None:
        super().__init__()
        self.project = nn.Linear(key_size, query_size, bias=False) if project else None
        if self.project is None:
            require_equal_sizes(self, query_size, key_size, "give it project: true")
        start = math.log(query_size) / 4 if width is None else math.log(width)
        self.log_width = nn.Parameter(torch.tensor(start), learned)

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S K"]:
        """Return k, or W k."""
        return states if self.project is None else self.project(states)

    def forward(
        self, query: Float[Tensor, "*b T Q"], keys: Float[Tensor, "*b S K"], past: Past
    ) -> Float[Tensor, "*b T S"]:
        """See the class. It is not written as the dot product of [q, -1/2, -|q|^2 / 2] and [k, |k|^2, 1], as
        the squares of far points cancel and leave only rounding errors."""
        distances = torch.cdist(query, keys, compute_mode="donot_use_mm_for_euclid_dist")
        return -distances.square() / 2 * (-2 * self.log_width).exp()


class Linear(Scorer):
    """phi(q) . phi(k) with phi(x) = elu(x) + 1 > 0 (Katharopoulos et al. 2020).

    With the normalizer `sum` this is the linear attention of the paper.
    """

    positive = True

    def __init__(self, query_size: int, key_size: int) -> None:
        super().__init__()
        require_equal_sizes(self, query_size, key_size)

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S D"]:
        """Return phi(k)."""
        return phi(states)

    def dot(self, query: Float[Tensor, "*b T Q"]) -> Float[Tensor, "*b T Q"] | None:
        """Return phi(q)."""
        return phi(query)


def phi(x: Tensor) -> Tensor:
    """Return elu(x) + 1, without the rounding of exp(x) - 1 + 1."""
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


class Perceptron(Scorer):
    """q . tanh(W k [+ b]): a query is compared with a hidden layer over the key.

    With a learned q the pooling of Yang et al. (2016); without b, that of Lin et al. (2017).
    """

    def __init__(self, query_size: int, key_size: int, *, bias: bool = True) -> None:
        super().__init__()
        self.key = nn.Linear(key_size, query_size, bias=bias)

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S K"]:
        """Return tanh(W k + b)."""
        return self.key(states).tanh()  # type: ignore[no-any-return]

    def dot(self, query: Float[Tensor, "*b T Q"]) -> Float[Tensor, "*b T Q"] | None:
        """Return q."""
        return query


class Trilinear(Scorer):
    """w . [q; k; q * k] = w1 . q + w2 . k + (w3 * q) . k (Seo et al. 2017); [q; k; q * k] is never built."""

    def __init__(self, query_size: int, key_size: int) -> None:
        super().__init__()
        require_equal_sizes(self, query_size, key_size)
        self.weight = nn.Parameter(torch.empty(3, query_size))  # w1, w2, w3
        bound = 1 / math.sqrt(3 * query_size)  # as torch starts a linear layer on [q; k; q * k]
        nn.init.uniform_(self.weight, -bound, bound)

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S K"]:
        """Return [k, w2 . k, 1]."""
        return torch.cat([states, states @ self.weight[1, :, None], torch.ones_like(states[..., :1])], -1)

    def dot(self, query: Float[Tensor, "*b T Q"]) -> Float[Tensor, "*b T K"] | None:
        """Return [w3 * q, 1, w1 . q]."""
        of_query = query @ self.weight[0, :, None]
        return torch.cat([query * self.weight[2], torch.ones_like(of_query), of_query], -1)


SHORTEST = 1e-6  # a vector shorter than this is divided by it, not by its length


def require_equal_sizes(
    scorer: Scorer, query_size: int, key_size: int, remedy: str = "use general or additive"
) -> None:
    """Raise Seq2attnError unless queries and keys have the same size."""
    if query_size != key_size:
        raise Seq2attnError(
            f"{type(scorer).__name__} needs queries and keys of one size, got {query_size} and {key_size}; "
            f"{remedy}, or make the sizes equal"
        )
