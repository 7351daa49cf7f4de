"""Heads of segmentation networks, which look around at several distances: ASPP and DANet.

Letters: B batch, C channels, D channels of a branch, H x W the grid.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Lt
from torch import Tensor, nn

from seq2attn.attention.blocks.block import Block, Looked, Map, keeping_channels
from seq2attn.attention.blocks.grid import mean, zeroed
from seq2attn.attention.blocks.looks import CAM, PAM
from seq2attn.attention.blocks.options import Part, part
from seq2attn.attention.blocks.parts import BatchNorm, Positive, VectorNorm, vector_norm
from seq2attn.attention.blocks.table import BLOCKS

DropoutRate = Annotated[float, Ge(0), Lt(1)]


class ASPP(Block):
    """relu(BN(W g([f_1 x; f_r x; ...; relu(norm(W_p mean))]))): a 1 x 1 convolution f_1, 3 x 3 convolutions
    f_r of dilation r, each with BN and ReLU, the mean over the grid at every place, and a gate g: atrous
    spatial pyramid pooling.

    rates: r of each 3 x 3 convolution; beyond half of the grid it is little more than a 1 x 1 convolution.
    gate: any block, by its name or {name: ..., and its options}, for the channels of all branches together:
    se makes SE-ASPP; null: none. size: channels of a branch and of the result, C if null; in a network they
    stay C. norm: of the mean; batch is the paper's, and cannot train on a batch of one. dropout: its rate, at
    the end.
    """

    at = "between"
    paper = "Chen et al. 2017, 1706.05587"

    def __init__(
        self,
        channels: int,
        *,
        rates: Sequence[Positive] = (6, 12, 18),
        gate: Part | None = None,
        size: Positive | None = None,
        norm: VectorNorm = "layer",
        dropout: DropoutRate = 0.1,
    ) -> None:
        super().__init__(channels)
        self.out_channels = size = size or channels
        self.rates = list(rates)
        self.branches = nn.ModuleList(
            [
                _convolution(channels, size, 1),
                *(_convolution(channels, size, 3, dilation=rate) for rate in rates),
            ]
        )
        self.pool = nn.Linear(channels, size, bias=norm == "none")
        self.pool_norm = vector_norm(norm, size)
        joined = (len(self.branches) + 1) * size
        self.gate: Block | None = None if gate is None else keeping_channels(part(BLOCKS, gate, joined))
        self.project, self.dropout = _convolution(joined, size, 1), nn.Dropout(dropout)

    def attend(self, x: Tensor, mask: Tensor | None, need_weights: bool) -> Looked:
        """See the class. The maps are those of the gate."""
        pooled = F.relu(self.pool_norm(self.pool(mean(x, mask).flatten(1))))  # (B, D)
        everywhere = pooled[..., None, None].expand(-1, -1, *x.shape[2:])
        joined = torch.cat([*(branch(x) for branch in self.branches), everywhere.to(x.dtype)], 1)
        maps = dict[str, Map]()
        if self.gate is not None:
            joined, maps = self.gate.attend(zeroed(joined, mask), mask, need_weights)
        return Looked(self.dropout(self.project(joined)), maps)


class DANet(Block):
    """W (f_1' pam(f_1 x) + f_2' cam(f_2 x)), f 3 x 3 convolutions to C / r channels with BN and ReLU: the
    head of the dual attention network.

    ratio: r. sign, normalize: of `cam`. size: channels of the result, C if null; in a network they stay C.
    dropout: the rate at which whole channels are dropped before W. The release also trains a classifier on
    each of the two summands.
    """

    at = "between"
    paper = "Fu et al. 2019, 1809.02983"

    def __init__(
        self,
        channels: int,
        *,
        ratio: Positive = 4,
        sign: Literal["dissimilar", "similar"] = "dissimilar",
        normalize: bool = False,
        size: Positive | None = None,
        dropout: DropoutRate = 0.1,
    ) -> None:
        super().__init__(channels)
        self.out_channels = size or channels
        width = max(channels // ratio, 1)
        self.enter = nn.ModuleList(_convolution(channels, width, 3) for _ in range(2))
        self.leave = nn.ModuleList(_convolution(width, width, 3) for _ in range(2))
        self.position, self.channel = PAM(width), CAM(width, sign=sign, normalize=normalize)
        self.dropout, self.project = nn.Dropout2d(dropout), nn.Conv2d(width, self.out_channels, 1)

    def attend(self, x: Tensor, mask: Tensor | None, need_weights: bool) -> Looked:
        """See the class."""
        (first, second), maps = self.summands(x, mask, need_weights)
        return Looked(self.project(self.dropout(first + second)), maps)

    def summands(
        self, x: Tensor, mask: Tensor | None, need_weights: bool = False
    ) -> tuple[tuple[Tensor, Tensor], dict[str, Map]]:
        """Return the features (B, C / r, H, W) of the branch of positions and of that of channels, and their
        maps."""
        looks = [
            look.attend(zeroed(enter(x), mask), mask, need_weights)
            for enter, look in zip(self.enter, (self.position, self.channel), strict=True)
        ]
        first, second = (
            leave(zeroed(looked.features, mask)) for leave, looked in zip(self.leave, looks, strict=True)
        )
        return (first, second), {name: map for looked in looks for name, map in looked.maps.items()}


def _convolution(channels: int, size: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """Return a convolution that keeps the grid, with batch normalisation and ReLU."""
    padding = kernel // 2 * dilation
    return nn.Sequential(
        nn.Conv2d(channels, size, kernel, padding=padding, dilation=dilation, bias=False),
        BatchNorm(size),
        nn.ReLU(inplace=True),
    )
