"""Blocks that choose between branches: selective kernels."""

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2attn.attention.blocks.block import Block, Looked, Map, grid_of
from seq2attn.attention.blocks.grid import mean, wide_dtype
from seq2attn.attention.blocks.parts import BatchNorm, Positive, VectorNorm, divisor, vector_norm


class SK(Block):
    """sum over m of a_m * U_m, U_m = relu(BN(3 x 3 convolution of dilation m)), a = softmax over the branches
    of A_m relu(norm(W mean of sum U_m)), for each channel: selective kernels.

    It takes the place of a 3 x 3 convolution. branches: M. ratio, least: C / r hidden units, at least so
    many. groups: of the convolutions, or the largest number below that divides C. norm: of the hidden layer;
    batch is the paper's, and cannot train on a batch of one.
    """

    at = "replace"
    paper = "Li et al. 2019, 1903.06586"

    def __init__(
        self,
        channels: int,
        *,
        branches: Positive = 2,
        ratio: Positive = 16,
        least: Positive = 32,
        groups: Positive = 32,
        norm: VectorNorm = "layer",
    ) -> None:
        super().__init__(channels)
        hidden, groups = max(channels // ratio, least), divisor(channels, groups)
        self.convolve = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=m, dilation=m, groups=groups, bias=False)
            for m in range(1, branches + 1)
        )
        self.norms = nn.ModuleList(BatchNorm(channels) for _ in range(branches))
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.norm = vector_norm(norm, hidden)
        self.select = nn.Linear(hidden, branches * channels, bias=False)

    def attend(self, x: Tensor, mask: Tensor | None, need_weights: bool) -> Looked:
        """See the class."""
        branches = [
            F.relu(norm(convolve(x))) for convolve, norm in zip(self.convolve, self.norms, strict=True)
        ]
        z = F.relu(self.norm(self.squeeze(mean(reduce(torch.add, branches), mask).flatten(1))))  # (B, d)
        scores = self.select(z).unflatten(1, (len(branches), -1))  # (B, M, C)
        weights = scores.to(wide_dtype(scores)).softmax(1)
        chosen = (
            weight[..., None, None].to(x.dtype) * branch
            for weight, branch in zip(weights.unbind(1), branches, strict=True)
        )
        return Looked(
            reduce(torch.add, chosen), {"branch": Map("branch", weights, grid_of(x), distribution=True)}
        )
