"""A plain convolutional network, for small tasks."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from seq2attn.layers.convolution import Convolution
from seq2attn.models.vision.backbone import Backbone, BlocksAt, Features, no_blocks


class ConvNet(Backbone):
    """Stages of a 3x3 convolution and a maximum over 2x2 positions; blocks stand after a stage.

    widths: the channels of each stage. The last stage keeps its grid.
    """

    def __init__(
        self, widths: Sequence[int], channels: int = 3, norm: str = "batch", blocks: BlocksAt = no_blocks
    ) -> None:
        super().__init__()
        sizes = [channels, *widths]
        self.convolutions = nn.ModuleList(
            Convolution(before, size, norm=norm) for before, size in zip(sizes, widths, strict=False)
        )
        self.after = nn.ModuleList(blocks(stage, 0, "after", size) for stage, size in enumerate(widths))
        self.between = nn.ModuleList(blocks(stage, -1, "between", size) for stage, size in enumerate(widths))
        self.sizes, self.strides = list(widths), [2**stage for stage in range(len(widths))]

    def forward(self, images: Tensor, mask: Tensor | None = None) -> list[Features]:
        """See the base class."""
        x, stages = images, list[Features]()
        for convolution, after, between in zip(self.convolutions, self.after, self.between, strict=True):
            if stages:  # features are at least 0, and so is padding
                x = F.max_pool2d(x, 2, ceil_mode=True)
                mask = None if mask is None else mask[..., ::2, ::2]
            x, mask = convolution(x, mask)
            x = between(after(x, mask), mask)
            stages.append(Features(x, mask))
        return stages
