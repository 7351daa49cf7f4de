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
    return next((count for count in range(min(groups, channels), 0, -1) if channels % count == 0), 1)


class Bottleneck(nn.Module):
    """W2 relu(norm(W1 z + b1)) + b2 of vectors (..., C); out: the width of the result, C if None."""

    def __init__(
        self,
        size: int,
        hidden: int,
        *,
        out: int | None = None,
        bias: bool = True,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(size, hidden, bias), nn.Linear(hidden, out or size, bias)
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


def start_gate(layer: nn.Module, start: Start, terms: int = 1) -> None:
    """Set the last layer before a sigmoid: `half`, bias 0, a gate of about 0.5, as papers have it; or `open`,
    bias 2.2 and a tenth of the weights, a gate of about 0.9, for a block put into a trained network.

    terms: the number of outputs of the layer whose sum is the argument of the sigmoid.
    """
    bias, weight = getattr(layer, "bias", None), getattr(layer, "weight", None)
    if not isinstance(bias, Tensor) or not isinstance(weight, Tensor):
        if start == "open":
            raise Seq2attnError(
                "start: open sets the bias of the last layer before the gate, and here it has none: choose "
                "options with which it has one (bias, mlp, norm), or start: half"
            )
        return
    with torch.no_grad():
        bias.fill_(2.2 / terms if start == "open" else 0.0)
        if start == "open":
            weight.mul_(0.1)


def odd(kernel: int, name: str) -> int:
    """Return the size of a kernel; Seq2attnError if it is even, so that it has no middle."""
    if kernel % 2 == 0:
        raise Seq2attnError(
            f"{name} needs an odd kernel, as many positions before as after; got {kernel}; take {kernel + 1}"
        )
    return kernel
