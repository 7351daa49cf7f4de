"""Looks whose positions attend to some of the others (a row and a column, a window), and full self-attention.

Each has a fast path that computes only the weights that are not masked. Where weights are needed, the
attention is that of the whole grid with a mask.
"""

from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2attn.attention.attention import Attention
from seq2attn.attention.blocks.block import Looked, Map, grid_of
from seq2attn.attention.blocks.looks import PAM, Looks, Widths, on_grid, rows
from seq2attn.attention.blocks.parts import Positive, divisor
from seq2attn.attention.memory import Grid
from seq2attn.attention.normalizers import Softmax
from seq2attn.attention.normalizers.dense import mask_scores
from seq2attn.attention.positions import Axial, Swin
from seq2attn.attention.scorers import ScaledDot


class CrissCross(PAM):
    """As pam, but a position attends to its row and its column; all that is repeated, with the same weights,
    so that after two times each position has reached all others.

    ratio: queries and keys have C / ratio channels. repeats: how many times. gamma starts at 0.
    """

    paper = "Huang et al. 2019, 1811.11721"

    def __init__(self, channels: int, *, ratio: Positive = 8, repeats: Positive = 2) -> None:
        super().__init__(channels, ratio=ratio)
        self.repeats = repeats

    def pairs(self, grid: Grid) -> int:
        """See the base class: each position weighs those of its row and of its column."""
        return prod(grid) * (sum(grid) - 1)

    def attend(self, x: Tensor, mask: Tensor | None, need_weights: bool) -> Looked:
        """See the base class. The maps are those of the last time."""
        for _ in range(self.repeats - 1):
            x = super().attend(x, mask, need_weights=False).features
            x = x if mask is None else x * mask
        return super().attend(x, mask, need_weights)

    def attended(self, x: Tensor, mask: Tensor | None, need_weights: bool) -> tuple[Tensor, Map | None]:
        """See the base class."""
        keys, values, allowed, grid = self.source(x, mask)
        if need_weights:
            crossing = same_row_or_column(grid, x.device) & allowed.unsqueeze(1)
            context, weights = self.ask(
                self.query(rows(x)), self.remember(keys, values, crossing, grid), need_weights=True
            )
            return context, None if weights is None else self.affinity(weights, grid, grid)
        query, keys, values, allowed = (
            states.unflatten(1, grid) for states in (self.query(rows(x)), keys, values, allowed)
        )
        return _along_both(query, keys, values, allowed), None


def same_row_or_column(grid: Grid, device: torch.device) -> Tensor:
    """Return whether two positions of a grid share a row or a column: (N, N)."""
    index = torch.arange(grid[0] * grid[1], device=device)
    row, column = index // grid[1], index % grid[1]
    return (row[:, None] == row) | (column[:, None] == column)


