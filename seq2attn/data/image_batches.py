"""Batches of images: pixels normalised and padded, with their labels."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2attn.data.batch_plan import Indices
from seq2attn.data.batches import AnyBatchLoader
from seq2attn.data.image_plan import BatchLimits, by_size, fill_images, image_plan
from seq2attn.data.images import ImageExamples
from seq2attn.data.prefetching import PrefetchingLoader
from seq2attn.errors import Seq2attnError
from seq2attn.images.augmentation import AUGMENTATIONS, Augmentation, Changed, Mixup, changed
from seq2attn.images.decoding import Pixels
from seq2attn.images.geometry import identity
from seq2attn.images.redrawing import Redraw
from seq2attn.recipe.image_data import AnyImageDataRecipe, NormalizeRecipe
from seq2attn.text.word_vocabulary import Labels


class Mixed(NamedTuple):
    """The partners with which the images of a batch were mixed."""

    labels: Tensor  # (B,), long, of the partners
    share: Tensor  # (B,), float32, of the image itself: the loss is share * loss(labels) + (1 - share) * ...


class ImageBatch(NamedTuple):
    """Labelled images, normalised, and padded with zeros at the bottom and on the right."""

    images: Tensor  # (B, C, H, W), float32
    mask: Tensor | None  # (B, 1, H, W), bool, True = a pixel of the image; None: there is no padding
    labels: Tensor  # (B,), long
    mixed: Mixed | None = None  # None: images are not mixed

    @property
    def num_targets(self) -> int:
        """The number of images that the loss is the mean of."""
        return len(self.labels)

    @property
    def shape(self) -> str:
        """The batch's shape in words, for out-of-memory messages."""
        return f"images by channels by height by width {tuple(self.images.shape)}"

    def to(self, device: torch.device) -> "ImageBatch":
        """Move to a device."""
        images, labels = (part.to(device, non_blocking=True) for part in (self.images, self.labels))
        mask = None if self.mask is None else self.mask.to(device, non_blocking=True)
        mixed = self.mixed
        if mixed is not None:
            mixed = Mixed(*(part.to(device, non_blocking=True) for part in mixed))
        return ImageBatch(images, mask, labels, mixed)


def collate_images(images: Sequence[Pixels], normalize: NormalizeRecipe) -> tuple[Tensor, Tensor | None]:
    """Normalise images and pad them to a batch: (B, C, H, W), and its mask (B, 1, H, W), None if all have the
    same size. Padding is 0, the mean colour. In memory, the channels of a pixel lie together, as they do in
    images: convolutions of networks with few channels take less time so."""
    sizes = [image.shape[:2] for image in images]
    height, width = (max(sides) for sides in zip(*sizes, strict=True))
    mean, std = (np.array(values) for values in (normalize.mean, normalize.std))
    scale, shift = (1 / (255 * std)).astype(np.float32), (mean / std).astype(np.float32)
    batch = np.zeros((len(images), height, width, images[0].shape[2]), dtype=np.float32)
    mask = np.zeros((len(images), 1, height, width), dtype=np.bool_)
    for row, (image, (rows, columns)) in enumerate(zip(images, sizes, strict=True)):
        batch[row, :rows, :columns] = image * scale - shift
        mask[row, :, :rows, :columns] = True
    return torch.from_numpy(batch).permute(0, 3, 1, 2), None if mask.all() else torch.from_numpy(mask)


