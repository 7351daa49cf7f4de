"""The base classes of attention blocks for images: Block, and Gate for those that multiply by a map.

Letters: B batch, C channels, H x W the grid, N = H W its positions, M branches or keys.
"""

from functools import reduce
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seq2attn.attention.blocks.grid import wide_dtype, zeroed
from seq2attn.attention.masks import check_mask
from seq2attn.errors import NotDefinedError, Seq2attnError

Kind = Literal["channel", "place", "rows", "columns", "full", "branch", "affinity", "channels"]
Place = Literal["residual", "middle", "after", "between", "replace"]


class Map(NamedTuple):
    """Weights that a block has computed, and where they lie.

    The shape of the weights follows from the kind: channel (B, C, 1, 1), place (B, 1, H, W), rows
    (B, C, H, 1), columns (B, C, 1, W), full (B, C, H, W), branch (B, M, C), affinity (B, heads, N, M) of
    queries and keys, channels (B, C, C) of queries and keys.
    """

    kind: Kind
    weights: Tensor
    grid: tuple[int, int]  # (H, W) of the positions, or of the queries of an affinity
    keys: tuple[int, int] | None = None  # the grid of the keys of an affinity
    distribution: bool = False  # weights >= 0 that sum to 1 over places, branches or keys

    def total(self) -> Tensor:
        """Return the sums of the weights over what they are distributed over: places, branches or keys."""
        axes = {"branch": (1,), "affinity": (-1,), "channels": (-1,)}.get(self.kind, (2, 3))
        return self.weights.sum(axes)


class Looked(NamedTuple):
    """The features that a block returns, and the maps by which it has made them."""

    features: Tensor  # (B, C, H, W)
    maps: dict[str, Map]


class Block(nn.Module):
    """An attention block: features (B, C, H, W) -> features of the same shape. Subclass it, and add a line to
    BLOCKS.

    The constructor takes the number of channels; its keyword-only parameters are the options that a recipe
    may set. A subclass defines `attend`. It is given features that are 0 outside the mask, and what it
    returns there is set to 0; means, maxima and softmaxes over positions leave out what is masked
    (`grid.py`), and features that have been changed are set to 0 again before they are convolved (`zeroed`).
    So an image in a padded batch has the features that it has alone. A block works for every grid from 1 x 1
    on, and for a batch of one in training.
    """

    at: Place = "residual"  # where a network puts it, unless told otherwise: see docs/blocks.md
    identity_at_start = False  # True: before training, features leave as they came
    multiple = 1  # its grid is padded to multiples of it, inside the block
    paper = ""  # authors, year and arXiv number

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 1:
            raise Seq2attnError(f"{type(self).__name__} needs at least one channel, got channels={channels}")
        self.channels = channels
        self.out_channels = (
            channels  # of the features that it returns: only heads have another number, if told
        )

    def attend(self, x: Tensor, mask: Tensor | None, need_weights: bool) -> Looked:
        """Return features (B, C, H, W) and maps by name; without need_weights the maps may be left out."""
        raise NotDefinedError(f"{type(self).__name__} must define what it does: write attend()")

    def pairs(self, grid: tuple[int, int]) -> int:
        """Return how many pairs of positions are weighed in an image with this grid, in all heads."""
        return sum(part.pairs(grid) for part in self.children() if isinstance(part, Block))

    def forward(
        self, x: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B 1 H W"] | None = None
    ) -> Float[Tensor, "B D H W"]:
        """Return the features; True in the mask = a position of the image. D = `out_channels`.

        Seq2attnError if the features have another number of axes or channels, or the mask does not fit.
        """
        self._check(x, mask)
        return zeroed(self.attend(zeroed(x, mask), mask, need_weights=False).features, mask)

    def look(self, x: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B 1 H W"] | None = None) -> Looked:
        """Return the features of `forward` and the maps, in float32 and 0 outside the mask."""
        self._check(x, mask)
        features, maps = self.attend(zeroed(x, mask), mask, need_weights=True)
        return Looked(zeroed(features, mask), {name: _shown(map, mask) for name, map in maps.items()})

    def _check(self, x: Tensor, mask: Tensor | None) -> None:
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise Seq2attnError(
                f"{type(self).__name__}: expected features (B, {self.channels}, H, W), got {tuple(x.shape)}"
            )
        if mask is not None:
            check_mask(mask, (len(x), 1, *x.shape[2:]), "(B, 1, H, W), True = a position of the image")


class Gate(Block):
    """A block that multiplies features by a gate: y = x * gate. A subclass defines `gates`, and `gate` if the
    gate is not the product of all maps.

    It never adds its input again: a residual connection belongs to the network around it.
    """

    positive = True  # False: the gate may be negative, so that features change their sign

    def gates(self, x: Tensor, mask: Tensor | None) -> dict[str, Map]:
        """Return the maps by name."""
        raise NotDefinedError(f"{type(self).__name__} must define its maps: write gates()")

    def gate(self, maps: dict[str, Map]) -> Tensor:
        """Return what x is multiplied by, which broadcasts to (B, C, H, W)."""
        return reduce(torch.mul, (map.weights for map in maps.values()))

    def attend(self, x: Tensor, mask: Tensor | None, need_weights: bool) -> Looked:
        """Multiply once."""
        maps = self.gates(x, mask)
        return Looked(x * self.gate(maps).to(x.dtype), maps)


def keeping_channels(block: Block) -> Block:
    """Return the block; Seq2attnError if it returns another number of channels than it gets."""
    if block.out_channels != block.channels:
        raise Seq2attnError(
            f"here features keep their {block.channels} channels, and {type(block).__name__} returns "
            f"{block.out_channels}: leave its size out"
        )
    return block


def grid_of(x: Tensor) -> tuple[int, int]:
    """Return (H, W) of features (B, C, H, W)."""
    return x.shape[2], x.shape[3]


def _shown(map: Map, mask: Tensor | None) -> Map:
    """Return a map as `look` returns it."""
    weights = map.weights.to(wide_dtype(map.weights))
    if mask is not None and map.kind in ("place", "full", "rows", "columns"):
        axis = {"rows": 3, "columns": 2}.get(map.kind)
        weights = zeroed(weights, mask if axis is None else mask.any(axis, keepdim=True))
    return map._replace(weights=weights)
