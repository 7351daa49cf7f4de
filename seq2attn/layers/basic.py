"""The small layers that encoders and decoders share: embeddings, dropout, feed-forward, residuals.

Letters: B batch, L positions, D width.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from seq2attn.attention.positions import Position

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),  # its input is not used elsewhere
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


class Dropout(nn.Module):
    """Dropout over (B, L, D) of the three kinds in the papers.

    rate: of single values (Srivastava et al. 2014); with `variational` all L positions of a sentence share
    one mask (Gal & Ghahramani 2016); `word` is the rate at which whole positions are dropped.
    """

    def __init__(self, rate: float, *, variational: bool = False, word: float = 0.0) -> None:
        super().__init__()
        self.rate, self.variational, self.word = rate, variational, word

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Return x; in training, with values dropped and the others scaled up."""
        if not self.training:
            return x
        if self.word:
            x = x * dropped(x.new_ones(*x.shape[:2], 1), self.word)
        if self.variational and self.rate:
            return x * dropped(x.new_ones(x.shape[0], 1, x.shape[2]), self.rate)
        return dropped(x, self.rate)


def dropped(x: Tensor, rate: float) -> Tensor:
    """Return x with values dropped at a rate and the others scaled up, as `F.dropout` does.

    On a CPU random numbers cost more than everything else: there 16 random bits decide on each value, and the
    rate is exact to 1 / 65536.
    """
    n_keep = round((1 - rate) * 2**16)  # of the 2**16 values of 16 bits
    if x.device.type != "cpu" or not 0 < n_keep < 2**16:
        return F.dropout(x, rate)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
    keep = bits.view(torch.int16)[: x.numel()].view(x.shape) < n_keep - 2**15
    return x * keep.to(x.dtype).mul_(2**16 / n_keep)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): in training, the branch of a residual connection is dropped for
    each sample at a rate, and the others are scaled up, so that the expected value is that of evaluation."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Float[Tensor, "B *d"]) -> Float[Tensor, "B *d"]:
        """See the class; of a batch, each row is a sample."""
        if not (self.training and self.rate):
            return branch
        return branch * dropped(branch.new_ones(len(branch), *[1] * (branch.dim() - 1)), self.rate)


def depth_rates(rate: float, depth: int) -> list[float]:
    """Return the rate of `DropPath` in each of `depth` layers: l / depth of `rate` in the l-th, from 1 (Huang
    et al. 2016, eq. 4)."""
    return [rate * layer / depth for layer in range(1, depth + 1)]


class Embedding(nn.Module):
    """Token ids -> vectors, with positions if the model needs them (Transformer).

    scaled: multiply by sqrt(size), as Vaswani et al. 2017 do where the table is tied to the output.
    """

    def __init__(
        self,
        vocabulary: int,
        size: int,
        dropout: Dropout,
        positions: Position | None = None,
        scaled: bool = False,
    ) -> None:
        super().__init__()
        self.size = size
        self.table = nn.Embedding(vocabulary, size)
        nn.init.normal_(self.table.weight, std=size**-0.5)
        self.positions, self.dropout = positions, dropout
        self.scale = size**0.5 if scaled else 1.0
        self.max_length = None if positions is None else positions.max_length

    def forward(self, tokens: Int[Tensor, "B L"], start: int = 0) -> Float[Tensor, "B L D"]:
        """Return the vectors of tokens; the first one is at position `start`."""
        return self.dropout(self._placed(self.table(tokens) * self.scale, start))  # type: ignore[no-any-return]

    def without_tokens(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """Return the vectors of positions where no token is known: the mean of all tokens' vectors."""
        mean = self.table.weight.mean(0) * self.scale
        return self._placed(mean.expand(*tokens.shape, -1), 0)

    def _placed(self, x: Float[Tensor, "B L D"], start: int) -> Tensor:
        return x if self.positions is None else self.positions(x, start)


@runtime_checkable
class Embeds(Protocol):
    """The interface of embeddings that encoders use: `Embedding` for ids, `WordEmbedding` for words."""

    size: int
    max_length: int | None  # the largest number of tokens that it has positions for; None: any

    def __call__(self, tokens: Any) -> Tensor:
        """Return the vectors (B, S, size) of tokens, which are of the kind that it takes."""


class FeedForward(nn.Module):
    """W2 f(W1 x + b1) + b2 at every position (Vaswani et al. 2017, eq. 2)."""

    def __init__(self, size: int, inner: int, activation: str = "relu", dropout: float = 0.0) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(size, inner), nn.Linear(inner, size)
        self.activation, self.dropout = ACTIVATIONS[activation](), Dropout(dropout)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """See the class."""
        return self.outer(self.dropout(self.activation(self.inner(x))))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """A residual connection around f with layer normalisation: before f (pre) or after the sum (post).

    `x + f(norm(x))` trains without warm-up tricks; `norm(x + f(x))` is the paper's own.
    Use: `y = residual.enter(x)`, then `residual.leave(x, f(y))`. drop_path: see `DropPath`.
    """

    def __init__(self, size: int, norm: str, dropout: float, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm, self.pre, self.dropout = nn.LayerNorm(size), norm == "pre", Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def enter(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Return the input of f."""
        return self.norm(x) if self.pre else x

    def leave(self, x: Float[Tensor, "B L D"], y: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Return the sum of the input x and the output y of f."""
        y = x + self.drop_path(self.dropout(y))
        return y if self.pre else self.norm(y)


class Maxout(nn.Module):
    """The larger of each pair of values (Goodfellow et al. 2013): (..., 2 D) -> (..., D)."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        pairs: Tensor = x.unflatten(-1, (-1, 2))
        return pairs.amax(-1)


class Gate(nn.Module):
    """z * x + (1 - z) * m, where z = sigmoid(W3 tanh(W1 x + W2 m)) (Rei et al. 2016, section 4): a choice
    between two vectors, for each value on its own."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.one, self.other, self.choice = (nn.Linear(size, size, bias=False) for _ in range(3))

    def forward(self, x: Float[Tensor, "*b D"], m: Float[Tensor, "*b D"]) -> Float[Tensor, "*b D"]:
        """See the class."""
        z = self.choice((self.one(x) + self.other(m)).tanh()).sigmoid()
        chosen: Tensor = z * x + (1 - z) * m
        return chosen


class Projection(NamedTuple):
    """Logits (..., V) that are not yet computed, so that a loss can compute them in parts."""

    states: Tensor  # (..., R), the input of the output layer, in the precision of the product
    layer: nn.Linear

    @classmethod
    def of(cls, states: Tensor, layer: nn.Linear) -> "Projection":
        """Return the projection of states (..., R) in the precision of autocast, if that is enabled."""
        device = states.device.type
        narrow = states.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else states
        return cls(narrow, layer)

    def whole(self) -> Tensor:
        """Compute all logits (..., V) at once."""
        other = self.states.dtype != self.layer.weight.dtype
        with torch.autocast(self.states.device.type, self.states.dtype if other else None, other):
            return F.linear(self.states, self.layer.weight, self.layer.bias)


def tie(output: nn.Linear, *embeddings: Embedding) -> None:
    """Let embeddings share the output layer's matrix (Press & Wolf 2017).

    The matrix starts as the table of the first embedding.
    """
    with torch.no_grad():
        output.weight.copy_(embeddings[0].table.weight)
    for embedding in embeddings:
        embedding.table.weight = output.weight
