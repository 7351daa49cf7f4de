"""Convolutions of images of several sizes in one batch.

After each norm the features are multiplied by the mask: batch normalisation makes something of padding, which
the next convolution would carry into the image. So an image has the same features in any batch.

Letters: B batch, C channels, H x W the grid.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from seq2attn.attention.blocks import Block
from seq2attn.attention.blocks.grid import zeroed
from seq2attn.attention.blocks.parts import BatchNorm, divisor
from seq2attn.attention.precision import full_precision

GROUPS = 32  # of group normalisation (Wu & He 2018), or as many as divide the channels


class MaskedBatchNorm(BatchNorm):
    """Batch normalisation whose statistics leave padding out."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """See the class."""
        if mask is None or not self.training:
            return super().forward(x)
        with full_precision(x.device):
            wide = zeroed(x.to(self.weight.dtype), mask)
            count = mask.sum()
            average = wide.sum((0, 2, 3)) / count.clamp(min=1)  # (C,)
            centred = zeroed(wide - average[:, None, None], mask)
            variance = centred.square().sum((0, 2, 3)) / count.clamp(min=1)
            self._update(average.detach(), (variance * count / (count - 1).clamp(min=1)).detach())
            scale = self.weight * torch.rsqrt(variance + self.eps)
            y = centred * scale[:, None, None] + self.bias[:, None, None]
        return y.to(x.dtype)

    def _update(self, average: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of a batch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        rate = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(average.to(self.running_mean.dtype), rate)
        self.running_var.lerp_(variance.to(self.running_var.dtype), rate)


class GroupNorm(nn.GroupNorm):
    """Group normalisation whose statistics leave padding out, in training and in use: those of an image are
    its own."""

    def __init__(self, channels: int) -> None:
        super().__init__(divisor(channels, GROUPS), channels)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """See the class."""
        if mask is None:  # torch's own module refuses a grid of one position in a batch of one
            return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        with full_precision(x.device):
            grouped = zeroed(x.to(self.weight.dtype), mask).unflatten(1, (self.num_groups, -1))
            count = mask.sum((2, 3), keepdim=True).unsqueeze(1).clamp(min=1) * grouped.shape[2]
            average = grouped.sum((2, 3, 4), keepdim=True) / count  # (B, G, 1, 1, 1)
            centred = (grouped - average) * mask.unsqueeze(1)
            variance = centred.square().sum((2, 3, 4), keepdim=True) / count
            y: Tensor = (centred * torch.rsqrt(variance + self.eps)).flatten(1, 2)
            y = y * self.weight[:, None, None] + self.bias[:, None, None]
        return y.to(x.dtype)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": BatchNorm,
    "masked_batch": MaskedBatchNorm,
    "group": GroupNorm,
}


def normed(norm: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    """Return features normalised by one of NORMS, whose statistics leave padding out if they can."""
    y: Tensor = norm(x, mask) if isinstance(norm, MaskedBatchNorm | GroupNorm) else norm(x)
    return y


class Blocks(nn.ModuleList):
    """Attention blocks, one after the other; none is the identity.

    name: where they stand in the network, in words, for those who look at their maps.
    """

    def __init__(self, blocks: Sequence[Block] = (), name: str = "") -> None:
        super().__init__(blocks)
        self.name = name

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """See the class."""
        for block in self:
            x = block(x, mask)
        return x


class Convolution(nn.Module):
    """Norm of a convolution, and a ReLU if `activation`.

    kernel: odd; the input is padded with zeros, so that n positions become ceil(n / stride). replaced_by:
    blocks in the place of the convolution; with a stride of 2, every second of their positions is taken.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        kernel: int = 3,
        stride: int = 1,
        norm: str = "batch",
        activation: bool = True,
        replaced_by: Blocks | None = None,
    ) -> None:
        super().__init__()
        self.stride, self.activation = stride, activation
        self.conv: Blocks | nn.Conv2d
        if replaced_by:
            self.conv = replaced_by
        else:
            self.conv = nn.Conv2d(channels, size, kernel, stride, kernel // 2, bias=False)
            nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.norm = NORMS[norm](size)

    def dilated(self, dilation: int) -> Self:
        """Let the kernel read every dilation-th position; blocks in its place stay as they are."""
        if isinstance(self.conv, nn.Conv2d):
            self.conv.dilation = (dilation, dilation)
            rows, columns = self.conv.kernel_size
            self.conv.padding = (rows // 2 * dilation, columns // 2 * dilation)
        return self

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the features and their mask, for those of the input."""
        y = strided(self.conv(x, mask), self.stride) if isinstance(self.conv, Blocks) else self.conv(x)
        mask = None if mask is None else strided(mask, self.stride)
        y = normed(self.norm, y, mask)
        return zeroed(F.relu(y) if self.activation else y, mask), mask


def strided(x: Tensor, stride: int) -> Tensor:
    """Return every stride-th row and column: the positions at which a strided convolution has its output."""
    return x if stride == 1 else x[..., ::stride, ::stride]
