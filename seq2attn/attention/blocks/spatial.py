"""Gates with one weight for each place, or for each place and channel."""

from typing import Literal

import torch
from torch import Tensor, nn

from seq2attn.attention.blocks.block import Gate, Map, grid_of
from seq2attn.attention.blocks.grid import largest, mean, wide_dtype, zeroed
from seq2attn.attention.blocks.parts import BatchNorm, Positive, Start, odd, start_gate


class SSE(Gate):
    """sigmoid(w . x + b) at every place: the spatial part of scSE.

    bias: whether there is a b. start: half, or open (0.9) for fine-tuning.
    """

    paper = "Roy et al. 2018, 1803.02579"

    def __init__(self, channels: int, *, bias: bool = True, start: Start = "half") -> None:
        super().__init__(channels)
        self.score = nn.Conv2d(channels, 1, 1, bias=bias)
        start_gate(self.score, start)

    def gates(self, x: Tensor, mask: Tensor | None) -> dict[str, Map]:
        """See the class."""
        return {"place": Map("place", torch.sigmoid(self.score(x)), grid_of(x))}


class CBAMSpatial(Gate):
    """sigmoid(BN(f [max; mean])), both over the channels, f a convolution of 7 x 7: the spatial part of CBAM.

    kernel: its size, odd. norm: batch, as released, with weight 0 at first, so that the gate is constant
    then; or none, as in the paper. start: half, or open (0.9) for fine-tuning.
    """

    paper = "Woo et al. 2018, 1807.06521"

    def __init__(
        self,
        channels: int,
        *,
        kernel: Positive = 7,
        norm: Literal["batch", "none"] = "batch",
        start: Start = "half",
    ) -> None:
        super().__init__(channels)
        size = odd(kernel, "CBAM")
        self.convolve = nn.Conv2d(2, 1, size, padding=size // 2, bias=norm == "none")
        self.norm = BatchNorm(1, momentum=0.01) if norm == "batch" else nn.Identity()
        if norm == "batch":
            nn.init.zeros_(self.norm.weight)  # type: ignore[arg-type]
        start_gate(self.norm if norm == "batch" else self.convolve, start)

    def gates(self, x: Tensor, mask: Tensor | None) -> dict[str, Map]:
        """See the class."""
        pooled = torch.cat([largest(x, None, (1,)), mean(x, None, (1,))], 1)  # (B, 2, H, W)
        return {"place": Map("place", torch.sigmoid(self.norm(self.convolve(pooled))), grid_of(x))}


class SimAM(Gate):
    """sigmoid(d / (4 (v + l)) + 1/2), d = (x - mean)^2, v = the sum of d / (N - 1) for each channel: no
    parameters.

    regularizer: l; the authors' ImageNet runs have 0.1. The gate is at least sigmoid(1/2) = 0.622. On a
    single position v is 0.
    """

    paper = "Yang et al. 2021, ICML"

    def __init__(self, channels: int, *, regularizer: float = 1e-4) -> None:
        super().__init__(channels)
        self.regularizer = regularizer

    def gates(self, x: Tensor, mask: Tensor | None) -> dict[str, Map]:
        """See the class. In float32: a sum of squares overflows half precision."""
        wide = x.to(wide_dtype(x))
        squares = zeroed((wide - mean(wide, mask)).square(), mask)  # (B, C, H, W)
        if mask is None:
            variance = squares.sum((2, 3), keepdim=True) / max(x.shape[2] * x.shape[3] - 1, 1)
        else:
            variance = squares.sum((2, 3), keepdim=True) / (mask.sum((2, 3), keepdim=True) - 1).clamp(min=1)
        scores = squares / (4 * (variance + self.regularizer)) + 0.5
        return {"full": Map("full", torch.sigmoid(scores), grid_of(x))}
