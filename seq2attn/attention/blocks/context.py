"""Blocks that gather a context from the grid, and give it back to every place: GC, gather and excite."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2attn.attention.blocks.block import Block, Gate, Looked, Map, grid_of
from seq2attn.attention.blocks.grid import mean, softmax, wide_dtype, zeroed
from seq2attn.attention.blocks.parts import (
    BatchNorm,
    Bottleneck,
    Positive,
    Start,
    hidden_width,
    start_gate,
)
from seq2attn.errors import Seq2attnError


class GC(Block):
    """x + W2 relu(LN(W1 c)), c = sum over n of w_n x_n, w = softmax(k . x_n + b): global context.

    ratio: C / r hidden units, at least 4. fuse: add, to the features (W2 and its bias are 0 at first, so that
    the block is the identity); scale, features times the sigmoid; or both, each with an MLP of its own. pool:
    attention, or the mean in its place. start: of the sigmoid, half, or open (0.9). round_to: the hidden
    width is rounded up to a multiple.
    """

    identity_at_start = True
    paper = "Cao et al. 2019, 1904.11492"

    def __init__(
        self,
        channels: int,
        *,
        ratio: Positive = 16,
        fuse: Literal["add", "scale", "both"] = "add",
        pool: Literal["attention", "mean"] = "attention",
        start: Start = "half",
        round_to: Positive = 1,
    ) -> None:
        super().__init__(channels)
        hidden = hidden_width(channels, ratio, round_to)
        self.identity_at_start = fuse == "add"
        self.key = nn.Conv2d(channels, 1, 1) if pool == "attention" else None
        if self.key is not None:
            nn.init.kaiming_normal_(self.key.weight)
        self.add, self.scale = (
            Bottleneck(channels, hidden, norm=nn.LayerNorm(hidden)) if fuse in (way, "both") else None
            for way in ("add", "scale")
        )
        if self.add is not None:
            nn.init.zeros_(self.add.outer.weight)
            nn.init.zeros_(self.add.outer.bias)
        if self.scale is not None:
            start_gate(self.scale.outer, start)

    def attend(self, x: Tensor, mask: Tensor | None, need_weights: bool) -> Looked:
        """See the class."""
        maps: dict[str, Map] = {}
        if self.key is None:
            context = mean(x, mask).flatten(1)  # (B, C)
        else:
            weights = softmax(self.key(x), mask)  # (B, 1, H, W)
            maps["attention"] = Map("place", weights, grid_of(x), distribution=True)
            context = attended(x, weights)
        features = x
        if self.scale is not None:
            maps["scale"] = Map("channel", self.scale(context).sigmoid()[..., None, None], grid_of(x))
            features = features * maps["scale"].weights.to(x.dtype)
        if self.add is not None:
            maps["add"] = Map("channel", self.add(context)[..., None, None], grid_of(x))
            features = features + maps["add"].weights.to(x.dtype)
        return Looked(features, maps)


def attended(values: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of values (B, C, H, W) by weights of places (B, 1, H, W): (B, C)."""
    return (values.flatten(2) @ weights.flatten(2).mT.to(values.dtype)).squeeze(-1)


class GatherExcite(Gate):
    """sigmoid of what is gathered over an extent of e x e, enlarged to the grid again: gather and excite.

    extent: e; 0: the whole grid. gather: mean, over 2 e - 1 positions at a stride of e, without parameters;
    or conv, log2 e depthwise convolutions 3 x 3 with a stride of 2. mlp: with the MLP of se before the
    sigmoid, with C / r hidden units, at least 4 (ratio), rounded up to a multiple (round_to). The paper's
    variants: theta-minus is mean, theta is conv, theta-plus is conv with mlp; se is mean with mlp and extent
    0. start: half, or open (0.9) for fine-tuning.
    """

    paper = "Hu et al. 2018, 1810.12348"

    def __init__(
        self,
        channels: int,
        *,
        extent: Literal[0, 2, 4, 8] = 0,
        gather: Literal["mean", "conv"] = "mean",
        mlp: bool = False,
        ratio: Positive = 16,
        start: Start = "half",
        round_to: Positive = 1,
    ) -> None:
        super().__init__(channels)
        if gather == "conv" and not extent:
            raise Seq2attnError(
                "GatherExcite with gather: conv over the whole grid would need a kernel of the grid's size, "
                "which takes no other: set extent to 2, 4 or 8, or gather: mean"
            )
        self.extent = extent
        steps = range(extent.bit_length() - 1) if gather == "conv" else ()
        self.convolve = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False) for _ in steps
        )
        self.norms = nn.ModuleList(BatchNorm(channels) for _ in steps)
        self.mlp = Bottleneck(channels, hidden_width(channels, ratio, round_to)) if mlp else None
        last = [*self.norms, nn.Identity()][len(steps) - 1] if self.mlp is None else self.mlp.outer
        start_gate(last, start)

    def gates(self, x: Tensor, mask: Tensor | None) -> dict[str, Map]:
        """See the class."""
        gathered = self.gather(x, mask)  # (B, C, H / e, W / e), rounded up
        if self.mlp is not None:
            gathered = self.mlp(gathered.movedim(1, -1)).movedim(-1, 1)
        weights = torch.sigmoid(gathered)
        if not self.extent:
            return {"channel": Map("channel", weights, grid_of(x))}
        return {"full": Map("full", enlarged(weights, self.extent, grid_of(x)), grid_of(x))}

    def gather(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return what is gathered at every e-th row and column, from the first."""
        if not self.extent:
            return mean(x, mask)
        if not self.convolve:
            return strided_mean(x, mask, self.extent)
        for number, (convolve, norm) in enumerate(zip(self.convolve, self.norms, strict=True)):
            x = norm(convolve(zeroed(x, mask)))
            x = F.relu(x) if number + 1 < len(self.convolve) else x
            mask = None if mask is None else mask[..., ::2, ::2]
        return x


def strided_mean(x: Tensor, mask: Tensor | None, extent: int) -> Tensor:
    """Return means over 2 e - 1 positions around every e-th row and column; what lies outside is not
    counted."""
    inside = torch.ones_like(x[:1, :1]) if mask is None else mask
    sums, counts = (
        F.avg_pool2d(part.to(wide_dtype(x)), 2 * extent - 1, extent, extent - 1) for part in (x, inside)
    )
    return (sums / counts.where(counts > 0, 1.0)).to(x.dtype)


def enlarged(x: Tensor, extent: int, grid: tuple[int, int]) -> Tensor:
    """Return (B, C, H / e, W / e) with each position repeated e x e times, cut to the grid."""
    B, C, H, W = x.shape
    repeated = x[:, :, :, None, :, None].expand(-1, -1, -1, extent, -1, extent)
    return repeated.reshape(B, C, H * extent, W * extent)[..., : grid[0], : grid[1]]
