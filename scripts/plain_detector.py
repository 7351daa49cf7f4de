"""A detector in plain PyTorch, with the layers of the recipe `bccd_yolo`: what ours is measured against.

The graph is YOLOv5's (release 6) in a width of 0.1875, with two towers of convolutions on each of 3 grids.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES, BINS, WIDTH = 3, 16, 64
HEIGHT_AND_WIDTH = (256, 320)


def unit(channels: int, size: int, kernel: int = 1, stride: int = 1, padding: int | None = None) -> nn.Module:
    """Return a convolution with its norm and SiLU."""
    padding = kernel // 2 if padding is None else padding
    return nn.Sequential(
        nn.Conv2d(channels, size, kernel, stride, padding, bias=False), nn.BatchNorm2d(size), nn.SiLU()
    )


class Narrowed(nn.Module):
    """A 1x1 and a 3x3 convolution, with a shortcut or without."""

    def __init__(self, size: int, shortcut: bool) -> None:
        super().__init__()
        self.units, self.shortcut = nn.Sequential(unit(size, size), unit(size, size, 3)), shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        y: Tensor = self.units(x)
        return x + y if self.shortcut else y


class C3(nn.Module):
    """Some of these beside a 1x1 convolution, joined by another."""

    def __init__(self, channels: int, size: int, repeat: int, shortcut: bool = True) -> None:
        super().__init__()
        half = size // 2
        self.narrow, self.beside, self.join = unit(channels, half), unit(channels, half), unit(size, size)
        self.bottlenecks = nn.Sequential(*(Narrowed(half, shortcut) for _ in range(repeat)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        joined = torch.cat([self.bottlenecks(self.narrow(x)), self.beside(x)], 1)
        return self.join(joined)  # type: ignore[no-any-return]


class SPPF(nn.Module):
    """Three maxima over 5x5, one after the other, beside the features."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.narrow, self.join = unit(size, size // 2), unit(2 * size, size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        parts = [self.narrow(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        return self.join(torch.cat(parts, 1))  # type: ignore[no-any-return]


def tower(channels: int, out: int) -> nn.Module:
    """Return two 3x3 convolutions, and a 1x1 convolution to the outputs."""
    return nn.Sequential(unit(channels, WIDTH, 3), unit(WIDTH, WIDTH, 3), nn.Conv2d(WIDTH, out, 1))


class PlainDetector(nn.Module):
    """The whole: a path down, one up, one down again, and towers on three grids."""

    def __init__(self) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = 16, 24, 48, 96, 192
        self.to2 = nn.Sequential(unit(3, c1, 6, 2, 2), unit(c1, c2, 3, 2), C3(c2, c2, 1))
        self.to3 = nn.Sequential(unit(c2, c3, 3, 2), C3(c3, c3, 2))
        self.to4 = nn.Sequential(unit(c3, c4, 3, 2), C3(c4, c4, 3))
        self.to5 = nn.Sequential(unit(c4, c5, 3, 2), C3(c5, c5, 1), SPPF(c5), unit(c5, c4))
        self.up4 = nn.Sequential(C3(2 * c4, c4, 1, False), unit(c4, c3))
        self.up3 = C3(2 * c3, c3, 1, False)
        self.down4, self.again4 = unit(c3, c3, 3, 2), C3(2 * c3, c4, 1, False)
        self.down5, self.again5 = unit(c4, c4, 3, 2), C3(2 * c4, c5, 1, False)
        self.sides = nn.ModuleList(tower(size, 4 * BINS) for size in (c3, c4, c5))
        self.classes = nn.ModuleList(tower(size, CLASSES) for size in (c3, c4, c5))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores of classes, and of the distances of sides, at all points."""
        three = self.to3(self.to2(x))
        four = self.to4(three)
        five = self.to5(four)
        up4 = self.up4(torch.cat([F.interpolate(five, scale_factor=2.0), four], 1))
        up3 = self.up3(torch.cat([F.interpolate(up4, scale_factor=2.0), three], 1))
        again4 = self.again4(torch.cat([self.down4(up3), up4], 1))
        grids = up3, again4, self.again5(torch.cat([self.down5(again4), five], 1))
        classes, sides = (
            torch.cat([part(grid).flatten(2).mT for part, grid in zip(parts, grids, strict=True)], 1)
            for parts in (self.classes, self.sides)
        )
        return classes, sides.unflatten(-1, (4, BINS))
