"""The base class of predictors that compute something for each image: batches by size, and maps."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from seq2attn.data.image_batches import collate_images, normalization
from seq2attn.data.image_plan import BatchLimits, by_size, fill_images
from seq2attn.images.decoding import Pixels
from seq2attn.inference.image_input import ReadImage
from seq2attn.inference.image_maps import ImageMap, ImageMaps, block_maps, write_maps
from seq2attn.inference.predictor import DEFAULT_PLOT, NO_OPTIONS, OF_TEXTS, PlotOptions, Predictor
from seq2attn.inference.viewing import DEFAULT_VIEW, ViewOptions
from seq2attn.recipe.image_data import AnyImageDataRecipe
from seq2attn.runtime.devices import autocast, explain_out_of_memory
from seq2attn.views.viewer import Entry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from seq2attn.inference.image_input import OneImage

CHUNK = 32  # images whose results are as large as they are: so many are read at a time


class Result(Protocol):
    """What a predictor returns for an image."""

    def to_json(self) -> dict[str, Any]:
        """Return a value for json.dumps."""


S = TypeVar("S", bound=Result)


class ImagePredictor(Predictor, Generic[S]):
    """The base class of predictors that compute something for each image.

    data: the recipe's section, with a normalisation.
    """

    limits: ClassVar[BatchLimits] = BatchLimits(images=16, pixels=2**21)

    def __init__(
        self,
        model: nn.Module,
        data: AnyImageDataRecipe,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
    ) -> None:
        self.device, self.precision = torch.device(device), precision
        autocast(self.device, precision)  # raises now if the device does not support the precision
        self.model = model
        self.reader, self.normalize = data.reader(limited=True), normalization(data)
        self.original_reader = data.original_reader()
        model.to(self.device)

    def draw(
        self,
        text: "OneImage",
        options: PlotOptions = DEFAULT_PLOT,
        decoding: Mapping[str, object] = NO_OPTIONS,
    ) -> tuple[S, "Figure"]:
        """See the base class. text: an image."""
        result, maps = self._seen_as(text, options, decoding)
        return result, maps.draw(options)

    def plot(
        self,
        text: "OneImage",
        path: str | Path,
        options: PlotOptions = DEFAULT_PLOT,
        decoding: Mapping[str, object] = NO_OPTIONS,
    ) -> S:
        """See the base class. A path that ends in .json gets the numbers of the maps instead of a picture."""
        result, maps = self._seen_as(text, options, decoding)
        write_maps(maps, result.to_json(), path, options)
        return result

    def entry(
        self, text: Any, options: ViewOptions = DEFAULT_VIEW, decoding: Mapping[str, object] = NO_OPTIONS
    ) -> Entry:
        """See the base class: all maps of an image."""
        _, maps = self._seen_as(
            text, PlotOptions(options.target, self_attention=options.self_attention), decoding
        )
        return maps.entry(text if isinstance(text, str) else "")

    @property
    def memory_advice(self) -> str:
        """See the base class."""
        return "the size of the largest image (data.size)"

    def output(self, images: Sequence[Pixels]) -> Any:
        """Return the model's output for a batch of images."""
        with autocast(self.device, self.precision):
            return self.model(*self._batch(images))

    def read(self, pixels: Pixels) -> ReadImage:
        """Return an image of any size as the network reads it."""
        return ReadImage.of(pixels, self.reader)

    def _batch(self, images: Sequence[Pixels]) -> tuple[Tensor, Tensor | None]:
        """Return images as the model takes them, and their mask, on its device."""
        batch, mask = collate_images(images, self.normalize)
        return batch.to(self.device), None if mask is None else mask.to(self.device)

    def _outputs(
        self, images: Sequence[Pixels], compute: Callable[[Sequence[Pixels]], Any]
    ) -> Iterator[tuple[list[int], Any]]:
        """Yield what is computed for batches of images of similar sizes, each with the indices of its images.
        In fp32, what comes out for an image does not depend on the others."""
        self.model.eval()
        heights, widths = (np.array([image.shape[side] for image in images], np.int32) for side in (0, 1))
        order = by_size(heights, widths, np.arange(len(images)))
        for indices in fill_images(order, heights, widths, self.limits):
            rows = indices.tolist()
            with torch.no_grad(), explain_out_of_memory(f"out of memory: lower {self.memory_advice}"):
                output = compute([images[row] for row in rows])
            yield rows, output

    def _looked(self, pixels: Pixels) -> tuple[list[ImageMap], Any]:
        """Return the maps of the network's blocks for an image, and its output."""
        with (
            explain_out_of_memory(f"out of memory: lower {self.memory_advice}"),
            autocast(self.device, self.precision),  # also for the blocks, which look again
        ):
            return block_maps(self.model, lambda: self.output([pixels]))

    def _seen_as(
        self, image: Any, options: PlotOptions, decoding: Mapping[str, object]
    ) -> tuple[S, ImageMaps]:
        """Return the result of an image, and its maps, if the options are those of images."""
        self.configured(decoding)
        options.refuse((*OF_TEXTS, "target"), "other models")
        return self._seen(image)

    @abstractmethod
    def _seen(self, image: Any) -> tuple[S, ImageMaps]:
        """Return the result of an image, and its maps."""
