"""Images with masks, as segmentation has them -> a store in the cache -> examples."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2attn.data.corpora import Role
from seq2attn.data.examples import Part
from seq2attn.data.images import ImageExamples, ImageKind, image_parts
from seq2attn.data.mask_corpora import COLUMNS, open_masks
from seq2attn.data.report import Report, silent
from seq2attn.images.decoding import ImageReader
from seq2attn.images.geometry import Matrix, composed, identity
from seq2attn.images.masks import IGNORED, Labels, moved, packed_size, unpacked
from seq2attn.recipe.mask_data import AnyMasks, SegmentationDataRecipe


def prepare_masks(
    corpora: Sequence[AnyMasks],
    data: SegmentationDataRecipe,
    role: Role,
    progress: Callable[[Report], object] = silent,
) -> "MaskExamples":
    """Read and decode the images and masks of corpora; see `prepare_images`.

    A mask of another size than its image, with a number or colour that no class has, or without any pixel
    that counts, is a bad line.

    Raises:
        DataError: data cannot be read, there is a bad line and `data.bad_lines` is stop, or no image is left.
    """
    kind = ImageKind(partial(open_masks, data.mask_reader()), COLUMNS)
    return MaskExamples(image_parts(corpora, data, role, kind, progress), data.reader(), len(data.classes))


class MaskExamples(ImageExamples):
    """Images by number, each with its mask. Made by `prepare_masks`."""

    def __init__(self, parts: Sequence[Part], reader: ImageReader, classes: int) -> None:
        super().__init__(parts, reader)
        chunks = [chunk for part in parts for chunk in part.stored.chunks]
        self._masks = [chunk.column("mask") for chunk in chunks]
        self.classes = classes

    def labels(self, number: int) -> Labels:
        """Return the class of each pixel of an image before it is resized: (H, W)."""
        chunk, row = self._find(number)
        return unpacked(self._masks[chunk][row][0].as_buffer().to_pybytes())

    def size(self, number: int) -> tuple[int, int]:
        """Return height and width of an image before it is resized."""
        chunk, row = self._find(number)
        return packed_size(self._masks[chunk][row][0].as_buffer().to_pybytes())

    def target_text(self, number: int) -> Any:
        """Return what metrics compare with: the class of each pixel, as `labels` does."""
        return self.labels(number)

    def references(self, number: int) -> list[Any]:
        """Return the only mask of an image, likewise."""
        return [self.labels(number)]

    def moved_labels(self, number: int, matrix: Matrix, size: tuple[int, int]) -> Labels:
        """Return the class of each pixel of a changed image: (H, W).

        matrix: takes a position of the changed image to that of `image(number)`; size: of the changed image.
        """
        labels = self.labels(number)
        resizing, _ = self.reader.geometry(*labels.shape)
        return moved(labels, composed(resizing, matrix), size)

    def resized_labels(self, number: int) -> Labels:
        """Return the class of each pixel of `image(number)`: (H, W)."""
        return self.moved_labels(number, identity(), (int(self.heights[number]), int(self.widths[number])))

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """The number of pixels of each class, (K,), in all images before they are resized."""
        counts = np.zeros(IGNORED + 1, np.int64)
        for number in range(len(self)):
            counts += np.bincount(self.labels(number).ravel(), minlength=len(counts))
        return counts[: self.classes]
