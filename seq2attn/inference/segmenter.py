"""The predictor of the classes of pixels."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from seq2attn.attention.memory import Grid
from seq2attn.data.image_batches import collate_images, normalization
from seq2attn.data.image_plan import BatchLimits, by_size, fill_images
from seq2attn.images.decoding import ImageReader, Pixels
from seq2attn.images.geometry import Matrix
from seq2attn.images.masks import Labels
from seq2attn.inference.image_input import read_image, several
from seq2attn.inference.image_maps import ImageMaps, block_maps, write_maps
from seq2attn.inference.predictor import DEFAULT_PLOT, NO_OPTIONS, OF_TEXTS, PlotOptions, Predictor
from seq2attn.inference.segmentations import Segmentation
from seq2attn.models.vision.enlarging import interpolation
from seq2attn.models.vision.segmenters import PixelScores, SegmentationNet
from seq2attn.recipe.mask_data import SegmentationDataRecipe
from seq2attn.runtime.devices import autocast, explain_out_of_memory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from seq2attn.inference.image_input import OneImage

LIMITS = BatchLimits(images=16, pixels=2**21)
CHUNK = 32  # images that are read at a time, so that batches can have similar sizes


class Resized(NamedTuple):
    """An image as the network reads it, and where its pixels come from."""

    pixels: Pixels  # (h, w, C)
    matrix: Matrix  # takes a position of it to that of the original image
    size: Grid  # height and width of the original


class Segmenter(Predictor):
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

        self.device, self.precision = torch.device(device), precision
        autocast(self.device, precision)  # raises now if the device does not support the precision
        self.model, self.classes = model, list(data.classes)
        self.colors = palette(data.classes, data.colors)
        self.reader, self.normalize = data.reader(), normalization(data)
        self.original_reader = ImageReader(data.channels)
        model.to(self.device)

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

    def masks(self, images: Iterable[Resized]) -> Iterator[Labels]:
        """Yield the class of each pixel of the original of each image: (H, W)."""
        for probabilities in self.probabilities(images):
            yield probabilities.argmax(0).to(torch.uint8).numpy()

    def probabilities(self, images: Iterable[Resized]) -> Iterator[Tensor]:
        """Yield the probabilities (K, H, W) of the classes of each pixel of the original of each image."""
        images = iter(images)
        while chunk := list(islice(images, CHUNK)):
            yield from self._chunk(chunk)

    def maps(self, image: "OneImage") -> ImageMaps:
        """Return all maps of the network's attention blocks for an image (`Block.look`)."""
        return self._seen(image)[1]

    def draw(
        self,
        text: "OneImage",
        options: PlotOptions = DEFAULT_PLOT,
        decoding: Mapping[str, object] = NO_OPTIONS,
    ) -> tuple[Segmentation, "Figure"]:
        """See the base class. text: an image."""
        result, maps = self._seen_as(text, options, decoding)
        return result, maps.draw(options)

    def plot(
        self,
        text: "OneImage",
        path: str | Path,
        options: PlotOptions = DEFAULT_PLOT,
        decoding: Mapping[str, object] = NO_OPTIONS,
    ) -> Segmentation:
        """See the base class. A path that ends in .json gets the numbers of the maps instead of a picture."""
        result, maps = self._seen_as(text, options, decoding)
        write_maps(maps, result.to_json(), path, options)
        return result

    @property
    def memory_advice(self) -> str:
        """See the base class."""
        return "the size of the largest image (data.size)"

    def _segment(self, images: Iterable[Any], probabilities: bool) -> Iterator[Segmentation]:
        images = iter(images)
        while chunk := [read_image(image, self.original_reader) for image in islice(images, CHUNK)]:
            resized = [self._resized(pixels) for _, pixels in chunk]
            for (name, pixels), found in zip(chunk, self.probabilities(resized), strict=True):
                mask = found.argmax(0).to(torch.uint8).numpy()
                kept = found if probabilities else None
                yield Segmentation(name, pixels, mask, self.classes, self.colors, kept)

    def _resized(self, pixels: Pixels) -> Resized:
        size = pixels.shape[0], pixels.shape[1]
        matrix, _ = self.reader.geometry(*size)
        return Resized(self.reader.read(pixels), matrix, size)

    @torch.no_grad()
    def _chunk(self, images: list[Resized]) -> Iterator[Tensor]:
        """Yield the probabilities of some images, in their order. In fp32, none depends on the others."""
        self.model.eval()
        heights, widths = (
            np.array([image.pixels.shape[side] for image in images], np.int32) for side in (0, 1)
        )
        order = by_size(heights, widths, np.arange(len(images)))
        scores: dict[int, Tensor] = {}
        for indices in fill_images(order, heights, widths, LIMITS):
            rows = indices.tolist()
            with explain_out_of_memory(f"out of memory: lower {self.memory_advice}"):
                output = self.output([images[row].pixels for row in rows]).scores
            for index, row in enumerate(rows):
                scores[row] = output[index, :, : heights[row], : widths[row]].float().cpu()
        for row, image in enumerate(images):
            yield restored(scores.pop(row).softmax(0), image.matrix, image.size)

    def output(self, images: Sequence[Pixels]) -> PixelScores:
        """Return the model's output for a batch of images."""
        batch, mask = collate_images(images, self.normalize)
        with autocast(self.device, self.precision):
            output: PixelScores = self.model(
                batch.to(self.device), None if mask is None else mask.to(self.device)
            )
        return output

    def _seen_as(
        self, image: Any, options: PlotOptions, decoding: Mapping[str, object]
    ) -> tuple[Segmentation, ImageMaps]:
        """Return the result of an image, and its maps, if the options are those of images."""
        self.configured(decoding)
        options.refuse((*OF_TEXTS, "target"), "other models")
        return self._seen(image)

    def _seen(self, image: Any) -> tuple[Segmentation, ImageMaps]:
        """Return the result of an image, and its maps."""
        name, pixels = read_image(image, self.original_reader)
        read, matrix, size = self._resized(pixels)
        batch, _ = collate_images([read], self.normalize)
        with (
            explain_out_of_memory(f"out of memory: lower {self.memory_advice}"),
            autocast(self.device, self.precision),
        ):
            maps, output = block_maps(self.model, lambda: self.model(batch.to(self.device)))
        found = restored(output.scores[0].float().cpu().softmax(0), matrix, size)
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
