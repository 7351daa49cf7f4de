"""Statistics over the grid of an image, with and without a mask.

Means and maxima are reductions over axes, not adaptive pooling, whose CUDA gradient is not deterministic.
Half precision is summed in float32. A mask (B, 1, H, W) is True in the image; what lies outside changes
nothing, and a statistic of no position at all is 0.
"""

import torch
from torch import Tensor, nn

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
        return x.mean(axes, keepdim=True, dtype=wide_dtype(x)).to(x.dtype)
    count = mask.sum(axes, keepdim=True).clamp(min=1)
    return (zeroed(x, mask).sum(axes, keepdim=True, dtype=wide_dtype(x)) / count).to(x.dtype)


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


def group_norm(x: Tensor, norm: nn.GroupNorm, mask: Tensor | None) -> Tensor:
    """Return (B, C, H, W) normalised as by `norm`, by the statistics of the positions in the mask."""
    if mask is None:  # torch's own function refuses a single value for each group
        return torch.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
    dtype = x.dtype
    x = zeroed(x.to(wide_dtype(x)), mask).unflatten(1, (norm.num_groups, -1))  # (B, G, C / G, H, W)
    inside, axes = mask.unsqueeze(1), (2, 3, 4)
    count = (inside.sum(axes, keepdim=True) * x.shape[2]).clamp(min=1)
    centred = zeroed(x - x.sum(axes, keepdim=True) / count, inside)
    variance = centred.square().sum(axes, keepdim=True) / count
    normed = (centred * (variance + norm.eps).rsqrt()).flatten(1, 2)
    return (normed * norm.weight[:, None, None] + norm.bias[:, None, None]).to(dtype)
