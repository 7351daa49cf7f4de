"""Positions of tokens: added to embeddings, encoded by rotating queries and keys, or added to scores.

Keyword-only parameters are options in a recipe. `start` is the position of the first token, so that decoding
step by step uses the same positions as decoding all at once. Relative positions need no start: the last query
is at the last key.
"""

import math
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float, Int
from torch import Tensor, nn

from seq2attn.attention.interfaces import Relative
from seq2attn.errors import Seq2attnError


class Position(nn.Module):
    """Absolute positions. `where`: they are added to embeddings, or rotate queries and keys."""

    where: ClassVar[Literal["embedding", "rotation"]]
    max_length: int | None = None  # the number of positions that there are; None: any

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


class NoPosition(Position):
    """No positions. A causal decoder can infer them from its mask (Haviv et al. 2022); an encoder cannot, and
    reads its sentence as a bag of words."""

    where = "embedding"

    def forward(self, x: Float[Tensor, "B L D"], start: int) -> Float[Tensor, "B L D"]:
        """Return x."""
        return x


class Sinusoidal(Position):
    """PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos(...) (Vaswani et al. 2017), any length."""

    where = "embedding"

    def forward(self, x: Float[Tensor, "B L D"], start: int) -> Float[Tensor, "B L D"]:
        """Return x plus its positions."""
        angles = _angles(x.shape[-2], self.size, x.device, start)  # (L, ceil(D/2))
        table = torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)[..., : self.size]  # (L, D)
        return x + table.to(x.dtype)


class Learned(Position):
    """One learned vector per position (Gehring et al. 2017), up to `length` positions."""

    where = "embedding"

    def __init__(self, size: int, *, length: Annotated[int, Ge(1)] = 1024) -> None:
        super().__init__(size)
        self.table, self.max_length = nn.Embedding(length, size), length
        nn.init.normal_(self.table.weight, std=size**-0.5)

    def forward(self, x: Float[Tensor, "B L D"], start: int) -> Float[Tensor, "B L D"]:
        """Return x plus its positions; Seq2attnError beyond the last learned position."""
        length, last = self.table.num_embeddings, start + x.shape[-2] - 1
        if last >= length:
            raise Seq2attnError(
                f"position {last} is beyond the {length} learned positions; give learned "
                "positions a larger length, filter longer sentences, or use sinusoidal positions"
            )
        vectors: Tensor = self.table(_positions(x.shape[-2], x.device, start))  # (L, D)
        return x + vectors


class Rotary(Position):
    """Rotates each pair of a query or key by p / base^(2i/d) (Su et al. 2021), so that their product depends
    on the distance only. Pairs are (2i, 2i+1), interleaved (the paper), or (i, i+d/2), half (Llama)."""

    where = "rotation"

    def __init__(
        self,
        size: int,
        *,
        base: Annotated[float, Gt(1)] = 10000.0,
        layout: Literal["interleaved", "half"] = "interleaved",
    ) -> None:
        super().__init__(size)
        if size % 2:
            raise Seq2attnError(f"rotary positions need an even head size, got {size}")
        self.base, self.layout = base, layout

    def forward(self, x: Float[Tensor, "B H L D"], start: int) -> Float[Tensor, "B H L D"]:
        """Return x, rotated. Angles are float32 for any dtype of x."""
        angles = _angles(x.shape[-2], self.size, x.device, start, self.base)  # (L, D/2)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        # The axis of length 2 that the members of a pair are on: (D/2, 2) or (2, D/2).
        axis = -1 if self.layout == "interleaved" else -2
        pairs = x.unflatten(-1, (-1, 2) if axis == -1 else (2, -1))
        first, second = pairs.unbind(axis)  # (B, H, L, D/2) each
        return torch.stack([first * cos - second * sin, first * sin + second * cos], axis).flatten(-2)


# ---- relative ----------------------------------------------------------------------------------------


class Distance(Relative):
    """A relative position: it changes scores, and adds nothing to embeddings.

    heads: H; size: D, the width of one head; causal: no query attends to later keys.
    """

    where: ClassVar[Literal["scores"]] = "scores"
    shared = False  # True: all layers of a stack share one module

    def __init__(self, heads: int, size: int, causal: bool = False) -> None:
        super().__init__()


class Alibi(Distance):
    """e - m_h |i - j|: a penalty that grows with the distance (Press et al. 2022). m_h = 2^(-8h/H) for
    h = 1...H. If H is not a power of 2: the slopes of the next lower power, then every second slope of the
    next higher one. Nothing is learned."""

    def __init__(self, heads: int, size: int, causal: bool = False) -> None:
        super().__init__(heads, size, causal)
        self.slopes = slopes(heads)

    def bias(self, query: Float[Tensor, "*b T Q"], n_keys: int) -> Float[Tensor, "H T S"]:
        """Return -m_h |i - j| in float32: bfloat16 cannot represent 257."""
        distances = _offsets(query, n_keys).abs().float()
        return -torch.tensor(self.slopes, device=query.device)[:, None, None] * distances


def slopes(heads: int) -> list[float]:
    """Return ALiBi's m of every head."""
    lower = 2 ** (heads.bit_length() - 1)
    geometric = [2 ** (-8 * (head + 1) / lower) for head in range(lower)]
    between = [2 ** (-4 * (head + 1) / lower) for head in range(0, 2 * lower, 2)]
    return geometric + between[: heads - lower]


