"""The predictor of labels of images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from jaxtyping import Float
from torch import Tensor

from seq2attn.attention.memory import Grid
from seq2attn.data.image_batches import collate_images
from seq2attn.data.image_plan import BatchLimits
from seq2attn.errors import Seq2attnError
from seq2attn.images.decoding import Pixels
from seq2attn.inference.image_input import CHUNK, image_chunks, read_image, several
from seq2attn.inference.image_maps import ImageMaps, image_maps
from seq2attn.inference.image_predictor import ImagePredictor
from seq2attn.inference.predictor import OF_TEXTS, PlotOptions
from seq2attn.models.vision.classifier import ImageClassifier, ImageScores
from seq2attn.recipe.image_data import ImageDataRecipe
from seq2attn.runtime.devices import autocast, explain_out_of_memory
from seq2attn.text.word_vocabulary import Labels
from seq2attn.views.html_table import block, pale
from seq2attn.views.thumbnails import thumbnail

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from seq2attn.inference.image_input import OneImage
    from seq2attn.views.image_maps import Scale

RANKED = 5  # labels of a result in the form that metrics take
_SHOWN = 3  # labels in notebooks


@dataclass(frozen=True, eq=False, repr=False)
class ImageCategory:
    """An image and its label. `str` gives the label.

    weights: of the pooling, for each of its queries and heads, on a grid over the image.
    """

    name: str  # of the image's file; "" if it came from memory
    label: str
    probabilities: dict[str, float]  # of all labels
    pixels: Pixels  # (H, W, C), as the network has read them
    weights: Float[Tensor, "H rows columns"] | None = field(default=None)

    @property
    def probability(self) -> float:
        """The probability of the label."""
        return self.probabilities[self.label]

    @property
    def ranked(self) -> list[str]:
        """All labels, from the most probable on."""
        return sorted(self.probabilities, key=lambda label: -self.probabilities[label])

    def __str__(self) -> str:
        return self.label

    def __repr__(self) -> str:
        return f"ImageCategory({self.label!r}, probability={self.probability:.3f})"

    @property
    def title(self) -> str:
        """The label and its probability, for pictures."""
        return f"{self.label}, probability {self.probability:.3f}"

    def plot(self, path: str | Path | None = None, *, scale: "Scale" = "auto") -> "Figure":
        """Return a picture of the image, and of the weights of the pooling if it has any; save it if a path
        is given, which ends in .png, .svg or .pdf. For other maps see `ImageCategorizer.maps`.

        scale: see views.image_maps.picture. Weights that are the same everywhere, as in the mean, are left
            out.
        """
        from seq2attn.views.image_maps import Overlay, picture
        from seq2attn.views.pictures import save

        several = () if self.weights is None else self.weights
        panels = [
            Overlay("pooling" if len(several) == 1 else f"pooling {number}", weights.numpy(), scale)
            for number, weights in enumerate(several)
            if weights.min() < weights.max()
        ]
        figure = picture(self.pixels, self.title, panels)
        if path is not None:
            save(figure, path)
        return figure

    def to_json(self) -> dict[str, Any]:
        """Return a value for json.dumps."""
        rounded = {label: round(value, 4) for label, value in self.probabilities.items()}
        return {"image": self.name, "label": self.label, "probabilities": rounded}

    def _repr_html_(self) -> str:
        """The image, small, its name, and the most probable labels, for notebooks."""
        labels = ", ".join(
            f"{escape(label)} {self.probabilities[label]:.3f}" for label in self.ranked[:_SHOWN]
        )
        picture = thumbnail(self.pixels, self.label)
        return block(f"{picture} {escape(self.name)} <b>{escape(self.label)}</b> {pale(labels)}")


class ImageCategorizer(ImagePredictor[ImageCategory]):
    """Labels images. Returned by `seq2attn.load(run)`.

    data: the recipe's section, with a normalisation.
    """

    task, command = "image_classification", "classify"
    limits = BatchLimits(images=64, pixels=2**22)

    def __init__(
        self,
        model: ImageClassifier,
        labels: Labels,
        data: ImageDataRecipe,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
    ) -> None:
        super().__init__(model, data, device, precision)
        self.labels = labels

    @overload
    def classify(  # type: ignore[overload-overlap]
        self, image: "OneImage", *, weights: bool = True
    ) -> ImageCategory: ...

    @overload
    def classify(self, image: "Sequence[OneImage]", *, weights: bool = True) -> list[ImageCategory]: ...

    def classify(self, image: Any, *, weights: bool = True) -> ImageCategory | list[ImageCategory]:
        """Return the label of an image, or of each of a list of images.

        image: the path of a file, an image of Pillow, or 8-bit pixels (H, W) or (H, W, channels), as a numpy
            array. weights=False saves the time and the memory of keeping the weights of the pooling.

        Raises:
            ImageError: it is no image, or damaged; the message names the file.
        """
        results = list(self._label(image if several(image) else [image], weights))
        return results if several(image) else results[0]

    def maps(self, image: "OneImage", label: str | None = None) -> ImageMaps:
        """Return all maps of the network for an image: those of its attention blocks (`Block.look`), the
        weights of its pooling and of self-attention, attention rollout and Grad-CAM.

        label: that Grad-CAM explains; None: the label that the image gets.
        """
        return self._seen(image, label)[1]

    def stream(self, lines: Iterable[Any]) -> Iterator[ImageCategory]:
        """See the base class: images, as `classify` takes them."""
        return self._label(lines, weights=False)

    def _label(self, images: Iterable[Any], weights: bool) -> Iterator[ImageCategory]:
        for chunk in image_chunks(images, self.reader, CHUNK):
            yield from self._label_chunk(chunk, weights)

    def _label_chunk(self, images: list[tuple[str, Pixels]], weights: bool) -> list[ImageCategory]:
        """Return the results of some images, in their order."""
        results: dict[int, ImageCategory] = {}
        pixels, compute = [pixels for _, pixels in images], partial(self.output, weights=weights)
        for rows, output in self._outputs(pixels, compute):
            for index, row in enumerate(rows):
                results[row] = self._result(*images[row], output, index)
        return [results[row] for row in range(len(images))]

    def output(self, images: Sequence[Pixels], weights: bool = False) -> ImageScores:
        """See the base class. weights: whether it has the weights of the pooling."""
        with autocast(self.device, self.precision):
            output: ImageScores = self.model(*self._batch(images), need_weights=weights)
        return output

    def _seen_as(
        self, image: Any, options: PlotOptions, decoding: Mapping[str, object]
    ) -> tuple[ImageCategory, ImageMaps]:
        """Return the result of an image, and its maps, if the options are those of images."""
        self.configured(decoding)
        options.refuse(OF_TEXTS, "models of texts")
        return self._seen(image, options.target)

    def _seen(self, image: Any, label: str | None = None) -> tuple[ImageCategory, ImageMaps]:
        """Return the result of an image, and its maps."""
        names = self.labels.names
        if label is not None and label not in names:
            raise Seq2attnError(f"unknown label {label!r}: this model has {', '.join(names)}")
        name, original = read_image(image, self.original_reader)
        pixels = (read := self.read(original)).pixels
        batch, _ = collate_images([pixels], self.normalize)
        with (
            explain_out_of_memory(f"out of memory: lower {self.memory_advice}"),
            autocast(self.device, self.precision),
        ):
            seen = image_maps(
                self.model, batch.to(self.device), None if label is None else names.index(label)
            )
        category = self._result(name, pixels, seen.output, 0)
        return category, ImageMaps(read, category.title, seen.maps, label or category.label)

    def _result(self, name: str, pixels: Pixels, output: ImageScores, row: int) -> ImageCategory:
        values = output.scores[row].float().softmax(-1).tolist()
        by_label = dict(zip(self.labels.names, values, strict=True))
        label = max(by_label, key=by_label.__getitem__)
        weights = None
        if output.weights is not None and output.grid is not None:
            size = self._grid_of(pixels, output.grid)
            whole = output.weights[row].float().cpu().unflatten(-1, output.grid)
            weights = whole[:, : size[0], : size[1]]
        return ImageCategory(name, label, by_label, pixels, weights)

    def _grid_of(self, pixels: Pixels, grid: Grid) -> Grid:
        """Return the part of a batch's grid that an image has."""
        stride = self.model.backbone.strides[-1]
        rows, columns = (-(-side // stride) for side in pixels.shape[:2])
        return min(rows, grid[0]), min(columns, grid[1])
