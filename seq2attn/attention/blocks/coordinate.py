"""Gates from means over rows, columns and channels: coordinate attention, triplet attention, strip pooling,
efficient multi-scale attention."""

from collections.abc import Iterable
from functools import reduce
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2attn.attention.blocks.block import Gate, Kind, Map, grid_of
from seq2attn.attention.blocks.grid import group_norm, largest, mean, wide_dtype
from seq2attn.attention.blocks.parts import BatchNorm, Positive, Start, divisor, odd, start_gate

ROW, COLUMN = (3,), (2,)  # the axes along which a row and a column lie
# The gates of triplet attention: the axis that is pooled, and an order of axes, its own inverse, in which
# that one stands where a convolution has its channels.
PLANES: dict[Kind, tuple[int, tuple[int, ...]]] = {
    "columns": (2, (0, 2, 1, 3)),
    "rows": (3, (0, 3, 2, 1)),
    "place": (1, (0, 1, 2, 3)),
}


class Coordinate(Gate):
    """x * sigmoid(W_h f_h) * sigmoid(W_w f_w), f = hswish(BN(W1 [mean of each row; mean of each column])):
    coordinate attention.

    form: paper; simple, x * sigmoid(W_h f_h + W_w f_w) with f = silu(W1 ...) and no norm; or ela (Xu & Wan
    2024, 2403.01123), sigmoid(GN(depthwise convolution of the means)) for rows and for columns. ratio: width
    C / r of f, at least 8. kernel: of ela, odd. groups: of ela's norm, or the largest number below that
    divides C. start: half, or open (0.9 each) for fine-tuning.
    """

    paper = "Hou et al. 2021, 2103.02907"

    def __init__(
        self,
        channels: int,
        *,
        form: Literal["paper", "simple", "ela"] = "paper",
        ratio: Positive = 32,
        kernel: Positive = 7,
        groups: Positive = 16,
        start: Start = "half",
    ) -> None:
        super().__init__(channels)
        self.form = form
        last: Iterable[nn.Module]
        if form == "ela":
            size = odd(kernel, "Coordinate")
            self.rows, self.columns = (
                nn.Conv2d(channels, channels, shape, padding="same", groups=channels, bias=False)
                for shape in ((size, 1), (1, size))
            )
            last = self.norms = nn.ModuleList(
                nn.GroupNorm(divisor(channels, groups), channels) for _ in range(2)
            )
        else:
            width = max(8, channels // ratio)
            self.shared = nn.Conv2d(channels, width, 1)
            self.norm = BatchNorm(width) if form == "paper" else nn.Identity()
            self.rows, self.columns = (nn.Conv2d(width, channels, 1) for _ in range(2))
            last = self.rows, self.columns
        for layer in last:
            start_gate(layer, start, terms=2 if form == "simple" else 1)

    def gates(self, x: Tensor, mask: Tensor | None) -> dict[str, Map]:
        """See the class."""
        rows, columns = self.ela(x, mask) if self.form == "ela" else self.scores(x, mask)
        if self.form == "simple":
            return {"full": Map("full", torch.sigmoid(rows + columns), grid_of(x))}
        return {
            "rows": Map("rows", torch.sigmoid(rows), grid_of(x)),
            "columns": Map("columns", torch.sigmoid(columns), grid_of(x)),
        }

    def scores(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the scores of rows (B, C, H, 1) and columns (B, C, 1, W), through one strip of H + W."""
        strip = self.norm(self.shared(torch.cat([mean(x, mask, ROW), mean(x, mask, COLUMN).mT], 2)))
        strip = F.silu(strip) if self.form == "simple" else F.hardswish(strip)
        rows, columns = strip.split(grid_of(x), 2)
        return self.rows(rows), self.columns(columns.mT)

    def ela(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the scores of rows and columns by themselves."""
        inside = [None if mask is None else mask.any(axis, keepdim=True) for axis in (3, 2)]
        convolved = self.rows(mean(x, mask, ROW)), self.columns(mean(x, mask, COLUMN))
        rows, columns = (
            group_norm(part, norm, allowed)  # type: ignore[arg-type]
            for part, norm, allowed in zip(convolved, self.norms, inside, strict=True)
        )
        return rows, columns


class Triplet(Gate):
    """The mean of three gates sigmoid(BN(f [max; mean])), pooled over channels, rows and columns, f of 7 x 7:
    triplet attention.

    kernel: of f, odd. spatial: false leaves out the gate that is pooled over the channels. start: half, or
    open (0.9) for fine-tuning. It depends on the order of channels.
    """

    paper = "Misra et al. 2021, 2010.03045"

    def __init__(
        self, channels: int, *, kernel: Positive = 7, spatial: bool = True, start: Start = "half"
    ) -> None:
        super().__init__(channels)
        size = odd(kernel, "Triplet")
        self.names = [name for name in PLANES if spatial or name != "place"]
        self.convolve = nn.ModuleDict(
            {str(name): nn.Conv2d(2, 1, size, padding=size // 2, bias=False) for name in self.names}
        )
        self.norm = nn.ModuleDict({str(name): BatchNorm(1, momentum=0.01) for name in self.names})
        for norm in self.norm.values():
            start_gate(norm, start)

    def gates(self, x: Tensor, mask: Tensor | None) -> dict[str, Map]:
        """See the class: rows are pooled over their W positions, columns over their H."""
        maps = {}
        for name in self.names:
            axis, order = PLANES[name]
            inside = None if axis == 1 else mask  # along the channels nothing is padding
            pooled = [largest(x, inside, (axis,)), mean(x, inside, (axis,))]
            plane = torch.cat(pooled, axis).permute(order)
            scores = self.norm[name](self.convolve[name](plane.contiguous()))
            maps[str(name)] = Map(name, torch.sigmoid(scores).permute(order), grid_of(x))
        return maps

    def gate(self, maps: dict[str, Map]) -> Tensor:
        """Return the mean of the gates."""
        return reduce(torch.add, (map.weights for map in maps.values())) / len(maps)


class Strip(Gate):
    """sigmoid(W relu(BN(f_h mean of each row) + BN(f_w mean of each column))), f of 3 positions: strip
    pooling.

    kernel: of f, odd. start: half, or open (0.9) for fine-tuning.
    """

    at = "middle"
    paper = "Hou et al. 2020, 2003.13328"

    def __init__(self, channels: int, *, kernel: Positive = 3, start: Start = "half") -> None:
        super().__init__(channels)
        size = odd(kernel, "Strip")
        self.rows, self.columns = (
            nn.Conv2d(channels, channels, shape, padding="same", bias=False)
            for shape in ((size, 1), (1, size))
        )
        self.norm_rows, self.norm_columns = BatchNorm(channels), BatchNorm(channels)
        self.join = nn.Conv2d(channels, channels, 1)
        start_gate(self.join, start)

    def gates(self, x: Tensor, mask: Tensor | None) -> dict[str, Map]:
        """See the class."""
        rows = self.norm_rows(self.rows(mean(x, mask, ROW)))  # (B, C, H, 1)
        columns = self.norm_columns(self.columns(mean(x, mask, COLUMN)))  # (B, C, 1, W)
        return {"full": Map("full", torch.sigmoid(self.join(F.relu(rows + columns))), grid_of(x))}


class EMA(Gate):
    """A gate for each place and group of channels, from means of rows and columns and from a 3 x 3
    convolution, each weighted by the other: efficient multi-scale attention (not the moving average).

    groups: g, or the largest number below that divides C; all groups share their layers. form: release, where
    a norm for each channel by itself makes one of the two weightings constant; or one_group, a norm over all
    channels of a group, with which it depends on the input.
    """

    paper = "Ouyang et al. 2023, 2305.13563"

    def __init__(
        self,
        channels: int,
        *,
        groups: Positive = 32,
        form: Literal["release", "one_group"] = "release",
    ) -> None:
        super().__init__(channels)
        self.groups = divisor(channels, groups)
        width = channels // self.groups
        self.strip = nn.Conv2d(width, width, 1)
        self.local = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.GroupNorm(width if form == "release" else 1, width)

    def gates(self, x: Tensor, mask: Tensor | None) -> dict[str, Map]:
        """See the class."""
        groups = x.unflatten(1, (self.groups, -1)).flatten(0, 1)  # (B g, c, H, W)
        inside = None if mask is None else mask.repeat_interleave(self.groups, 0)
        means = torch.cat([mean(groups, inside, ROW), mean(groups, inside, COLUMN).mT], 2)
        rows, columns = self.strip(means).sigmoid().split(grid_of(x), 2)
        strips = group_norm(groups * (rows * columns.mT).to(x.dtype), self.norm, inside)
        local = self.local(groups)
        scores = _weighted(strips, local, inside) + _weighted(local, strips, inside)  # (B g, 1, H, W)
        weights = torch.sigmoid(scores).unflatten(0, (len(x), -1))  # (B, g, 1, H, W)
        return {
            "full": Map("full", weights.expand(-1, -1, groups.shape[1], -1, -1).flatten(1, 2), grid_of(x))
        }


def _weighted(weighing: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the sum over channels of values, by the softmax of the means of others: (B, 1, H, W)."""
    weights = mean(weighing.to(wide_dtype(weighing)), mask).softmax(1).flatten(2).mT  # (B, 1, C)
    return (weights.to(values.dtype) @ values.flatten(2)).view(-1, 1, *grid_of(values))
