"""Enlarging features to a finer grid, so that an image in a padded batch gets what it gets alone.

Both ways are written as sums of products or copies, whose gradients are deterministic on every device.
Letters: B batch, C channels, H x W the coarse grid.
"""

import torch
from torch import Tensor

from seq2attn.attention.memory import Grid


def doubled(x: Tensor, size: Grid) -> Tensor:
    """Return each position of (B, C, H, W) four times, 2 x 2, and of that the upper left part in a size
    (rows, columns), at most (2 H, 2 W): the nearest position of a grid that was halved, rounding up."""
    batch, channels, height, width = x.shape
    wide = x[:, :, :, None, :, None].expand(batch, channels, height, 2, width, 2)
    return wide.reshape(batch, channels, 2 * height, 2 * width)[..., : size[0], : size[1]]


def enlarged(x: Tensor, mask: Tensor | None, stride: int, size: Grid) -> Tensor:
    """Return features (B, C, H, W) enlarged `stride` times, bilinearly, and of that the upper left part in a
    size (rows, columns).

    The corners of the coarse and the fine grid coincide (align_corners=False), so a position has the same
    value whatever the size. Beyond the last position of the grid, or of the mask (B, 1, H, W), there is its
    value: the mean of two neighbours is one over those in the mask.
    """
    rows, columns = (
        interpolation((torch.arange(fine, device=x.device) + 0.5) / stride - 0.5, count).to(x.dtype)
        for count, fine in zip(x.shape[2:], size, strict=True)
    )
    if mask is None:
        return rows @ x @ columns.T
    share = rows @ mask.to(x.dtype) @ columns.T  # outside of the image there may be none
    return rows @ x.masked_fill(~mask, 0.0) @ columns.T / share.clamp(min=1e-6)


def interpolation(positions: Tensor, count: int) -> Tensor:
    """Return the weights (n, count) of `count` values for each of n positions between them, linearly; value i
    lies at the position i, and beyond the first and the last one there is their value."""
    inside = positions.clamp(0, count - 1)
    distance = (inside[:, None] - torch.arange(count, device=positions.device)).abs()
    return (1 - distance).clamp(min=0)