class ImageBatches:
    """Plans which images are in a batch, and reads them, in training with random changes.

    What is done to an image depends on nothing but (seed, epoch, index), whichever batch it is in.

    Args:
        examples: the images.
        data: the recipe's section, with a normalisation.
        limits: of a batch.
        seed: the recipe's.

    Raises:
        Seq2attnError: `data.normalize` is null.
    """

    lengths: NDArray[np.int32] | None = None  # of texts, if batches are to have texts of about one length

    def __init__(
        self, examples: ImageExamples, data: AnyImageDataRecipe, limits: BatchLimits, seed: int = 1
    ) -> None:
        self.normalize = normalization(data)
        self.examples, self.limits, self.seed = examples, limits, seed
        parts = [part.make(AUGMENTATIONS) for part in data.augment]
        self._changes: list[Augmentation] = [part for part in parts if isinstance(part, Augmentation)]
        self._mixup: Mixup | None = next((part for part in parts if isinstance(part, Mixup)), None)
        self._redraw: Redraw | None = next((part for part in parts if isinstance(part, Redraw)), None)

    def epoch(self, epoch: int) -> list[Indices]:
        """Return the batches of an epoch, as indices of examples."""
        sizes, examples = (self.examples.heights, self.examples.widths), self.examples.epoch(epoch, self.seed)
        return image_plan(*sizes, examples, self.limits, (self.seed, epoch), self.lengths)

    def epoch_size(self, epoch: int) -> int:
        """Return the number of batches of an epoch."""
        if self.limits.pixels is None:
            return math.ceil(len(self.examples.epoch(epoch, self.seed)) / self.limits.images)
        return len(self.epoch(epoch))

    def evaluation_batches(self) -> list[Indices]:
        """Return batches that hold every image once, by size."""
        heights, widths = self.examples.heights, self.examples.widths
        order = by_size(heights, widths, np.arange(len(self.examples)), self.lengths)
        return fill_images(order, heights, widths, self.limits)

    def image(self, row: int, epoch: int | None) -> Pixels:
        """Return an image as an epoch sees it."""
        return self.changed(row, epoch).image

    def changed(self, row: int, epoch: int | None) -> Changed:
        """Return an image as an epoch sees it, and the matrix (2, 3) that takes a position of it to that of
        the image in the store, by which all that belongs to its pixels moves with it."""
        if epoch is None:
            return Changed(self.examples.image(row), identity())
        image = self._drawn(row, epoch)
        return changed(image, self._changes, np.random.default_rng([self.seed, epoch, row]))

    def _drawn(self, row: int, epoch: int) -> Pixels:
        """Return an image, drawn anew if it is one of strokes and the recipe says so."""
        drawing = None if self._redraw is None else self.examples.drawing(row)
        if self._redraw is None or drawing is None:
            return self.examples.image(row)
        redrawn = self._redraw.apply(drawing, np.random.default_rng([self.seed, epoch, row, 4]))
        return self.examples.reader.read(redrawn.draw())


class ImageBatchLoader(ImageBatches):
    """Loads labelled images as batches. A batch is a pure function of the examples, the seed, the epoch and
    the indices.

    labels: the indices of the labels. Seq2attnError also if images of several sizes are to be mixed.
    """

    def __init__(
        self,
        examples: ImageExamples,
        labels: Labels,
        data: AnyImageDataRecipe,
        limits: BatchLimits,
        seed: int = 1,
    ) -> None:
        super().__init__(examples, data, limits, seed)
        self._labels = np.array([index for (index,) in labels.encode(examples.targets)], dtype=np.int64)
        sizes = {*zip(examples.heights.tolist(), examples.widths.tolist(), strict=True)}
        if self._mixup is not None and len(sizes) > 1:
            raise Seq2attnError(
                "data.augment: mixup needs images of one size, and these have several: set data.size, and "
                "data.resize to crop or stretch"
            )

    def batch(self, indices: Indices, epoch: int | None = None) -> ImageBatch:
        """Return the images with these indices; in an epoch of training they are changed as the recipe
        says."""
        rows = indices.tolist()
        images, mask = collate_images([self.image(row, epoch) for row in rows], self.normalize)
        labels = torch.from_numpy(self._labels[indices])
        if self._mixup is None or epoch is None:
            return ImageBatch(images, mask, labels)
        # A generator of its own: an image is the same, whether it is mixed or is what others are mixed with.
        draws = [
            self._mixup.draw(len(self.examples), np.random.default_rng([self.seed, epoch, row, 1]))
            for row in rows
        ]
        partners = [partner for partner, _ in draws]
        shares = torch.tensor([share for _, share in draws], device="cpu")
        others, _ = collate_images([self.image(row, epoch) for row in partners], self.normalize)
        weight = shares[:, None, None, None]
        mixed = Mixed(torch.from_numpy(self._labels[partners]), shares)
        return ImageBatch(weight * images + (1 - weight) * others, mask, labels, mixed)


def normalization(data: AnyImageDataRecipe) -> NormalizeRecipe:
    """Return the normalisation of a recipe's section. Seq2attnError if it is null."""
    if data.normalize is None:
        raise Seq2attnError("expected data.normalize with mean and std, as of the training data; got null")
    return data.normalize


def beside_training(loader: AnyBatchLoader, workers: int) -> AnyBatchLoader:
    """Return a loader whose next batches are prepared in this many threads; 0 = none."""
    return PrefetchingLoader(loader, workers) if workers else loader
