"""The modules that a row of a network's graph names: convolutions of the YOLO family, and rows that meet.

Each reads the features of one or several rows, (B, C, H, W) with zeros outside the mask, and returns those of
its own. Of an image with n rows of pixels, a row of stride s has a grid of ceil(n / s), whatever n is.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Gt, Le
from torch import Tensor, nn

from seq2attn.attention.blocks import Block
from seq2attn.attention.blocks.grid import zeroed
from seq2attn.attention.blocks.parts import Positive, odd
from seq2attn.attention.memory import Grid
from seq2attn.errors import NotDefinedError, Seq2attnError
from seq2attn.layers.convolution import NORMS, Blocks, normed

Activation = Literal["silu", "relu", "none"]
Share = Annotated[float, Gt(0), Le(8)]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "relu": F.relu,
    "none": lambda features: features,
}


class Shape(NamedTuple):
    """What the features of a row are like."""

    channels: int
    stride: int  # how many pixels of the image there are between two positions


def no_blocks_inside(channels: int) -> Blocks:
    """Return no blocks."""
    return Blocks()


class Style(NamedTuple):
    """What the modules of a graph have in common."""

    norm: str = "batch"
    inside: Callable[[int], Blocks] = no_blocks_inside  # channels -> blocks at the end of each bottleneck


class RowModule(nn.Module):
    """The base class of the modules of a graph. Subclass it, and add a line to MODULES.

    The constructor takes the shapes of what it reads, and a style; its keyword-only parameters are the
    options that a row of a recipe may set. It sets `shape`, that of the result, and raises Seq2attnError for
    shapes that it cannot read.
    """

    reads: ClassVar[tuple[int, int | None]] = (1, 1)  # the least and the largest number of rows; None: any
    scaled: ClassVar[tuple[str, ...]] = ("size", "repeat")  # options that follow width and depth of a graph
    shape: Shape

    def forward(self, inputs: Sequence[Tensor], grid: Grid, mask: Tensor | None) -> Tensor:
        """Return features (B, C, *grid), zero outside the mask (B, 1, *grid)."""
        raise NotDefinedError(f"{type(self).__name__} must define what it does: write forward()")


class ConvolutionUnit(nn.Module):
    """activation(norm(convolution)), for a kernel of any size: n positions become ceil(n / stride)."""

    def __init__(
        self,
        channels: int,
        size: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        norm: str = "batch",
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        if channels % groups or size % groups:
            raise Seq2attnError(
                f"groups must divide {channels} channels that it reads and {size} that it makes, got {groups}"
            )
        self.conv = nn.Conv2d(channels, size, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
        # Uniform, of the same variance: normal ones take 5 ms on the meta device, where graphs are checked.
        nn.init.kaiming_uniform_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.norm, self.activation, self.even = NORMS[norm](size), activation, kernel % 2 == 0

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the features; mask: of the result."""
        # An even kernel has its middle before the middle: one more position behind makes up for it.
        y = normed(self.norm, self.conv(F.pad(x, (0, 1, 0, 1)) if self.even else x), mask)
        return zeroed(ACTIVATIONS[self.activation](y), mask)


class ResidualBottleneck(nn.Module):
    """A 1x1 and a 3x3 convolution, the blocks inside, and a shortcut around them if the channels agree."""

    def __init__(
        self, channels: int, size: int, hidden: int, groups: int, shortcut: bool, style: Style
    ) -> None:
        super().__init__()
        self.narrow = ConvolutionUnit(channels, hidden, norm=style.norm)
        self.wide = ConvolutionUnit(hidden, size, 3, groups=groups, norm=style.norm)
        self.inside, self.shortcut = style.inside(size), shortcut and channels == size

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """See the class."""
        y: Tensor = self.inside(self.wide(self.narrow(x, mask), mask), mask)
        return x + y if self.shortcut else y


