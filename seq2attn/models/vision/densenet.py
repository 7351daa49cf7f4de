"""The densely connected network (Huang et al. 2017) that reads handwritten formulas (Zhang et al. 2018)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2attn.attention.blocks.grid import zeroed
from seq2attn.layers.convolution import Convolution, strided
from seq2attn.models.vision.backbone import Backbone, BlocksAt, Features, no_blocks

BOTTLENECK = 4  # the width of the 1x1 convolution, as a multiple of the growth


class DenseNet(Backbone):
    """Stages of dense layers, at 1/4, 1/8, 1/16, ... of the size.

    A layer reads the features of all layers before it in its stage, and adds `growth` to them. Between two
    stages a 1x1 convolution halves the channels, and a mean over 2x2 positions the grid.

    layers: of each stage; stem: channels of the first convolution, 7x7 with a stride of 2; dropout: the rate
    after each layer and transition.
    """

    def __init__(
        self,
        layers: Sequence[int],
        growth: int,
        stem: int,
        channels: int = 3,
        norm: str = "batch",
        dropout: float = 0.0,
        blocks: BlocksAt = no_blocks,
    ) -> None:
        super().__init__()
        self.stem, self.dropout = Convolution(channels, stem, 7, 2, norm), dropout
        self.stages, self.transitions = nn.ModuleList(), nn.ModuleList()
        self.after = nn.ModuleList()
        self.sizes, size = [], stem
        for stage, count in enumerate(layers):
            if stage:
                self.transitions.append(Convolution(size, size // 2, 1, 1, norm))
                size //= 2
            units = nn.Sequential()
            for _ in range(count):
                units.append(DenseLayer(size, growth, norm, dropout))
                size += growth
            self.stages.append(units)
            self.after.append(blocks(stage, -1, "between", size))
            self.sizes.append(size)
        self.strides = [4 * 2**stage for stage in range(len(layers))]

    def forward(self, images: Tensor, mask: Tensor | None = None) -> list[Features]:
        """See the base class."""
        x, mask = self.stem(images, mask)
        x, stages = F.max_pool2d(x, 2, ceil_mode=True), list[Features]()  # padding is 0, and nothing is less
        mask = None if mask is None else strided(mask, 2)
        for stage, (units, after) in enumerate(zip(self.stages, self.after, strict=True)):
            if stage:
                x, _ = self.transitions[stage - 1](x, mask)
                x, mask = _halved(F.dropout(x, self.dropout, self.training), mask)
            x, mask = units((x, mask))
            x = after(x, mask)
            stages.append(Features(x, mask))
        return stages


class DenseLayer(nn.Module):
    """The features of the input, and behind them `growth` more, by a 1x1 and a 3x3 convolution."""

    def __init__(self, channels: int, growth: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.narrow = Convolution(channels, BOTTLENECK * growth, 1, 1, norm)
        self.wide, self.dropout = Convolution(BOTTLENECK * growth, growth, 3, 1, norm), dropout

    def forward(self, features: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        """Return the features and their mask, for those of the input."""
        x, mask = features
        y, _ = self.wide(*self.narrow(x, mask))
        return torch.cat([x, F.dropout(y, self.dropout, self.training)], 1), mask


def _halved(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the means over 2x2 positions, at the rim over those that there are; and their mask."""
    means = F.avg_pool2d(x, 2, ceil_mode=True)
    if mask is None:
        return means, None
    share = F.avg_pool2d(mask.to(x.dtype), 2, ceil_mode=True)  # of the positions that are on the image
    mask = strided(mask, 2)
    return zeroed(means / share.clamp(min=0.25), mask), mask
