"""Gates with one weight for each channel."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2attn.attention.blocks.block import Gate, Map, grid_of
from seq2attn.attention.blocks.grid import largest, mean
from seq2attn.attention.blocks.parts import Bottleneck, Positive, Start, hidden_width, start_gate


class SE(Gate):
    """sigmoid(W2 relu(W1 z + b1) + b2) of the mean z over the grid: squeeze and excitation.

    ratio: C / r hidden units, at least 4; null: a single layer C -> C, which is ESE with gate: hard_sigmoid
    (Lee & Park 2020, VoVNetV2). bias: whether layers have one. pool: mean, or half the sum of mean and
    maximum. gate: hard_sigmoid is relu6(x + 3) / 6. start: half, or open (0.9) for fine-tuning.
    round_to: the hidden width is rounded up to a multiple.
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
            self.excite = Bottleneck(channels, hidden_width(channels, ratio, round_to), bias)
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