class Conv(RowModule):
    """A convolution, its norm and an activation. The grid is divided by the stride."""

    def __init__(
        self,
        inputs: Sequence[Shape],
        style: Style,
        *,
        size: Positive | None = None,
        kernel: Positive = 3,
        stride: Positive = 1,
        groups: Positive = 1,
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        channels, before = inputs[0]
        self.shape = Shape(size or channels, before * stride)
        self.unit = ConvolutionUnit(
            channels, self.shape.channels, kernel, stride, groups, style.norm, activation
        )

    def forward(self, inputs: Sequence[Tensor], grid: Grid, mask: Tensor | None) -> Tensor:
        """See the base class."""
        y: Tensor = self.unit(inputs[0], mask)
        return y


class Bottleneck(RowModule):
    """A 1x1 and a 3x3 convolution with a shortcut around them, `repeat` times."""

    def __init__(
        self,
        inputs: Sequence[Shape],
        style: Style,
        *,
        size: Positive | None = None,
        repeat: Positive = 1,
        shortcut: bool = True,
        groups: Positive = 1,
        expansion: Share = 0.5,
    ) -> None:
        super().__init__()
        channels, stride = inputs[0]
        self.shape = Shape(size or channels, stride)
        width = self.shape.channels
        self.bottlenecks = nn.ModuleList(
            ResidualBottleneck(before, width, _part(width, expansion), groups, shortcut, style)
            for before in [channels, *[width] * (repeat - 1)]
        )

    def forward(self, inputs: Sequence[Tensor], grid: Grid, mask: Tensor | None) -> Tensor:
        """See the base class."""
        x: Tensor = inputs[0]
        for bottleneck in self.bottlenecks:
            x = bottleneck(x, mask)
        return x


class C3(RowModule):
    """`repeat` bottlenecks beside a 1x1 convolution, joined by another (Wang et al. 2020; as in YOLOv5)."""

    def __init__(
        self,
        inputs: Sequence[Shape],
        style: Style,
        *,
        size: Positive | None = None,
        repeat: Positive = 1,
        shortcut: bool = True,
        groups: Positive = 1,
        expansion: Share = 0.5,
    ) -> None:
        super().__init__()
        channels, stride = inputs[0]
        self.shape = Shape(size or channels, stride)
        hidden = _part(self.shape.channels, expansion)
        self.narrow = ConvolutionUnit(channels, hidden, norm=style.norm)
        self.beside = ConvolutionUnit(channels, hidden, norm=style.norm)
        self.bottlenecks = nn.ModuleList(
            ResidualBottleneck(hidden, hidden, hidden, groups, shortcut, style) for _ in range(repeat)
        )
        self.join = ConvolutionUnit(2 * hidden, self.shape.channels, norm=style.norm)

    def forward(self, inputs: Sequence[Tensor], grid: Grid, mask: Tensor | None) -> Tensor:
        """See the base class."""
        y = self.narrow(inputs[0], mask)
        for bottleneck in self.bottlenecks:
            y = bottleneck(y, mask)
        z: Tensor = self.join(torch.cat([y, self.beside(inputs[0], mask)], 1), mask)
        return z


class C2f(RowModule):
    """`repeat` bottlenecks of two 3x3 convolutions, one after the other on half of the channels; a 1x1
    convolution joins what all of them have made (as in YOLOv8)."""

    def __init__(
        self,
        inputs: Sequence[Shape],
        style: Style,
        *,
        size: Positive | None = None,
        repeat: Positive = 1,
        shortcut: bool = True,
        groups: Positive = 1,
        expansion: Share = 0.5,
    ) -> None:
        super().__init__()
        channels, stride = inputs[0]
        self.shape = Shape(size or channels, stride)
        self.hidden = _part(self.shape.channels, expansion)
        self.split = ConvolutionUnit(channels, 2 * self.hidden, norm=style.norm)
        self.bottlenecks = nn.ModuleList(
            ThreeByThree(self.hidden, groups, shortcut, style) for _ in range(repeat)
        )
        self.join = ConvolutionUnit((2 + repeat) * self.hidden, self.shape.channels, norm=style.norm)

    def forward(self, inputs: Sequence[Tensor], grid: Grid, mask: Tensor | None) -> Tensor:
        """See the base class."""
        made = list(self.split(inputs[0], mask).split(self.hidden, 1))
        for bottleneck in self.bottlenecks:
            made.append(bottleneck(made[-1], mask))
        y: Tensor = self.join(torch.cat(made, 1), mask)
        return y


class ThreeByThree(nn.Module):
    """Two 3x3 convolutions, the blocks inside, and a shortcut around them."""

    def __init__(self, size: int, groups: int, shortcut: bool, style: Style) -> None:
        super().__init__()
        self.first = ConvolutionUnit(size, size, 3, norm=style.norm)
        self.second = ConvolutionUnit(size, size, 3, groups=groups, norm=style.norm)
        self.inside, self.shortcut = style.inside(size), shortcut

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """See the class."""
        y: Tensor = self.inside(self.second(self.first(x, mask), mask), mask)
        return x + y if self.shortcut else y


class SPPF(RowModule):
    """Maxima over three growing neighbourhoods, beside the features (spatial pyramid pooling, He et al. 2014;
    one after the other, as in YOLOv5)."""

    def __init__(
        self,
        inputs: Sequence[Shape],
        style: Style,
        *,
        size: Positive | None = None,
        kernel: Positive = 5,
    ) -> None:
        super().__init__()
        channels, stride = inputs[0]
        self.shape, self.kernel = Shape(size or channels, stride), odd(kernel, "sppf")
        hidden = _part(channels, 0.5)
        self.narrow = ConvolutionUnit(channels, hidden, norm=style.norm)
        self.join = ConvolutionUnit(4 * hidden, self.shape.channels, norm=style.norm)

    def forward(self, inputs: Sequence[Tensor], grid: Grid, mask: Tensor | None) -> Tensor:
        """See the base class."""
        pooled = [self.narrow(inputs[0], mask)]
        for _ in range(3):
            x = pooled[-1]
            if mask is not None:  # features may be negative, and padding, which is 0, is no maximum of them
                x = x.masked_fill(~mask, torch.finfo(x.dtype).min)
            pooled.append(zeroed(F.max_pool2d(x, self.kernel, 1, self.kernel // 2), mask))
        y: Tensor = self.join(torch.cat(pooled, 1), mask)
        return y


class Upsample(RowModule):
    """Each position `factor` times in each direction. Where an image ends within, the grid is cut there."""

    def __init__(self, inputs: Sequence[Shape], style: Style, *, factor: Positive = 2) -> None:
        super().__init__()
        channels, stride = inputs[0]
        if stride % factor:
            raise Seq2attnError(
                f"cannot enlarge the grid {factor} times: its stride of {stride} is no multiple of it"
            )
        self.shape, self.factor = Shape(channels, stride // factor), factor

    def forward(self, inputs: Sequence[Tensor], grid: Grid, mask: Tensor | None) -> Tensor:
        """See the base class."""
        x: Tensor = F.interpolate(inputs[0], scale_factor=float(self.factor), mode="nearest")
        return zeroed(x[..., : grid[0], : grid[1]], mask)


class Concat(RowModule):
    """The channels of all rows that it reads, one after the other."""

    reads = (2, None)

    def __init__(self, inputs: Sequence[Shape], style: Style) -> None:
        super().__init__()
        self.shape = Shape(sum(shape.channels for shape in inputs), _one_stride(inputs))

    def forward(self, inputs: Sequence[Tensor], grid: Grid, mask: Tensor | None) -> Tensor:
        """See the base class."""
        return torch.cat(list(inputs), 1)


class Add(RowModule):
    """The sum of all rows that it reads, which need the same channels."""

    reads = (2, None)

    def __init__(self, inputs: Sequence[Shape], style: Style) -> None:
        super().__init__()
        if len({shape.channels for shape in inputs}) > 1:
            raise Seq2attnError("adds rows with different numbers of channels; shortcut makes them equal")
        self.shape = Shape(inputs[0].channels, _one_stride(inputs))

    def forward(self, inputs: Sequence[Tensor], grid: Grid, mask: Tensor | None) -> Tensor:
        """See the base class."""
        return torch.stack(list(inputs)).sum(0)


class Shortcut(RowModule):
    """The first row that it reads plus an earlier one, which a 1x1 convolution brings to its channels and its
    grid if they differ (He et al. 2016, option B)."""

    reads = (2, 2)

    def __init__(self, inputs: Sequence[Shape], style: Style, *, activation: Activation = "none") -> None:
        super().__init__()
        self.shape, (channels, stride) = inputs[0], inputs[1]
        self.activation = activation
        if self.shape.stride % stride:
            raise Seq2attnError("the second row that it reads must have the finer grid")
        self.fit = None
        if inputs[0] != inputs[1]:
            self.fit = ConvolutionUnit(
                channels,
                self.shape.channels,
                stride=self.shape.stride // stride,
                norm=style.norm,
                activation="none",
            )

    def forward(self, inputs: Sequence[Tensor], grid: Grid, mask: Tensor | None) -> Tensor:
        """See the base class."""
        skipped = inputs[1] if self.fit is None else self.fit(inputs[1], mask)
        return ACTIVATIONS[self.activation](inputs[0] + skipped)


class RowBlock(RowModule):
    """An attention block as a row.

    name: of the row, for those who look at the block's maps.
    """

    def __init__(self, inputs: Sequence[Shape], block: Block, name: str) -> None:
        super().__init__()
        self.shape = Shape(block.out_channels, inputs[0].stride)
        self.blocks = Blocks([block], f"row {name}")

    def forward(self, inputs: Sequence[Tensor], grid: Grid, mask: Tensor | None) -> Tensor:
        """See the base class."""
        y: Tensor = self.blocks(inputs[0], mask)
        return y


def _part(channels: int, share: float) -> int:
    return max(1, int(channels * share))


def _one_stride(inputs: Sequence[Shape]) -> int:
    """Return the stride of all rows. Seq2attnError if they have several."""
    if len({shape.stride for shape in inputs}) > 1:
        raise Seq2attnError("reads rows with different grids: bring them to one by upsample, or a stride")
    return inputs[0].stride


MODULES: dict[str, type[RowModule]] = {
    "conv": Conv,
    "c3": C3,
    "c2f": C2f,
    "bottleneck": Bottleneck,
    "sppf": SPPF,
    "upsample": Upsample,
    "concat": Concat,
    "add": Add,
    "shortcut": Shortcut,
}
