"""The predictor of the classes of pixels."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from torch import Tensor

from seq2attn.attention.memory import Grid
from seq2attn.images.geometry import Matrix
from seq2attn.images.masks import Labels
from seq2attn.inference.image_input import ReadImage, image_chunks, read_image, several
from seq2attn.inference.image_maps import ImageMaps
from seq2attn.inference.image_predictor import CHUNK, ImagePredictor
from seq2attn.inference.segmentations import Segmentation
from seq2attn.models.vision.enlarging import interpolation
from seq2attn.models.vision.segmenters import SegmentationNet
from seq2attn.recipe.mask_data import SegmentationDataRecipe

if TYPE_CHECKING:
    from seq2attn.inference.image_input import OneImage


class Segmenter(ImagePredictor[Segmentation]):
    """Gives each pixel of an image a class. Returned by `seq2attn.load(run)`.

    data: the recipe's section, with a normalisation.
    """

    task, command = "segmentation", "segment"

    def __init__(
        self,
        model: SegmentationNet,
        data: SegmentationDataRecipe,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
    ) -> None:
        from seq2attn.views.masks import palette

        super().__init__(model, data, device, precision)
        self.classes, self.colors = list(data.classes), palette(data.classes, data.colors)

    @overload
    def segment(  # type: ignore[overload-overlap]
        self, image: "OneImage", *, probabilities: bool = True
    ) -> Segmentation: ...

    @overload
    def segment(self, image: "Sequence[OneImage]", *, probabilities: bool = True) -> list[Segmentation]: ...

    def segment(self, image: Any, *, probabilities: bool = True) -> Segmentation | list[Segmentation]:
        """Return the class of each pixel of an image, or of each of a list of images.

        Images of any size are read as in training, and results have the size of the image itself. Where
        `data.resize` is crop, pixels outside of the crop have the class of the nearest one in it.

        image: the path of a file, an image of Pillow, or 8-bit pixels (H, W) or (H, W, channels), as a numpy
            array. probabilities=False saves their memory, four bytes for each class and pixel.

        Raises:
            ImageError: it is no image, or damaged; the message names the file.
        """
        results = list(self._segment(image if several(image) else [image], probabilities))
        return results if several(image) else results[0]

    def stream(self, lines: Iterable[Any]) -> Iterator[Segmentation]:
        """See the base class: images, as `segment` takes them; without probabilities."""
        return self._segment(lines, probabilities=False)

    def masks(self, images: Iterable[ReadImage]) -> Iterator[Labels]:
        """Yield the class of each pixel of the original of each image: (H, W)."""
        for probabilities in self.probabilities(images):
            yield probabilities.argmax(0).to(torch.uint8).numpy()

    def probabilities(self, images: Iterable[ReadImage]) -> Iterator[Tensor]:
        """Yield the probabilities (K, H, W) of the classes of each pixel of the original of each image."""
        images = iter(images)
        while chunk := list(islice(images, CHUNK)):
            yield from self._chunk(chunk)

    def maps(self, image: "OneImage") -> ImageMaps:
        """Return all maps of the network's attention blocks for an image (`Block.look`)."""
        return self._seen(image)[1]

    def _segment(self, images: Iterable[Any], probabilities: bool) -> Iterator[Segmentation]:
        for chunk in image_chunks(images, self.original_reader, CHUNK):
            read = [self.read(pixels) for _, pixels in chunk]
            for (name, pixels), found in zip(chunk, self.probabilities(read), strict=True):
                mask = found.argmax(0).to(torch.uint8).numpy()
                kept = found if probabilities else None
                yield Segmentation(name, pixels, mask, self.classes, self.colors, kept)

    def _chunk(self, images: list[ReadImage]) -> Iterator[Tensor]:
        """Yield the probabilities of some images, in their order."""
        scores: dict[int, Tensor] = {}
        for rows, output in self._outputs([image.pixels for image in images], self.output):
            for index, row in enumerate(rows):
                height, width = images[row].pixels.shape[:2]
                scores[row] = output.scores[index, :, :height, :width].float().cpu()
        for row, image in enumerate(images):
            yield restored(scores.pop(row).softmax(0), image.to_original, image.size)

    def _seen(self, image: Any) -> tuple[Segmentation, ImageMaps]:
        """Return the result of an image, and its maps."""
        name, pixels = read_image(image, self.original_reader)
        read = self.read(pixels)
        maps, output = self._looked(read.pixels)
        found = restored(output.scores[0].float().cpu().softmax(0), read.to_original, read.size)
        mask = found.argmax(0).to(torch.uint8).numpy()
        result = Segmentation(name, pixels, mask, self.classes, self.colors, found)
        return result, ImageMaps(read, str(result), maps, "")


def restored(probabilities: Tensor, matrix: Matrix, size: Grid) -> Tensor:
    """Return the probabilities (K, h, w) of a resized image for the pixels of the original: (K, H, W).

    Between four pixels of the resized image they are their bilinear mean, and outside of it those of the
    nearest one. matrix: takes a position of the resized image to that of the original, without a turn.
    """
    if tuple(probabilities.shape[1:]) == size and np.array_equal(matrix, np.eye(2, 3)):
        return probabilities
    rows, columns = (
        interpolation((torch.arange(length, device="cpu") + 0.5 - float(offset)) / float(scale) - 0.5, count)
        for length, offset, scale, count in (
            (size[0], matrix[1, 2], matrix[1, 1], probabilities.shape[1]),
            (size[1], matrix[0, 2], matrix[0, 0], probabilities.shape[2]),
        )
    )
    return rows @ probabilities @ columns.T
