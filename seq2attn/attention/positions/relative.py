"""Relative positions, which change the scores of self-attention."""

import math
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float, Int
from torch import Tensor, nn

from seq2attn.attention.interfaces import Relative
from seq2attn.attention.memory import Grid
from seq2attn.errors import Seq2attnError


class Distance(Relative):
    """A relative position: it changes scores, and adds nothing to embeddings.

    heads: H; size: D, the width of one head; causal: no query attends to later keys.
    """

    where: ClassVar[Literal["scores"]] = "scores"
    needs_grid: ClassVar[bool] = False  # True: only for self-attention on a grid
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

    def bias(
        self, query: Float[Tensor, "*b T Q"], n_keys: int, grid: Grid | None = None
    ) -> Float[Tensor, "H T S"]:
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

    def bias(
        self, query: Float[Tensor, "*b T Q"], n_keys: int, grid: Grid | None = None
    ) -> Float[Tensor, "H T S"]:
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

    def bias(
        self, query: Float[Tensor, "*b T Q"], n_keys: int, grid: Grid | None = None
    ) -> Float[Tensor, "*b T S"]:
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

    def _rows(
        self, x: Tensor, n_keys: int, grid: Grid | None = None
    ) -> Tensor:  # (..., T, S), the rows of a and b
        rows = _offsets(x, n_keys).clamp(-self.reach, self.behind) + self.reach
        return rows.expand(*x.shape[:-1], n_keys)


def _offsets(
    query: Tensor, n_keys: int, grid: Grid | None = None
) -> Tensor:  # (T, S), j - i; the last query is at the last key
    positions = torch.arange(n_keys, device=query.device)
    return positions - positions[n_keys - query.shape[-2] :, None]