class T5(Distance):
    """e + b[bucket(j - i), h], learned (Raffel et al. 2020). Near distances have a bucket each, further ones
    share buckets, and all from max_distance on share the last. All layers of a stack use the same table. T5
    itself scores by `dot`.

    buckets: half of them are for j > i, where a query may attend to those keys.
    """

    shared = True

    def __init__(
        self,
        heads: int,
        size: int,
        causal: bool = False,
        *,
        buckets: Annotated[int, Ge(4)] = 32,
        max_distance: Annotated[int, Gt(1), Le(2**16)] = 128,
    ) -> None:
        super().__init__(heads, size, causal)
        side = buckets if causal else buckets // 2
        if max_distance < side:
            each_side = "" if causal else f", {side} for each direction,"
            raise Seq2attnError(
                f"{buckets} buckets{each_side} are more than max_distance {max_distance} has distances: "
                f"raise it to {side}, or lower buckets"
            )
        self.table = nn.Embedding(buckets, heads)
        nn.init.normal_(self.table.weight, std=(heads * size) ** -0.5)
        self.causal, self.side, self.max_distance = causal, side, max_distance
        # A table in place of the logarithm: at the edge of a bucket, devices round it differently.
        table = torch.tensor([self._bucket(distance) for distance in range(max_distance + 1)])
        self.register_buffer("bucket_of_distance", table, persistent=False)

    def buckets(self, offsets: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Return the bucket of each j - i."""
        distances = offsets.clamp(max=0).abs() if self.causal else offsets.abs()
        buckets: Tensor = self.get_buffer("bucket_of_distance")[distances.clamp(max=self.max_distance)]
        return buckets if self.causal else buckets + self.side * (offsets > 0)

    def _bucket(self, distance: int) -> int:
        exact = self.side // 2
        if distance < exact:
            return distance
        far = math.log(distance / exact) / math.log(self.max_distance / exact)
        return min(exact + int(far * (self.side - exact) + 1e-9), self.side - 1)

    def bias(self, query: Float[Tensor, "*b T Q"], n_keys: int) -> Float[Tensor, "H T S"]:
        """Return b[bucket(j - i), h]."""
        bias: Tensor = self.table(self.buckets(_offsets(query, n_keys)))  # (T, S, H)
        return bias.movedim(-1, 0)


class Shaw(Distance):
    """e + q . a_(j-i) / sqrt(d), and c + sum_j w_j b_(j-i), learned (Shaw et al. 2018); all distances from
    `reach` on share a vector. The heads share a and b.

    values: whether there is a b; with it no fused kernel can be used.
    """

    def __init__(
        self,
        heads: int,
        size: int,
        causal: bool = False,
        *,
        reach: Annotated[int, Ge(1)] = 16,
        values: bool = True,
    ) -> None:
        super().__init__(heads, size, causal)
        self.reach, self.behind, self.adds_values = reach, 0 if causal else reach, values
        self.of_keys = nn.Parameter(torch.randn(reach + 1 + self.behind, size) * size**-0.5)
        self.of_values = nn.Parameter(torch.randn_like(self.of_keys) * size**-0.5) if values else None

    def bias(self, query: Float[Tensor, "*b T Q"], n_keys: int) -> Float[Tensor, "*b T S"]:
        """Return q . a_(j-i) / sqrt(d): a product per distance, then gathered for each pair."""
        products = query @ self.of_keys.mT / math.sqrt(query.shape[-1])  # (..., T, distances)
        return products.gather(-1, self._rows(query, n_keys))

    def values(self, weights: Float[Tensor, "*b T S"]) -> Float[Tensor, "*b T V"] | None:
        """Return sum_j w_j b_(j-i): weights at the same distance are summed first."""
        if self.of_values is None:
            return None
        zeros = weights.new_zeros(*weights.shape[:-1], len(self.of_values))
        by_distance = zeros.scatter_add(-1, self._rows(weights, weights.shape[-1]), weights)
        return by_distance @ self.of_values.to(weights.dtype)

    def _rows(self, x: Tensor, n_keys: int) -> Tensor:  # (..., T, S), the rows of a and b
        rows = _offsets(x, n_keys).clamp(-self.reach, self.behind) + self.reach
        return rows.expand(*x.shape[:-1], n_keys)


def _offsets(query: Tensor, n_keys: int) -> Tensor:  # (T, S), j - i; the last query is at the last key
    positions = torch.arange(n_keys, device=query.device)
    return positions - positions[n_keys - query.shape[-2] :, None]


def _positions(length: int, device: torch.device, start: int) -> Tensor:  # (L,)
    return torch.arange(start, start + length, device=device)


def _angles(
    length: int, size: int, device: torch.device, start: int, base: float = 10000.0
) -> Tensor:  # (L, ceil(size/2)), float32
    frequency = base ** (-torch.arange(0, size, 2, device=device, dtype=torch.float32) / size)
    return _positions(length, device, start).unsqueeze(-1) * frequency


POSITIONS: dict[str, type[Position] | type[Distance]] = {
    "sinusoidal": Sinusoidal,
    "learned": Learned,
    "rotary": Rotary,
    "alibi": Alibi,
    "t5": T5,
    "shaw": Shaw,
    "none": NoPosition,
}
