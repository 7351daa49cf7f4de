"""Positions: where a token stands, added to its embedding or turned into queries and keys.

Keyword-only parameters are options in a recipe. `start` (B,) is the position of the first token of each
row (0 if None), so that decoding step by step sees the same positions as decoding all at once.
"""

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float, Int
from torch import Tensor, nn

from seq2attn.errors import Seq2attnError


class Position(nn.Module):
    """A way to say where a token stands. `where` tells whether embeddings or queries and keys take it."""

    where: ClassVar[Literal["embedding", "attention"]]

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


class Sinusoidal(Position):
    """PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos(...) (Vaswani et al. 2017), any length."""

    where = "embedding"

    def forward(self, x: Float[Tensor, "B L D"], start: Int[Tensor, " B"] | None) -> Float[Tensor, "B L D"]:
        """x plus its positions."""
        angles = _angles(x.shape[-2], self.size, x.device, start)  # (1 or B, L, ceil(D/2))
        table = torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)[..., : self.size]
        return x + table.to(x.dtype)


class Learned(Position):
    """One learned vector per position (Gehring et al. 2017), up to `length` positions."""

    where = "embedding"

    def __init__(self, size: int, *, length: Annotated[int, Ge(1)] = 1024) -> None:
        super().__init__(size)
        self.table = nn.Embedding(length, size)
        nn.init.normal_(self.table.weight, std=size**-0.5)

    def forward(self, x: Float[Tensor, "B L D"], start: Int[Tensor, " B"] | None) -> Float[Tensor, "B L D"]:
        """x plus its positions; an error beyond the last position that was learned."""
        positions = _positions(x.shape[-2], x.device, start)
        length = self.table.num_embeddings
        if x.shape[-2] > length or (start is not None and int(positions.max()) >= length):
            raise Seq2attnError(
                f"position {int(positions.max())} is beyond the {length} learned positions; give learned "
                "positions a larger length, filter longer sentences, or use sinusoidal positions"
            )
        learned: Tensor = self.table(positions)
        return x + learned


class Rotary(Position):
    """Turns each pair (2i, 2i+1) of a query or key by p / base^(2i/d) (Su et al. 2021), so that their
    product depends on the distance only. Interleaved pairs, the paper's layout."""

    where = "attention"

    def __init__(self, size: int, *, base: Annotated[float, Gt(1)] = 10000.0) -> None:
        super().__init__(size)
        if size % 2:
            raise Seq2attnError(f"rotary positions need an even head size, got {size}")
        self.base = base

    def forward(
        self, x: Float[Tensor, "B H L D"], start: Int[Tensor, " B"] | None
    ) -> Float[Tensor, "B H L D"]:
        """x, turned. Angles are float32 whatever x is."""
        angles = _angles(x.shape[-2], self.size, x.device, start, self.base).unsqueeze(1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def _positions(length: int, device: torch.device, start: Tensor | None) -> Tensor:  # (1 or B, L)
    positions = torch.arange(length, device=device).unsqueeze(0)
    return positions if start is None else positions + start.unsqueeze(1)


def _angles(
    length: int, size: int, device: torch.device, start: Tensor | None, base: float = 10000.0
) -> Tensor:  # (1 or B, L, ceil(size/2)), float32
    frequency = base ** (-torch.arange(0, size, 2, device=device, dtype=torch.float32) / size)
    return _positions(length, device, start).unsqueeze(-1) * frequency


POSITIONS: dict[str, type[Position]] = {"sinusoidal": Sinusoidal, "learned": Learned, "rotary": Rotary}
