"""Batches of images with masks."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seq2attn.data.batch_plan import Indices
from seq2attn.data.image_batches import ImageBatches, collate_images
from seq2attn.data.masks import MaskExamples
from seq2attn.images.masks import IGNORED


class MaskBatch(NamedTuple):
    """Images with masks, normalised, and padded with zeros at the bottom and on the right."""

    images: Tensor  # (B, C, H, W), float32
    mask: Tensor | None  # (B, 1, H, W), bool, True = a pixel of the image; None: there is no padding
    labels: Tensor  # (B, H, W), long; 0 where pixels do not count
    counted: Tensor  # (B, H, W), bool, True = a pixel with a class

    @property
    def num_targets(self) -> int:
        """The number of counted pixels, at least 1: a crop may have none, and the loss is then 0."""
        return max(1, int(self.counted.sum()))

    @property
    def shape(self) -> str:
        """The batch's shape in words, for out-of-memory messages."""
        return f"images by channels by height by width {tuple(self.images.shape)}"

    def to(self, device: torch.device) -> "MaskBatch":
        """Move to a device."""
        images, labels, counted = (
            part.to(device, non_blocking=True) for part in (self.images, self.labels, self.counted)
        )
        mask = None if self.mask is None else self.mask.to(device, non_blocking=True)
        return MaskBatch(images, mask, labels, counted)


class MaskBatchLoader(ImageBatches):
    """Loads images with masks as batches. A batch is a pure function of the examples, the seed, the epoch and
    the indices."""

    examples: MaskExamples

    def batch(self, indices: Indices, epoch: int | None = None) -> MaskBatch:
        """Return the images with these indices; in an epoch of training they are changed as the recipe says,
        and their masks move with them: pixels from outside do not count."""
        rows = indices.tolist()
        changed = [self.changed(row, epoch) for row in rows]
        images, mask = collate_images([one.image for one in changed], self.normalize)
        labels = np.full((len(rows), *images.shape[2:]), IGNORED, np.uint8)
        for number, (row, (image, matrix)) in enumerate(zip(rows, changed, strict=True)):
            height, width = image.shape[:2]
            labels[number, :height, :width] = self.examples.moved_labels(row, matrix, (height, width))
        counted = torch.from_numpy(labels != IGNORED)
        numbers = torch.from_numpy(labels).long()
        return MaskBatch(images, mask, numbers.masked_fill(~counted, 0), counted)
