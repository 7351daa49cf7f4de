"""Networks that give each pixel of an image a class: U-Net, and a head over the features of a backbone.

Letters: B batch, C channels, K classes, H x W pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seq2attn.attention.blocks import Block
from seq2attn.attention.blocks.grid import zeroed
from seq2attn.attention.blocks.heads import DANet
from seq2attn.errors import NotDefinedError
from seq2attn.layers.convolution import Blocks, Convolution, strided
from seq2attn.models.vision.backbone import Backbone, BlocksAt, Features, no_blocks
from seq2attn.models.vision.enlarging import doubled, enlarged


class PixelScores(NamedTuple):
    """Scores of the classes of pixels."""

    scores: Tensor  # (B, K, H, W), logits
    auxiliary: tuple[Tensor, ...] = ()  # further logits, which only training uses


class SegmentationNet(nn.Module):
    """The base class of networks that give each pixel a class."""

    def forward(
        self, images: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B 1 H W"] | None = None
    ) -> PixelScores:
        """Return scores for images of any size, padded at the bottom and on the right; True in the mask = a
        pixel of the image. In evaluation, an image has the scores that it has alone."""
        raise NotDefinedError(f"{type(self).__name__} must define its scores: write forward()")


class UNet(SegmentationNet):
    """Rows of two convolutions, each at half the size of the one before, and back to the full size, where
    each row also reads the features of the row of its size (Ronneberger et al. 2015).

    Convolutions keep the size, are followed by a norm, and grids are halved rounding up, so that images of
    any size fit. A coarser row is enlarged to the size of the finer one by copies of its positions.

    sizes: the channels of the rows, from fine to coarse; encoder, decoder: the blocks behind the convolutions
    of each row; dropout: the rate at which whole channels are dropped before the classifier.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        channels: int,
        labels: Sequence[str],
        norm: str = "batch",
        encoder: BlocksAt = no_blocks,
        decoder: BlocksAt = no_blocks,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.labels = list(labels)
        before = [channels, *sizes]
        self.encoder = nn.ModuleList(
            Row(before[level], size, norm, encoder(level, -1, "after", size))
            for level, size in enumerate(sizes)
        )
        self.decoder = nn.ModuleList(
            Row(size + sizes[level + 1], size, norm, decoder(level, -1, "after", size))
            for level, size in enumerate(sizes[:-1])
        )
        self.dropout, self.output = nn.Dropout2d(dropout), nn.Conv2d(sizes[0], len(labels), 1)

    def forward(
        self, images: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B 1 H W"] | None = None
    ) -> PixelScores:
        """See the base class."""
        x, skips = images, list[tuple[Tensor, Tensor | None]]()
        for level, row in enumerate(self.encoder):
            if level:
                x, mask = halved(x, mask)
            x = row(x, mask)
            skips.append((x, mask))
        for row, (skip, mask) in zip(reversed(self.decoder), reversed(skips[:-1]), strict=True):
            coarse = doubled(x, (skip.shape[2], skip.shape[3]))
            x = row(torch.cat([skip, zeroed(coarse, mask)], 1), mask)
        return PixelScores(self.output(self.dropout(x)))


class Row(nn.Module):
    """Two convolutions with norm and ReLU, and blocks behind them."""

    def __init__(self, channels: int, size: int, norm: str, blocks: Blocks) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            [Convolution(channels, size, norm=norm), Convolution(size, size, norm=norm)]
        )
        self.blocks = blocks

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """See the class."""
        for convolution in self.convolutions:
            x, _ = convolution(x, mask)
        return self.blocks(x, mask)  # type: ignore[no-any-return]


