"""Residual networks: those for small images (He et al. 2016, section 4.2), and those for ImageNet.

Blocks of attention stand in the residual branch, behind a unit, or between stages (docs/blocks.md).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from seq2attn.attention.blocks.grid import zeroed
from seq2attn.layers.basic import DropPath, depth_rates
from seq2attn.layers.convolution import Blocks, Convolution, strided
from seq2attn.layers.resnet_forms import EXPANSION, Form
from seq2attn.models.vision.backbone import Backbone, BlocksAt, Features, no_blocks


class ResNet(Backbone):
    """A residual network.

    In networks of the small form shortcuts drop every second position and pad channels with zeros (option A);
    in the others they are 1x1 convolutions (option B); the 3x3 convolution of a bottleneck has the stride.
    Where the form limits the stride, a stage that would be coarser keeps the grid of the one before, and its
    3x3 convolutions are dilated from the first one on that would have had the stride: at every second
    position of each side, features are those of the network without the limit.

    channels: of images; blocks: the blocks at each place; last_norm_zero: the last norm of each branch starts
    at 0, so that a unit starts as its shortcut (Goyal et al. 2017); drop_path: the rate of `DropPath` in the
    last unit.
    """

    def __init__(
        self,
        form: Form,
        channels: int = 3,
        norm: str = "batch",
        blocks: BlocksAt = no_blocks,
        last_norm_zero: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        first, small = form.widths[0], form.stem == "small"
        self.stem = Convolution(channels, first, 3 if small else 7, 1 if small else 2, norm)
        self.max_pool = not small
        expansion = EXPANSION if form.bottleneck else 1
        self.sizes = [width * expansion for width in form.widths]
        self.strides = form.strides
        self.stages, self.between = nn.ModuleList(), nn.ModuleList()
        size, rates = first, iter(depth_rates(drop_path, sum(form.units)))
        stride, dilation = form.first_stride, 1
        for stage, (width, count) in enumerate(zip(form.widths, form.units, strict=True)):
            units = nn.Sequential()
            for unit in range(count):
                at = _Unit(stage, unit, form.strides[stage] // stride, next(rates), dilation)
                stride, dilation = form.strides[stage], form.dilations[stage]
                units.append(_unit(size, width, at, form, norm, blocks))
                size = width * expansion
            self.stages.append(units)
            self.between.append(blocks(stage, -1, "between", size))
        for module in self.modules():
            if last_norm_zero and isinstance(module, ResidualUnit):
                module.start_as_shortcut()

    def forward(self, images: Tensor, mask: Tensor | None = None) -> list[Features]:
        """See the base class."""
        x, mask = self.stem(images, mask)
        if self.max_pool:  # padding is 0, and nothing is less
            mask = None if mask is None else strided(mask, 2)
            x = zeroed(F.max_pool2d(x, 3, 2, 1), mask)
        stages = []
        for stage, between in zip(self.stages, self.between, strict=True):
            x, mask = stage((x, mask))
            x = between(x, mask)
            stages.append(Features(x, mask))
        return stages


class ResidualUnit(nn.Module):
    """relu(shortcut(x) + f(x)), with f of some convolutions, and blocks in f and behind the sum.

    spatial: the index of the 3x3 convolution behind which the place `middle` is; drop_path: the rate at which
    f is dropped.
    """

    def __init__(
        self,
        convolutions: Sequence[Convolution],
        shortcut: nn.Module,
        spatial: int,
        middle: Blocks,
        residual: Blocks,
        after: Blocks,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.convolutions, self.shortcut, self.spatial = nn.ModuleList(convolutions), shortcut, spatial
        self.middle, self.residual, self.after = middle, residual, after
        self.drop_path = DropPath(drop_path)

    def start_as_shortcut(self) -> None:
        """Let the last norm start at 0."""
        weight = self.convolutions[-1].get_submodule("norm").weight
        if isinstance(weight, Tensor):
            nn.init.zeros_(weight)

    def forward(self, features: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        """Return the features and their mask, for those of the input."""
        x, mask = y, smaller = features
        for index, convolution in enumerate(self.convolutions):
            y, smaller = convolution(y, smaller)
            if index == self.spatial:
                y = self.middle(y, smaller)
        y = F.relu(self.drop_path(self.residual(y, smaller)) + self.shortcut(x, mask)[0])
        return self.after(y, smaller), smaller


class PaddedShortcut(nn.Module):
    """Every stride-th position, with channels of zeros in front and behind (option A of He et al. 2016)."""

    def __init__(self, channels: int, size: int, stride: int) -> None:
        super().__init__()
        self.before, self.stride = (size - channels) // 2, stride
        self.behind = size - channels - self.before

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """See the class."""
        return F.pad(strided(x, self.stride), (0, 0, 0, 0, self.before, self.behind)), mask


class _Unit(NamedTuple):
    """Where a unit stands."""

    stage: int
    number: int  # within the stage
    stride: int
    drop_path: float
    dilation: int  # of its first 3x3 convolution; the others have that of the stage


def _unit(size: int, width: int, at: _Unit, form: Form, norm: str, blocks: BlocksAt) -> ResidualUnit:
    """Return a unit from `size` channels."""
    out, stride = width * (EXPANSION if form.bottleneck else 1), at.stride
    replaced = blocks(at.stage, at.number, "replace", width)
    if form.bottleneck:
        convolutions = [
            Convolution(size, width, 1, 1, norm),
            Convolution(width, width, 3, stride, norm, replaced_by=replaced).dilated(at.dilation),
            Convolution(width, out, 1, 1, norm, activation=False),
        ]
    else:
        convolutions = [
            Convolution(size, width, 3, stride, norm).dilated(at.dilation),
            Convolution(width, out, 3, 1, norm, activation=False, replaced_by=replaced).dilated(
                form.dilations[at.stage]
            ),
        ]
    shortcut: nn.Module = PaddedShortcut(size, out, stride)
    if form.stem == "large" and (size != out or stride > 1):
        shortcut = Convolution(size, out, 1, stride, norm, activation=False)
    spatial = 1 if form.bottleneck else 0
    middle, residual, after = (
        blocks(at.stage, at.number, place, channels)  # type: ignore[arg-type]
        for place, channels in (("middle", width), ("residual", out), ("after", out))
    )
    return ResidualUnit(convolutions, shortcut, spatial, middle, residual, after, at.drop_path)
