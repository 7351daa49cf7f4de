"""Gates with one weight for each channel."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2attn.attention.blocks.block import Gate, Map, grid_of
from seq2attn.attention.blocks.grid import largest, mean
from seq2attn.attention.blocks.parts import Bottleneck, Positive, Start, hidden_width, odd, start_gate
from seq2attn.errors import Seq2attnError


class SE(Gate):
    """sigmoid(W2 relu(W1 z + b1) + b2) of the mean z over the grid: squeeze and excitation; ESE with `ratio`
    null and `gate` hard_sigmoid.

    ratio: C / r hidden units, at least 4; null: a single layer C -> C (ESE: Lee & Park 2020, VoVNetV2).
    bias: whether layers have one. pool: mean, or half the sum of mean and maximum. gate: hard_sigmoid is
    relu6(x + 3) / 6. start: half, or open (0.9) for fine-tuning. round_to: the hidden width is rounded up to
    a multiple.
    """

    paper = "Hu et al. 2018, 1709.01507"

    def __init__(
        self,
        channels: int,
        *,
        ratio: Positive | None = 16,
        bias: bool = True,
        pool: Literal["mean", "mean_max"] = "mean",
        gate: Literal["sigmoid", "hard_sigmoid"] = "sigmoid",
        start: Start = "half",
        round_to: Positive = 1,
    ) -> None:
        super().__init__(channels)
        self.pool, self.hard = pool, gate == "hard_sigmoid"
        self.excite: nn.Module
        if ratio is None:
            self.excite = last = nn.Linear(channels, channels, bias=bias)
        else:
            self.excite = Bottleneck(channels, hidden_width(channels, ratio, round_to), bias=bias)
            last = self.excite.outer
        start_gate(last, start)

    def gates(self, x: Tensor, mask: Tensor | None) -> dict[str, Map]:
        """See the class."""
        z = mean(x, mask)
        if self.pool == "mean_max":
            z = (z + largest(x, mask)) / 2
        scores = self.excite(z.flatten(1))[..., None, None]  # (B, C, 1, 1)
        weights = F.hardsigmoid(scores) if self.hard else torch.sigmoid(scores)
        return {"channel": Map("channel", weights, grid_of(x))}


class CSE(SE):
    """sigmoid(W2 relu(W1 z + b1) + b2), as se, with half as many hidden units as channels: the channel part
    of scSE.

    Options as for se.
    """

    paper = "Roy et al. 2018, 1803.02579"

    def __init__(
        self,
        channels: int,
        *,
        ratio: Positive = 2,
        bias: bool = True,
        start: Start = "half",
        round_to: Positive = 1,
    ) -> None:
        super().__init__(channels, ratio=ratio, bias=bias, start=start, round_to=round_to)


class ECA(Gate):
    """sigmoid(w * z), a convolution along the channels of the mean z: efficient channel attention.

    kernel: its size, odd; null: t = floor(|log2 C + 1| / 2) or t + 1, whichever is odd, at least 3 (eq. 9).
    The released networks have 3 throughout. circular: the last channel is beside the first, where the paper
    has zeros. start: half, or open (0.9) for fine-tuning, which adds a bias. It depends on the order of
    channels.
    """

    paper = "Wang et al. 2020, 1910.03151"

    def __init__(
        self,
        channels: int,
        *,
        kernel: Positive | None = None,
        circular: bool = False,
        start: Start = "half",
    ) -> None:
        super().__init__(channels)
        size = eca_kernel(channels) if kernel is None else odd(kernel, "ECA")
        if circular and size // 2 > channels:
            raise Seq2attnError(
                f"ECA with circular: true goes round {channels} channels at most once: expected kernel <= "
                f"{2 * channels + 1}, got {size}"
            )
        self.convolve = nn.Conv1d(
            *(1, 1, size),
            padding=size // 2,
            bias=start == "open",
            padding_mode="circular" if circular else "zeros",
        )
        start_gate(self.convolve, start)

    def gates(self, x: Tensor, mask: Tensor | None) -> dict[str, Map]:
        """See the class."""
        z = mean(x, mask).flatten(1).unsqueeze(1)  # (B, 1, C)
        weights = torch.sigmoid(self.convolve(z)).squeeze(1)[..., None, None]
        return {"channel": Map("channel", weights, grid_of(x))}


def eca_kernel(channels: int) -> int:
    """Return the kernel size that ECA has for a number of channels (eq. 9, with gamma = 2 and b = 1)."""
    t = math.floor(abs(math.log2(channels) + 1) / 2)
    return max(t if t % 2 else t + 1, 3)


class CBAMChannel(Gate):
    """sigmoid(MLP(mean) + MLP(max)), both over the grid, with one MLP C -> C / r -> C: the channel part of
    CBAM.

    ratio: C / r hidden units, at least 4. start: half, or open (0.9) for fine-tuning. round_to: the hidden
    width is rounded up to a multiple.
    """

    paper = "Woo et al. 2018, 1807.06521"

    def __init__(
        self, channels: int, *, ratio: Positive = 16, start: Start = "half", round_to: Positive = 1
    ) -> None:
        super().__init__(channels)
        self.mlp = Bottleneck(channels, hidden_width(channels, ratio, round_to))
        start_gate(self.mlp.outer, start, terms=2)

    def gates(self, x: Tensor, mask: Tensor | None) -> dict[str, Map]:
        """See the class."""
        scores = self.mlp(mean(x, mask).flatten(1)) + self.mlp(largest(x, mask).flatten(1))  # (B, C)
        return {"channel": Map("channel", torch.sigmoid(scores)[..., None, None], grid_of(x))}