def _along_both(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Return softmax(q . k) v over the row and the column of each position: (B, N, V).

    query, keys (B, H, W, K), values (B, H, W, V), mask (B, H, W). The position itself is a key of its row
    only.
    """
    height, width = mask.shape[1:]
    of_row = query @ keys.mT  # (B, H, W, W): keys of the row
    of_column = (query.transpose(1, 2) @ keys.transpose(1, 2).mT).transpose(1, 2)  # (B, H, W, H)
    itself = torch.eye(height, dtype=torch.bool, device=mask.device)[:, None]  # (H, 1, H)
    row_mask = mask[:, :, None].expand(-1, -1, width, -1)  # (B, H, W, W)
    column_mask = mask.mT[:, None] & ~itself  # (B, H, W, H)
    both = torch.cat([row_mask, column_mask], -1)
    scores = torch.cat([of_row, of_column], -1)
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    weights = (mask_scores(wide, both).softmax(-1) * both).to(values.dtype)
    in_row, in_column = weights.split([width, height], -1)
    of_columns = (in_column.transpose(1, 2) @ values.transpose(1, 2)).transpose(1, 2)
    context: Tensor = in_row @ values + of_columns  # (B, H, W, V)
    return context.flatten(1, 2)


class MHSA(Looks):
    """Multi-head self-attention in the place of a convolution, with learned vectors of row and column
    distance.

    heads: at most, as many as divide the channels. reach: distances from it on share a vector.
    """

    paper = "Srinivas et al. 2021, 2101.11605"
    at = "replace"

    def __init__(self, channels: int, *, heads: Positive = 4, reach: Positive = 14) -> None:
        heads = divisor(channels, heads)
        head = max(channels // heads, 1)
        attention = Attention(ScaledDot(head, head), Softmax(), relative=Axial(heads, head, reach=reach))
        super().__init__(channels, attention, Widths(channels, channels), bias=False, heads=heads)

    def merge(self, x: Tensor, context: Tensor) -> Tensor:
        """See the base class."""
        return on_grid(context, grid_of(x))


class WindowAttention(Looks):
    """Multi-head self-attention within windows, with a learned bias for each distance and head, in the place
    of a convolution.

    heads: at most, as many as divide the channels. size: rows and columns of a window; the last ones are
    smaller if the grid is no multiple, and all if the grid is smaller. shift: windows begin half a window
    earlier, so that two such blocks, one with and one without, connect neighbours; if all is one window,
    nothing is shifted.
    """

    paper = "Liu et al. 2021, 2103.14030"
    at = "replace"

    def __init__(
        self, channels: int, *, heads: Positive = 4, size: Positive = 7, shift: bool = False
    ) -> None:
        heads = divisor(channels, heads)
        head = max(channels // heads, 1)
        attention = Attention(ScaledDot(head, head), Softmax(), relative=Swin(heads, head, window=size))
        super().__init__(channels, attention, Widths(channels, channels), heads=heads)
        self.size, self.shift, self.multiple = size, shift, size
        self.out = nn.Linear(channels, channels)
        for layer in (self.query, self.key, self.value, self.out):
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def pairs(self, grid: Grid) -> int:
        """See the base class: each position of a window weighs all of it, padding included."""
        return self.heads * prod(tiling.windows * tiling.size**2 for tiling in self.tilings(grid))

    def tilings(self, grid: Grid) -> tuple["Tiling", "Tiling"]:
        """Return how windows lie along the rows and along the columns of a grid."""
        before = (self.size + 1) // 2 if self.shift and max(grid) > self.size else 0
        down, across = (_tiling(length, self.size, before) for length in grid)
        return down, across

    def attended(self, x: Tensor, mask: Tensor | None, need_weights: bool) -> tuple[Tensor, Map | None]:
        """See the base class."""
        keys, values, allowed, grid = self.source(x, mask)
        queries = self.query(rows(x))
        if need_weights:
            within = self.same_window(grid, x.device) & allowed.unsqueeze(1)
            context, weights = self.ask(queries, self.remember(keys, values, within, grid), need_weights=True)
            return context, None if weights is None else self.affinity(weights, grid, grid)
        queries, keys, values = (
            self.windows(states.unflatten(1, grid)) for states in (queries, keys, values)
        )
        inside = self.windows(allowed.unflatten(1, grid).unsqueeze(-1)).squeeze(-1)  # (B windows, places)
        down, across = self.tilings(grid)
        memory = self.remember(keys, values, inside.unsqueeze(1), (down.size, across.size))
        context, _ = self.ask(queries, memory, need_weights=False)
        return self.whole(context, grid), None

    def same_window(self, grid: Grid, device: torch.device) -> Tensor:
        """Return whether two positions of a grid are in the same window: (N, N)."""
        index, (down, across) = torch.arange(grid[0] * grid[1], device=device), self.tilings(grid)
        row = (index // grid[1] + down.before) // down.size
        column = (index % grid[1] + across.before) // across.size
        return (row[:, None] == row) & (column[:, None] == column)

    def windows(self, x: Tensor) -> Tensor:
        """Return the windows of (B, H, W, D), padded with zeros: (B windows, places of one, D)."""
        down, across = self.tilings((x.shape[1], x.shape[2]))
        padded = F.pad(x, (0, 0, across.before, across.after, down.before, down.after))
        tiles: Tensor = padded.unflatten(2, (-1, across.size)).unflatten(
            1, (-1, down.size)
        )  # (B, rows, places, columns, places, D)
        return tiles.transpose(2, 3).flatten(3, 4).flatten(0, 2)

    def whole(self, windows: Tensor, grid: Grid) -> Tensor:
        """Return the positions (B, N, D) of windows that `windows` has made."""
        down, across = self.tilings(grid)
        tiles: Tensor = windows.unflatten(0, (-1, down.windows, across.windows)).unflatten(
            3, (down.size, across.size)
        )
        padded: Tensor = tiles.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B, rows, columns, D)
        inner = padded[:, down.before : down.before + grid[0], across.before : across.before + grid[1]]
        return inner.flatten(1, 2)

    def merge(self, x: Tensor, context: Tensor) -> Tensor:
        """See the base class."""
        return on_grid(self.out(context), grid_of(x))


class Tiling(NamedTuple):
    """How windows lie along the rows, or the columns, of a grid."""

    size: int  # of a window
    windows: int  # how many there are
    before: int  # rows of the first window that lie outside the grid
    after: int  # rows of the last window that do


def _tiling(length: int, size: int, before: int) -> Tiling:
    """Return the tiling of a side by windows of a size. Where they are larger than the side, they are made as
    small as they can be with the same positions in the same windows."""
    if length <= size:
        first = min(length, size - before)  # positions in the first window; a second one has the others
        size = max(first, length - first)
        before = size - first if first < length else 0
    count = -(-(length + before) // size)
    return Tiling(size, count, before, count * size - before - length)
