"""Generators: networks that make images of latent vectors.

Letters: B batch, Z size of latent vectors, C channels, H x W the grid.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2attn.attention.blocks.grid import wide_dtype
from seq2attn.errors import NotDefinedError
from seq2attn.models.vision.adversarial_layers import SQRT2, ConditionalNorm, Form, doubled


class Generator(nn.Module):
    """The base class of generators. A latent vector is projected to the smallest grid, which is then doubled
    once for each of `form.sizes`. Pixels are from -1 to 1.

    The projection has no spectral norm: one direction of the latent vectors would take the whole norm, and
    the bias would drown the others, until all images of a class were one.

    latent: the size Z of latent vectors.
    """

    def __init__(self, latent: int, form: Form) -> None:
        super().__init__()
        self.latent, self.form = latent, form
        height, width = form.base
        free = form._replace(spectral=False)
        self.project = free.weights(nn.Linear(latent, form.sizes[0] * height * width))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return images (B, C, H, W) for latent vectors (B, Z) and, if it is conditional, labels (B,)."""
        x = self.project(latents).unflatten(1, (self.form.sizes[0], *self.form.base))
        # Convolutions on a CPU are faster with the channels last, as in images of batches; tanh forgets it.
        x = self.draw(x.to(memory_format=torch.channels_last), labels)
        return torch.tanh(x.to(wide_dtype(x))).to(memory_format=torch.channels_last)

    def draw(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Return what becomes pixels by tanh, for features on the smallest grid."""
        raise NotDefinedError(f"{type(self).__name__} must define how it draws: write draw()")


class ResidualGenerator(Generator):
    """Residual units that double the grid (Gulrajani et al. 2017; Zhang et al. 2019, SAGAN)."""

    def __init__(self, latent: int, form: Form) -> None:
        super().__init__(latent, form)
        before, (height, _) = form.sizes[0], form.base
        self.units, self.blocks = nn.ModuleList(), nn.ModuleList([form.blocks(height, before)])
        for size in form.sizes:
            height *= 2
            self.units.append(_Doubling(before, size, form))
            self.blocks.append(form.blocks(height, size))
            before = size
        self.norm = ConditionalNorm(form.norm, before)
        self.output = form.convolution(before, form.channels)

    def draw(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """See the base class."""
        first, *others = self.blocks
        x = first(x, None)
        for unit, blocks in zip(self.units, others, strict=True):
            x = blocks(unit(x, labels), None)
        y: Tensor = self.output(F.relu(self.norm(x, labels)))
        return y


class _Doubling(nn.Module):
    """A residual unit whose branch and shortcut double the grid."""

    def __init__(self, channels: int, size: int, form: Form) -> None:
        super().__init__()
        self.first, self.second = (
            form.convolution(channels, size, 3, SQRT2),
            form.convolution(size, size, 3, SQRT2),
        )
        self.shortcut = form.convolution(channels, size, 1)
        self.before, self.between = (
            ConditionalNorm(form.norm, width, form.classes) for width in (channels, size)
        )

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """See the class."""
        y: Tensor = self.first(doubled(F.relu(self.before(x, labels))))
        y = self.second(F.relu(self.between(y, labels)))
        return doubled(self.shortcut(x)) + y  # a 1x1 convolution and doubling commute


class ConvolutionalGenerator(Generator):
    """Transposed convolutions of 4 x 4 with a stride of 2, and norms between (Radford et al. 2016, DCGAN)."""

    def __init__(self, latent: int, form: Form) -> None:
        super().__init__(latent, form)
        sizes, height = [*form.sizes, form.channels], form.base[0]
        self.norms, self.blocks, self.layers = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for before, size in pairwise(sizes):
            self.norms.append(ConditionalNorm(form.norm, before, form.classes))
            self.blocks.append(form.blocks(height, before))
            layer = nn.ConvTranspose2d(before, size, 4, 2, 1)
            nn.init.normal_(layer.weight, std=1 / math.sqrt(4 * before))  # 4 of 16 weights meet each position
            self.layers.append(form.bounded(layer))
            height *= 2

    def draw(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """See the base class."""
        for norm, blocks, layer in zip(self.norms, self.blocks, self.layers, strict=True):
            x = layer(blocks(F.relu(norm(x, labels)), None))
        return x
