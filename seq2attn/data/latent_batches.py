"""Batches of images with latent vectors, of which a generator makes others."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2attn.data.batch_plan import Indices
from seq2attn.data.image_batches import ImageBatches, collate_images
from seq2attn.data.image_plan import BatchLimits
from seq2attn.data.images import ImageExamples
from seq2attn.recipe.image_data import AnyImageDataRecipe
from seq2attn.text.word_vocabulary import Labels

PLAYERS = 2  # each turn of an update has latent vectors of its own: the discriminator's, the generator's
# What random numbers are for, so that no two are drawn alike; 0 and 1 are the changes of images, and mixup.
_TRAINING, _VALIDATION, _SAMPLES = 2, 3, 4


class LatentBatch(NamedTuple):
    """Images of one size, and random numbers for each of them."""

    images: Tensor  # (B, C, H, W), float32, from -1 to 1
    labels: Tensor | None  # (B,), long; None: the model is not conditional
    latents: Tensor  # (B, 2, Z), float32, of the turns of discriminator and generator
    shares: Tensor  # (B,), float32, from 0 to 1: of the image, where it is mixed with a generated one

    @property
    def num_targets(self) -> int:
        """The number of images that the loss is the mean of."""
        return len(self.images)

    @property
    def shape(self) -> str:
        """The batch's shape in words, for out-of-memory messages."""
        return f"images by channels by height by width {tuple(self.images.shape)}"

    def to(self, device: torch.device) -> "LatentBatch":
        """Move to a device."""
        images, latents, shares = (
            part.to(device, non_blocking=True) for part in (self.images, self.latents, self.shares)
        )
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        return LatentBatch(images, labels, latents, shares)


class LatentBatchLoader(ImageBatches):
    """Loads images with latent vectors. What belongs to an image is a function of (seed, epoch, its index),
    whichever batch it is in.

    latent: the size of latent vectors; labels: the indices of the labels, None if they do not count.
    """

    def __init__(
        self,
        examples: ImageExamples,
        labels: Labels | None,
        data: AnyImageDataRecipe,
        limits: BatchLimits,
        latent: int,
        seed: int = 1,
    ) -> None:
        super().__init__(examples, data, limits, seed)
        self.latent, self._labels = (
            latent,
            None if labels is None else label_indices(labels, examples.targets),
        )

    def batch(self, indices: Indices, epoch: int | None = None) -> LatentBatch:
        """Return the images with these indices; in an epoch of training they are changed as the recipe
        says."""
        rows = indices.tolist()
        images, _ = collate_images([self.image(row, epoch) for row in rows], self.normalize)
        drawn = [self._draw(row, epoch) for row in rows]
        latents = torch.from_numpy(np.stack([latents for latents, _ in drawn]))
        shares = torch.tensor([share for _, share in drawn], dtype=torch.float32, device="cpu")
        labels = None if self._labels is None else torch.from_numpy(self._labels[indices])
        return LatentBatch(images, labels, latents, shares)

    def _draw(self, row: int, epoch: int | None) -> tuple[NDArray[np.float32], float]:
        """Return the latent vectors of an image, and its share."""
        at = [0, row, _VALIDATION] if epoch is None else [epoch, row, _TRAINING]
        random = np.random.default_rng([self.seed, *at])
        return random.standard_normal((PLAYERS, self.latent), dtype=np.float32), random.random()


def label_indices(labels: Labels, names: list[str]) -> NDArray[np.int64]:
    """Return the index of each label."""
    return np.array([index for (index,) in labels.encode(names)], dtype=np.int64)


def latent_vectors(seed: int, numbers: range, size: int, truncation: float | None = None) -> Tensor:
    """Return the latent vectors (N, Z) of images with these numbers. A vector depends on the seed and its
    number alone, so that more images begin with the same ones.

    truncation: numbers are drawn from a normal distribution without what lies beyond it (Brock et al. 2019):
    images are then more alike, and better.
    """
    vectors = torch.empty(len(numbers), size, device="cpu")
    for row, number in enumerate(numbers):
        random = np.random.default_rng([seed, number, 0, _SAMPLES])
        if truncation is None:
            vectors[row] = torch.from_numpy(random.standard_normal(size, dtype=np.float32))
        else:
            inside = torch.erf(torch.tensor(truncation / 2**0.5, dtype=torch.float64, device="cpu"))
            vectors[row] = 2**0.5 * torch.erfinv(inside * torch.from_numpy(random.uniform(-1, 1, size)))
    return vectors


def between(start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """Return latent vectors (S, Z) on the arc from one to another, at these shares (S,) of the way (White
    2016): on the straight line they would be shorter than any that are drawn."""
    one, other = (vector.double() for vector in (start, end))
    cosine = (one @ other / (one.norm() * other.norm())).clamp(-1, 1)
    angle, shares = torch.acos(cosine), shares.double().unsqueeze(1)
    if torch.sin(angle) < 1e-6:  # they point in one direction, or in opposite ones, between which no arc is
        return ((1 - shares) * one + shares * other).float()
    return (
        (torch.sin((1 - shares) * angle) * one + torch.sin(shares * angle) * other) / torch.sin(angle)
    ).float()
