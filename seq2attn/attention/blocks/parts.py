"""The small layers that blocks are made of: hidden widths, bottlenecks, norms, and where a gate starts."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from seq2attn.errors import Seq2attnError

Positive = Annotated[int, Ge(1)]
Start = Literal["half", "open"]
VectorNorm = Literal["layer", "batch", "none"]

LEAST = 4  # the least hidden width: the papers' own wherever C >= 4 r, and never 0


def hidden_width(channels: int, ratio: int, round_to: int = 1) -> int:
    """Return max(C / r, 4), rounded up to a multiple."""
    return -(-max(channels // ratio, LEAST) // round_to) * round_to


def divisor(channels: int, groups: int) -> int:
    """Return the largest number of groups, at most `groups`, that divides the channels."""
    return next(count for count in range(min(groups, channels), 0, -1) if channels % count == 0)


class Bottleneck(nn.Module):
    """W2 norm(relu(W1 z + b1)) + b2 of vectors (B, C), with the norm before the ReLU."""

    def __init__(self, channels: int, hidden: int, bias: bool = True, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.inner, self.outer = (
            nn.Linear(*sizes, bias=bias) for sizes in ((channels, hidden), (hidden, channels))
        )
        self.norm = norm or nn.Identity()

    def forward(self, z: Tensor) -> Tensor:
        """See the class."""
        return self.outer(F.relu(self.norm(self.inner(z))))  # type: ignore[no-any-return]


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation of (B, C, H, W), which a single value does not break in training: it has no
    variance, so it is normalised by the running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.training and x.numel() == self.num_features:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def vector_norm(norm: VectorNorm, size: int) -> nn.Module:
    """Return a norm of vectors (B, size), such as are left of a grid after global pooling.

    batch is what papers have; it raises an error for a batch of one in training.
    """
    kinds = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}
    return kinds[norm](size) if norm in kinds else nn.Identity()


def start_gate(layer: nn.Module, start: Start) -> None:
    """Set the last layer before a sigmoid: `half`, bias 0, a gate of about 0.5, as papers have it; or `open`,
    bias 2.2 and a tenth of the weights, a gate of about 0.9, for a block put into a trained network."""
    if not isinstance(bias := getattr(layer, "bias", None), Tensor):
        if start == "open":
            raise Seq2attnError(
                "start: open sets the bias of the last layer, which has none here: set bias: true"
            )
        return
    with torch.no_grad():
        bias.fill_(2.2 if start == "open" else 0.0)
        if start == "open" and isinstance(weight := layer.weight, Tensor):
            weight.mul_(0.1)
