"""Batches of images with boxes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2attn.data.batch_plan import Indices
from seq2attn.data.boxes import BoxExamples
from seq2attn.data.image_batches import ImageBatches, collate_images
from seq2attn.data.image_plan import BatchLimits
from seq2attn.images.augmentation import AUGMENTATIONS, Mosaic, changed
from seq2attn.images.decoding import Pixels
from seq2attn.images.geometry import clipped, inverse, moved
from seq2attn.recipe.box_data import DetectionDataRecipe
from seq2attn.text.word_vocabulary import Labels


class BoxBatch(NamedTuple):
    """Images with boxes, normalised, and padded with zeros at the bottom and on the right."""

    images: Tensor  # (B, C, H, W), float32
    mask: Tensor | None  # (B, 1, H, W), bool, True = a pixel of the image; None: there is no padding
    boxes: Tensor  # (B, M, 4), float32: left, top, right, bottom in pixels of the batch's images
    labels: Tensor  # (B, M), long; -1 = no box. M is the largest number of boxes of an image, and may be 0

    @property
    def num_targets(self) -> int:
        """The number of boxes, which may be 0."""
        return int((self.labels >= 0).sum())

    @property
    def shape(self) -> str:
        """The batch's shape in words, for out-of-memory messages."""
        boxes = f"with up to {self.labels.shape[1]} boxes each"
        return f"images by channels by height by width {tuple(self.images.shape)}, {boxes}"

    def to(self, device: torch.device) -> "BoxBatch":
        """Move to a device."""
        images, boxes, labels = (
            part.to(device, non_blocking=True) for part in (self.images, self.boxes, self.labels)
        )
        mask = None if self.mask is None else self.mask.to(device, non_blocking=True)
        return BoxBatch(images, mask, boxes, labels)


class BoxedImage(NamedTuple):
    """An image with its boxes, as an epoch sees it."""

    image: Pixels
    boxes: NDArray[np.float64]  # (n, 4): left, top, right, bottom
    labels: NDArray[np.int64]  # (n,)


class BoxBatchLoader(ImageBatches):
    """Loads images with boxes as batches. A batch is a pure function of the examples, the seed, the epoch and
    the indices.

    labels: the indices of the labels. Boxes with others, which no model can learn, are left out.
    """

    examples: BoxExamples

    def __init__(
        self,
        examples: BoxExamples,
        labels: Labels,
        data: DetectionDataRecipe,
        limits: BatchLimits,
        seed: int = 1,
    ) -> None:
        super().__init__(examples, data, limits, seed)
        parts = [part.make(AUGMENTATIONS) for part in data.augment]
        self._mosaics: Mosaic | None = next((part for part in parts if isinstance(part, Mosaic)), None)
        self._indices = {name: index for index, name in enumerate(labels.names)}

    def batch(self, indices: Indices, epoch: int | None = None) -> BoxBatch:
        """Return the images with these indices; in an epoch of training they are changed as the recipe says,
        and their boxes move with them."""
        rows = [self.boxed(row, epoch) for row in indices.tolist()]
        images, mask = collate_images([row.image for row in rows], self.normalize)
        return BoxBatch(images, mask, *collate_boxes(rows))

    def boxed(self, row: int, epoch: int | None) -> BoxedImage:
        """Return an image and its boxes as an epoch sees them.

        A box becomes that around its four moved corners, cut off at the sides of the image. It is left out if
        less than a fifth of its area is left: of a mosaic, or of the changes after it.
        """
        if epoch is None:
            return self._stored(row)
        start = self._mosaic(row, epoch)
        image, matrix = changed(start.image, self._changes, np.random.default_rng([self.seed, epoch, row]))
        window = 0.0, 0.0, float(image.shape[1]), float(image.shape[0])
        boxes, left = clipped(moved(start.boxes, inverse(matrix)), window)
        return BoxedImage(image, boxes[left], start.labels[left])

    def _mosaic(self, row: int, epoch: int) -> BoxedImage:
        """Return the mosaic of an image and others; without mosaics, the image as it is in the store."""
        if self._mosaics is None:
            return self._stored(row)
        random = np.random.default_rng([self.seed, epoch, row, 3])
        rows = self._mosaics.draw(row, len(self.examples), random)
        if len(rows) == 1:
            return self._stored(row)
        parts = [self._stored(part) for part in rows]
        size = int(self.examples.heights[row]), int(self.examples.widths[row])
        image, tiles = self._mosaics.apply([part.image for part in parts], size, random)
        boxes, labels = [], []
        for part, tile in zip(parts, tiles, strict=True):
            inside, left = clipped(moved(part.boxes, inverse(tile.matrix)), tile.window)
            boxes.append(inside[left])
            labels.append(part.labels[left])
        return BoxedImage(image, np.concatenate(boxes), np.concatenate(labels))

    def _stored(self, row: int) -> BoxedImage:
        """Return an image and its boxes as they are in the store."""
        names = self.examples.labels_of(row)
        labels = np.array([self._indices.get(name, -1) for name in names], np.int64)
        boxes = self.examples.boxes(row).astype(np.float64)
        return BoxedImage(self.examples.image(row), boxes[labels >= 0], labels[labels >= 0])


def collate_boxes(rows: Sequence[BoxedImage]) -> tuple[Tensor, Tensor]:
    """Return boxes (B, M, 4) and labels (B, M), where those of no box are 0 and -1."""
    most = max(len(row.labels) for row in rows)
    boxes = np.zeros((len(rows), most, 4), np.float32)
    labels = np.full((len(rows), most), -1, np.int64)
    for number, row in enumerate(rows):
        boxes[number, : len(row.labels)] = row.boxes
        labels[number, : len(row.labels)] = row.labels
    return torch.from_numpy(boxes), torch.from_numpy(labels)
