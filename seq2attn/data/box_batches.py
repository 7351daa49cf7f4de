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
        self._indices = {name: index for index, name in enumerate(labels.names)}

    def batch(self, indices: Indices, epoch: int | None = None) -> BoxBatch:
        """Return the images with these indices; in an epoch of training they are changed as the recipe says,
        and their boxes move with them."""
        rows = [self.boxed(row, epoch) for row in indices.tolist()]
        images, mask = collate_images([row.image for row in rows], self.normalize)
        return BoxBatch(images, mask, *collate_boxes(rows))

    def boxed(self, row: int, epoch: int | None) -> BoxedImage:
        """Return an image and its boxes as an epoch sees them.

        A box is that around the four moved corners, cut off at the sides of the image; one of which less than
        a fifth of the area is left in the image is left out.
        """
        image, matrix = self.changed(row, epoch)
        boxes, labels = self._stored(row)
        if epoch is None:
            return BoxedImage(image, boxes, labels)
        boxes, left = clipped(moved(boxes, inverse(matrix)), (0.0, 0.0, image.shape[1], image.shape[0]))
        return BoxedImage(image, boxes[left], labels[left])

    def _stored(self, row: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the boxes of an image as they are in the store, and the indices of their labels."""
        labels = np.array([self._indices.get(name, -1) for name in self.examples.labels_of(row)], np.int64)
        return self.examples.boxes(row)[labels >= 0].astype(np.float64), labels[labels >= 0]


def collate_boxes(rows: Sequence[BoxedImage]) -> tuple[Tensor, Tensor]:
    """Return boxes (B, M, 4) and labels (B, M), where those of no box are 0 and -1."""
    most = max(len(row.labels) for row in rows)
    boxes = np.zeros((len(rows), most, 4), np.float32)
    labels = np.full((len(rows), most), -1, np.int64)
    for number, row in enumerate(rows):
        boxes[number, : len(row.labels)] = row.boxes
        labels[number, : len(row.labels)] = row.labels
    return torch.from_numpy(boxes), torch.from_numpy(labels)