def halved(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the maximum over 2 x 2 positions, and its mask; features may be negative, and padding does not
    count."""
    if mask is None:
        return F.max_pool2d(x, 2, ceil_mode=True), None
    smaller = strided(mask, 2)
    lowest = x.masked_fill(~mask, torch.finfo(x.dtype).min)
    return zeroed(F.max_pool2d(lowest, 2, ceil_mode=True), smaller), smaller


class HeadNet(SegmentationNet):
    """A head over the last stage of a backbone, whose scores are enlarged bilinearly to the pixels (Long et
    al. 2015; Chen et al. 2017).

    head: features -> scores; auxiliary: classifiers with a loss of their own.
    """

    def __init__(self, backbone: Backbone, labels: Sequence[str], head: "Head", auxiliary: bool) -> None:
        super().__init__()
        self.backbone, self.labels, self.head = backbone, list(labels), head
        self.auxiliary = head.classifiers(backbone, len(labels)) if auxiliary else None

    def forward(
        self, images: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B 1 H W"] | None = None
    ) -> PixelScores:
        """See the base class."""
        features = self.backbone(images, mask)
        size = images.shape[2], images.shape[3]
        if self.auxiliary is None or not self.training:
            coarse, others = self.head(features[-1]), list[tuple[Tensor, int]]()
        else:
            coarse, others = self.head.with_auxiliary(features, self.auxiliary)
        whole = [
            enlarged(scores, features[stage].mask, self.backbone.strides[stage], size)
            for scores, stage in [(coarse, -1), *others]
        ]
        return PixelScores(whole[0], tuple(whole[1:]))


class Head(nn.Module):
    """The base class of heads: features of the last stage -> scores (B, K, rows, columns).

    Unless a subclass says otherwise, the auxiliary classifier reads the stage before the last, as in CCNet.
    """

    norm: str

    def forward(self, features: Features) -> Tensor:
        """Return the scores of each position."""
        raise NotDefinedError(f"{type(self).__name__} must define its scores: write forward()")

    def classifiers(self, backbone: Backbone, classes: int) -> nn.Module:
        """Return the auxiliary classifiers."""
        channels = backbone.sizes[-2]
        return PlainHead(channels, max(1, channels // 4), classes, self.norm)

    def with_auxiliary(
        self, features: list[Features], auxiliary: nn.Module
    ) -> tuple[Tensor, list[tuple[Tensor, int]]]:
        """Return the scores, and those of the auxiliary classifiers, each with the number of its stage."""
        return self(features[-1]), [(auxiliary(features[-2]), -2)]


class PlainHead(Head):
    """A 3x3 convolution, dropout of whole channels, and a 1x1 convolution."""

    def __init__(self, channels: int, size: int, classes: int, norm: str, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm, self.convolution = norm, Convolution(channels, size, norm=norm)
        self.dropout, self.output = nn.Dropout2d(dropout), nn.Conv2d(size, classes, 1)

    def forward(self, features: Features) -> Tensor:
        """See the base class."""
        x, _ = self.convolution(features.states, features.mask)
        scores: Tensor = self.output(self.dropout(x))
        return scores


class ASPPHead(Head):
    """The block aspp, with its own dropout, and a 1x1 convolution: the head of DeepLabv3 (Chen et al.)."""

    def __init__(self, block: Block, classes: int, norm: str) -> None:
        super().__init__()
        self.block, self.norm = block, norm
        self.output = nn.Conv2d(block.out_channels, classes, 1)

    def forward(self, features: Features) -> Tensor:
        """See the base class."""
        scores: Tensor = self.output(self.block(features.states, features.mask))
        return scores


class DANetHead(Head):
    """The block danet, whose last convolution is the classifier; each of its two branches can have an
    auxiliary one (Fu et al. 2019)."""

    def __init__(self, block: DANet, norm: str) -> None:
        super().__init__()
        self.block, self.norm = block, norm

    def forward(self, features: Features) -> Tensor:
        """See the base class."""
        scores: Tensor = self.block(features.states, features.mask)
        return scores

    def classifiers(self, backbone: Backbone, classes: int) -> nn.Module:
        """See the base class."""
        size = self.block.project.in_channels
        return nn.ModuleList(nn.Conv2d(size, classes, 1) for _ in range(2))

    def with_auxiliary(
        self, features: list[Features], auxiliary: nn.Module
    ) -> tuple[Tensor, list[tuple[Tensor, int]]]:
        """See the base class."""
        summands, _ = self.block.summands(features[-1].states, features[-1].mask)
        both = zip(auxiliary.children(), summands, strict=True)
        scores = self.block.project(self.block.dropout(summands[0] + summands[1]))
        return scores, [(classifier(self.block.dropout(part)), -1) for classifier, part in both]


class BlockHead(Head):
    """W_2 [x; f_2 block(f_1 x)], f 3x3 convolutions to `size` channels, W_2 another one and a classifier: the
    head of CCNet (Huang et al. 2019), for any block that keeps its channels."""

    def __init__(self, channels: int, block: Block, classes: int, norm: str, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm, size = norm, block.channels
        self.enter, self.block = Convolution(channels, size, norm=norm), block
        self.leave = Convolution(size, size, norm=norm)
        self.join = PlainHead(channels + size, size, classes, norm, dropout)

    def forward(self, features: Features) -> Tensor:
        """See the base class."""
        x, mask = features.states, features.mask
        y, _ = self.enter(x, mask)
        y, _ = self.leave(self.block(y, mask), mask)
        scores: Tensor = self.join(Features(torch.cat([x, y], 1), mask))
        return scores
