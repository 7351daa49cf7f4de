"""Positions on a grid of rows and columns, such as those of an image."""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor, nn

from seq2attn.attention.memory import Grid
from seq2attn.attention.positions.absolute import Position, angles, rotate, waves
from seq2attn.attention.positions.relative import Distance
from seq2attn.errors import Seq2attnError


class Sinusoidal2d(Position):
    """Sines of the row in the first half of the channels, of the column in the second (Parmar et al. 2018,
    section 3.2); any grid."""

    where = "embedding"
    needs_grid = True

    def forward(
        self, x: Float[Tensor, "B L D"], start: int, grid: Grid | None = None
    ) -> Float[Tensor, "B L D"]:
        """Return x plus its positions."""
        rows, columns = require_grid(self, grid, x.shape[-2])
        of_columns = self.size // 2
        of_rows = self.size - of_columns
        row = waves(angles(rows, of_rows, x.device), of_rows)  # (rows, D/2)
        column = waves(angles(columns, of_columns, x.device), of_columns)  # (columns, D/2)
        return x + _on_grid(row, column).to(x.dtype)


class Learned2d(Position):
    """A learned vector for each row and one for each column, side by side (Carion et al. 2020, section 3.2).

    rows, columns: the largest grid.
    """

    where = "embedding"
    needs_grid = True

    def __init__(
        self, size: int, *, rows: Annotated[int, Ge(1)] = 64, columns: Annotated[int, Ge(1)] = 64
    ) -> None:
        super().__init__(size)
        self.rows, self.columns = nn.Embedding(rows, size - size // 2), nn.Embedding(columns, size // 2)
        for table in (self.rows, self.columns):
            nn.init.normal_(table.weight, std=size**-0.5)

    def forward(
        self, x: Float[Tensor, "B L D"], start: int, grid: Grid | None = None
    ) -> Float[Tensor, "B L D"]:
        """Return x plus its positions; Seq2attnError if the grid is larger than the learned one."""
        rows, columns = require_grid(self, grid, x.shape[-2])
        most_rows, most_columns = self.rows.num_embeddings, self.columns.num_embeddings
        if rows > most_rows or columns > most_columns:
            raise Seq2attnError(
                f"a grid of {rows} rows and {columns} columns is larger than the learned positions, "
                f"{most_rows} and {most_columns}: raise their rows and columns, or use sinusoidal_2d"
            )
        return x + _on_grid(self.rows.weight[:rows], self.columns.weight[:columns])


class Rotary2d(Position):
    """Rotates the pairs of the first half of a head by the row, those of the second half by the column (Heo
    et al. 2024, "axial"), so that products depend on both distances only."""

    where = "rotation"
    needs_grid = True

    def __init__(self, size: int, *, base: Annotated[float, Gt(1)] = 100.0) -> None:
        super().__init__(size)
        if size % 4:
            raise Seq2attnError(f"rotary_2d positions need a head size that is a multiple of 4, got {size}")
        self.base = base

    def forward(
        self, x: Float[Tensor, "B H L D"], start: int, grid: Grid | None = None
    ) -> Float[Tensor, "B H L D"]:
        """Return x, rotated."""
        rows, columns = require_grid(self, grid, x.shape[-2])
        half = self.size // 2
        row, column = (angles(length, half, x.device, base=self.base) for length in (rows, columns))
        return rotate(x, _on_grid(row, column), "interleaved")  # (L, D/2): D/4 angles of each axis


class Swin(Distance):
    """e + b[row distance, column distance, h], a learned table (Liu et al. 2021, eq. 4).

    window: distances up to window - 1 have an entry each; larger ones share that of the largest.
    """

    needs_grid = True

    def __init__(
        self, heads: int, size: int, causal: bool = False, *, window: Annotated[int, Ge(1)] = 7
    ) -> None:
        super().__init__(heads, size, causal)
        self.reach = window - 1
        self.table = nn.Parameter(torch.zeros(2 * window - 1, 2 * window - 1, heads))
        nn.init.trunc_normal_(self.table, std=0.02)

    def bias(
        self, query: Float[Tensor, "*b T Q"], n_keys: int, grid: Grid | None = None
    ) -> Float[Tensor, "H T S"]:
        """Return b for each pair of positions."""
        rows, columns = require_grid(self, grid, n_keys, query)
        row, column = (_table_rows(length, self.reach, query.device) for length in (rows, columns))
        # (rows, columns, rows, columns, H): a pair of rows and a pair of columns choose the entry.
        bias = self.table[row[:, None, :, None], column[None, :, None, :]]
        return bias.flatten(2, 3).flatten(0, 1).movedim(-1, 0)


class Axial(Distance):
    """e + q . (r_row distance + s_column distance) / sqrt(d), learned (Srinivas et al. 2021, BoTNet). The
    heads share r and s.

    reach: distances up to reach - 1 have a vector each; larger ones share that of the largest.
    """

    needs_grid = True

    def __init__(
        self, heads: int, size: int, causal: bool = False, *, reach: Annotated[int, Ge(1)] = 14
    ) -> None:
        super().__init__(heads, size, causal)
        self.reach = reach - 1
        self.of_rows = nn.Parameter(torch.randn(2 * reach - 1, size) * size**-0.5)
        self.of_columns = nn.Parameter(torch.randn(2 * reach - 1, size) * size**-0.5)

    def bias(
        self, query: Float[Tensor, "*b T Q"], n_keys: int, grid: Grid | None = None
    ) -> Float[Tensor, "*b T S"]:
        """Return the sum of both products: one per distance, then gathered for each pair."""
        rows, columns = require_grid(self, grid, n_keys, query)
        scaled = query / math.sqrt(query.shape[-1])
        of_row = scaled @ self.of_rows.mT  # (..., T, distances)
        of_column = scaled @ self.of_columns.mT
        row = _table_rows(rows, self.reach, query.device).repeat_interleave(columns, 0)  # (T, rows)
        column = _table_rows(columns, self.reach, query.device).repeat(rows, 1)  # (T, columns)
        row_bias = of_row.gather(-1, row.expand(*query.shape[:-1], rows)).unsqueeze(-1)
        column_bias = of_column.gather(-1, column.expand(*query.shape[:-1], columns)).unsqueeze(-2)
        return (row_bias + column_bias).flatten(-2)


def require_grid(positions: nn.Module, grid: Grid | None, length: int, query: Tensor | None = None) -> Grid:
    """Return the grid; Seq2attnError if there is none, or if it has not these positions.

    query: the queries, which must be at all positions of the grid.
    """
    name = type(positions).__name__
    if grid is None:
        raise Seq2attnError(
            f"{name} positions are for images: give `remember` the grid that the states lie on, or use "
            "positions of a sequence"
        )
    if grid[0] * grid[1] != length or (query is not None and query.shape[-2] != length):
        raise Seq2attnError(
            f"{name} positions: expected {grid[0] * grid[1]} vectors, one for each position of the grid "
            f"{grid[0]}x{grid[1]}, got {length if query is None else query.shape[-2]}"
        )
    return grid


def _on_grid(row: Tensor, column: Tensor) -> Tensor:
    """Return vectors of rows (R, d) and of columns (C, e), side by side for each position: (R C, d + e)."""
    rows, columns = len(row), len(column)
    of_rows = row.unsqueeze(1).expand(-1, columns, -1)
    return torch.cat([of_rows, column.expand(rows, -1, -1)], -1).flatten(0, 1)


def _table_rows(length: int, reach: int, device: torch.device) -> Tensor:
    """Return the row of a table for the distance of each pair of positions on an axis: (L, L)."""
    positions = torch.arange(length, device=device)
    return (positions - positions[:, None]).clamp(-reach, reach) + reach
