"""Layers of generators and discriminators: spectral norms, and norms with gains of a class."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from seq2attn.attention.blocks.parts import BatchNorm, divisor
from seq2attn.errors import Seq2attnError
from seq2attn.layers.convolution import GROUPS, Blocks

# (height of a grid, channels) -> the blocks on it
BlocksOn = Callable[[int, int], Blocks]
Layer = TypeVar("Layer", bound=nn.Module)
SQRT2 = 2**0.5  # gain of weights before a ReLU


def no_blocks_on(height: int, channels: int) -> Blocks:
    """Return no blocks, for a plain network."""
    return Blocks()


class Form(NamedTuple):
    """What all networks of a generator or a discriminator share.

    sizes: channels, of the generator from its smallest grid on, of the discriminator to its smallest one.
    Each stands for a doubling, or a halving, of the grid. channels, height, width: of an image.
    """

    sizes: list[int]
    channels: int
    height: int
    width: int
    norm: str = "none"  # batch, group or none
    spectral: bool = True  # whether all weights have a spectral norm
    classes: int = 0  # whose labels are given; 0: none are
    blocks: BlocksOn = no_blocks_on

    @property
    def base(self) -> tuple[int, int]:
        """The smallest grid."""
        times = 2 ** len(self.sizes)
        return self.height // times, self.width // times

    def weights(self, layer: Layer, gain: float = 1.0) -> Layer:
        """Return a layer with initial weights (Glorot & Bengio 2010, uniform), and with its spectral norm."""
        weight = layer.get_parameter("weight")
        nn.init.xavier_uniform_(weight, gain)
        return self.bounded(layer)

    def bounded(self, layer: Layer) -> Layer:
        """Return a layer with its spectral norm, if there are any."""
        if self.spectral:
            spectral_norm(layer)  # in place
        return layer

    def convolution(self, channels: int, size: int, kernel: int = 3, gain: float = 1.0) -> nn.Conv2d:
        """Return a convolution that keeps the grid."""
        return self.weights(nn.Conv2d(channels, size, kernel, padding=kernel // 2), gain)


class ConditionalNorm(nn.Module):
    """A norm whose gain and bias belong to the class of an image (Dumoulin et al. 2017); classes 0: to all
    images.

    norm: batch, group or none. A gain of 1 and a bias of 0 are where they start.
    """

    def __init__(self, norm: str, channels: int, classes: int = 0) -> None:
        super().__init__()
        self.channels, affine = channels, not classes
        self.norm: nn.Module = nn.Identity()
        if norm == "batch":
            self.norm = BatchNorm(channels, affine=affine)
        elif norm == "group":
            self.norm = nn.GroupNorm(divisor(channels, GROUPS), channels, affine=affine)
        self.gains = nn.Embedding(classes, 2 * channels) if classes and norm != "none" else None
        if self.gains is not None:
            nn.init.zeros_(self.gains.weight)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Return (B, C, H, W) normalised; labels (B,)."""
        y: Tensor = self.norm(x)
        if self.gains is None:
            return y
        gain, bias = self.gains(needed(labels))[:, :, None, None].to(y.dtype).chunk(2, 1)
        gained: Tensor = y * (1 + gain) + bias
        return gained


class Projection(nn.Module):
    """The score of a vector: w . v + b, and e_y . v of the class y (Miyato & Koyama 2018); classes 0: without
    that."""

    def __init__(self, size: int, form: Form) -> None:
        super().__init__()
        self.score = form.weights(nn.Linear(size, 1))
        self.embedding = form.weights(nn.Embedding(form.classes, size)) if form.classes else None

    def forward(self, vectors: Tensor, labels: Tensor | None) -> Tensor:
        """Return the scores (B,) of vectors (B, D), for labels (B,)."""
        scores: Tensor = self.score(vectors).squeeze(1)
        if self.embedding is None:
            return scores
        products: Tensor = self.embedding(needed(labels)) * vectors
        return scores + products.sum(1)


def doubled(x: Tensor) -> Tensor:
    """Return features on a grid of twice the height and width, each four times."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def needed(labels: Tensor | None) -> Tensor:
    """Return the labels. Seq2attnError if there are none."""
    if labels is None:
        raise Seq2attnError("this network is conditional: it needs the label of each image, and got none")
    return labels
