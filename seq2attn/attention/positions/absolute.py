"""Absolute positions in a sequence: added to embeddings, or encoded by rotating queries and keys."""

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor, nn

from seq2attn.attention.memory import Grid
from seq2attn.errors import Seq2attnError


class Position(nn.Module):
    """Absolute positions. `where`: they are added to embeddings, or rotate queries and keys.

    They are called with vectors (..., L, D), the position of the first, and the grid that the L positions lie
    on, row by row; None: they are a sequence. Without `needs_grid`, those of a grid are numbered row by row.
    """

    where: ClassVar[Literal["embedding", "rotation"]]
    needs_grid: ClassVar[bool] = False
    max_length: int | None = None  # the number of positions that there are; None: any

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


class NoPosition(Position):
    """No positions. A causal decoder can infer them from its mask (Haviv et al. 2022); an encoder cannot, and
    reads its sentence as a bag of words."""

    where = "embedding"

    def forward(
        self, x: Float[Tensor, "B L D"], start: int, grid: Grid | None = None
    ) -> Float[Tensor, "B L D"]:
        """Return x."""
        return x


class Sinusoidal(Position):
    """PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos(...) (Vaswani et al. 2017), any length. Sines and
    cosines are interleaved (the paper), or in halves: all sines, then all cosines (tensor2tensor, Marian)."""

    where = "embedding"

    def __init__(self, size: int, *, layout: Literal["interleaved", "halves"] = "interleaved") -> None:
        super().__init__(size)
        self.layout = layout

    def forward(
        self, x: Float[Tensor, "B L D"], start: int, grid: Grid | None = None
    ) -> Float[Tensor, "B L D"]:
        """Return x plus its positions."""
        by = angles(x.shape[-2], self.size, x.device, start)  # (L, ceil(D/2))
        return x + waves(by, self.size, self.layout).to(x.dtype)


class Learned(Position):
    """One learned vector per position (Gehring et al. 2017), up to `length` positions."""

    where = "embedding"

    def __init__(self, size: int, *, length: Annotated[int, Ge(1)] = 1024) -> None:
        super().__init__(size)
        self.table, self.max_length = nn.Embedding(length, size), length
        nn.init.normal_(self.table.weight, std=size**-0.5)

    def forward(
        self, x: Float[Tensor, "B L D"], start: int, grid: Grid | None = None
    ) -> Float[Tensor, "B L D"]:
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

    def forward(
        self, x: Float[Tensor, "B H L D"], start: int, grid: Grid | None = None
    ) -> Float[Tensor, "B H L D"]:
        """Return x, rotated. Angles are float32 for any dtype of x."""
        return rotate(x, angles(x.shape[-2], self.size, x.device, start, self.base), self.layout)


def rotate(
    x: Float[Tensor, "B H L D"], by: Float[Tensor, "L d"], layout: Literal["interleaved", "half"]
) -> Float[Tensor, "B H L D"]:
    """Return x with its pairs rotated by angles (L, D/2), which are float32 for any dtype of x."""
    cos, sin = by.cos().to(x.dtype), by.sin().to(x.dtype)
    # The axis of length 2 that the members of a pair are on: (D/2, 2) or (2, D/2).
    axis = -1 if layout == "interleaved" else -2
    pairs = x.unflatten(-1, (-1, 2) if axis == -1 else (2, -1))
    first, second = pairs.unbind(axis)  # (B, H, L, D/2) each
    return torch.stack([first * cos - second * sin, first * sin + second * cos], axis).flatten(-2)


def waves(
    by: Float[Tensor, "L d"], size: int, layout: Literal["interleaved", "halves"] = "interleaved"
) -> Float[Tensor, "L D"]:
    """Return sines and cosines of angles, in turns or in halves, cut to `size` columns."""
    if layout == "halves":
        return torch.cat([by.sin(), by.cos()], -1)[..., :size]
    return torch.stack([by.sin(), by.cos()], -1).flatten(-2)[..., :size]


def _positions(length: int, device: torch.device, start: int) -> Tensor:  # (L,)
    return torch.arange(start, start + length, device=device)


def angles(
    length: int, size: int, device: torch.device, start: int = 0, base: float = 10000.0
) -> Float[Tensor, "L d"]:
    """Return p / base^(2i/size), float32, for L positions and d = ceil(size/2) frequencies."""
    frequency = base ** (-torch.arange(0, size, 2, device=device, dtype=torch.float32) / size)
    return _positions(length, device, start).unsqueeze(-1) * frequency
