"""Statistics over the grid of an image, with and without a mask.

Means and maxima are reductions over axes, not adaptive pooling, whose CUDA gradient is not deterministic.
Half precision is summed in float32. A mask (B, 1, H, W) is True in the image; what lies outside changes
nothing, and a statistic of no position at all is 0.
"""

import torch
from torch import Tensor

from seq2attn.attention.normalizers.dense import mask_scores

GRID = (2, 3)  # the axes of height and width


def wide_dtype(x: Tensor) -> torch.dtype:
    """Return the type to sum in: float32 for half precision, or that of x."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def zeroed(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return x with zeros outside the mask: what a convolution finds outside of an image."""
    return x if mask is None else x.masked_fill(~mask, 0.0)


def mean(x: Tensor, mask: Tensor | None, axes: tuple[int, ...] = GRID) -> Tensor:
    """Return the mean over axes of (B, C, H, W), which are kept with size 1."""
    if mask is None:
        return x.mean(axes, keepdim=True, dtype=wide_dtype(x))
    count = mask.sum(axes, keepdim=True).clamp(min=1)
    return zeroed(x, mask).sum(axes, keepdim=True, dtype=wide_dtype(x)) / count


def largest(x: Tensor, mask: Tensor | None, axes: tuple[int, ...] = GRID) -> Tensor:
    """Return the maximum over axes of (B, C, H, W), which are kept with size 1; ties share the gradient."""
    if mask is None:
        return x.amax(axes, keepdim=True)
    empty = mask.sum(axes, keepdim=True) == 0
    return x.masked_fill(~mask, torch.finfo(x.dtype).min).amax(axes, keepdim=True).masked_fill(empty, 0.0)


def softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return the softmax over the positions of scores (B, K, H, W), in float32."""
    flat = scores.flatten(2).to(wide_dtype(scores))  # (B, K, N)
    if mask is None:
        return flat.softmax(-1).view(scores.shape)
    allowed = mask.flatten(2)  # (B, 1, N)
    return (mask_scores(flat, allowed).softmax(-1) * allowed).view(scores.shape)
