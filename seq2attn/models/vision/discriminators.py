"""Discriminators: networks that score how real an image is; and a generator together with one.

Letters: B batch, C channels, H x W the grid.
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from seq2attn.attention.blocks.grid import wide_dtype
from seq2attn.errors import NotDefinedError
from seq2attn.layers.spectral_norm import hold
from seq2attn.models.vision.adversarial_layers import SQRT2, ConditionalNorm, Form, Projection
from seq2attn.models.vision.generators import Generator

SLOPE = 0.2  # of leaky ReLUs, for negative features (Radford et al. 2016)


class Discriminator(nn.Module):
    """The base class of discriminators. The grid is halved once for each of `form.sizes`.

    size: of the vector that is scored.
    """

    def __init__(self, size: int, form: Form) -> None:
        super().__init__()
        self.form, self.head = form, Projection(size, form)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the scores (B,) of images (B, C, H, W), from -1 to 1, and of labels (B,) if it is
        conditional. The larger a score, the more real the image."""
        scores: Tensor = self.head(self.vectors(images), labels)
        return scores.to(wide_dtype(scores))

    def vectors(self, images: Tensor) -> Tensor:
        """Return the vectors (B, D) that are scored."""
        raise NotDefinedError(f"{type(self).__name__} must define what it scores: write vectors()")


class ResidualDiscriminator(Discriminator):
    """Residual units that halve the grid, and the sum over the last one (Miyato et al. 2018)."""

    def __init__(self, form: Form) -> None:
        super().__init__(form.sizes[-1], form)
        self.units, self.blocks = nn.ModuleList(), nn.ModuleList()
        before, height = form.channels, form.height
        for number, size in enumerate(form.sizes):
            height //= 2
            self.units.append(_Halving(before, size, form, first=number == 0))
            self.blocks.append(form.blocks(height, size))
            before = size

    def vectors(self, images: Tensor) -> Tensor:
        """See the base class."""
        x = images
        for unit, blocks in zip(self.units, self.blocks, strict=True):
            x = blocks(unit(x), None)
        return F.relu(x).sum((2, 3))


class _Halving(nn.Module):
    """A residual unit whose branch and shortcut end with the mean of 2 x 2 positions. The first one reads
    pixels, which no ReLU comes before."""

    def __init__(self, channels: int, size: int, form: Form, first: bool) -> None:
        super().__init__()
        self.first, self.second = (
            form.convolution(channels, size, 3, SQRT2),
            form.convolution(size, size, 3, SQRT2),
        )
        self.shortcut, self.reads_pixels = form.convolution(channels, size, 1), first
        self.before = ConditionalNorm("none" if first else form.norm, channels)
        self.between = ConditionalNorm(form.norm, size)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        y = x if self.reads_pixels else F.relu(self.before(x, None))
        y = self.second(F.relu(self.between(self.first(y), None)))
        shortcut: Tensor = self.shortcut(F.avg_pool2d(x, 2))  # a 1x1 convolution and means commute
        return F.avg_pool2d(y, 2) + shortcut


class ConvolutionalDiscriminator(Discriminator):
    """Convolutions of 4 x 4 with a stride of 2, leaky ReLUs, and norms but after the first; the whole last
    grid is scored (Radford et al. 2016, DCGAN)."""

    def __init__(self, form: Form) -> None:
        super().__init__(form.sizes[-1] * math.prod(form.base), form)
        self.layers, self.norms, self.blocks = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before, height = form.channels, form.height
        for number, size in enumerate(form.sizes):
            height //= 2
            self.layers.append(form.weights(nn.Conv2d(before, size, 4, 2, 1), SQRT2))
            self.norms.append(ConditionalNorm(form.norm if number else "none", size))
            self.blocks.append(form.blocks(height, size))
            before = size

    def vectors(self, images: Tensor) -> Tensor:
        """See the base class."""
        x = images
        for layer, norm, blocks in zip(self.layers, self.norms, self.blocks, strict=True):
            x = blocks(F.leaky_relu(norm(layer(x), None), SLOPE), None)
        return x.flatten(1)


class AdversarialPair(nn.Module):
    """A generator and a discriminator, trained against each other.

    labels: names of the classes if both are conditional, otherwise none. Spectral norms make their power
    iterations between updates (`layers/spectral_norm.py`).
    """

    def __init__(
        self, generator: Generator, discriminator: Discriminator, labels: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.generator, self.discriminator, self.labels = generator, discriminator, list(labels)
        hold(self)

    def train(self, mode: bool = True) -> Self:
        """See torch."""
        super().train(mode)
        hold(self)
        return self
