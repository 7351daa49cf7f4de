"""The predictor that generates images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2attn.data.image_batches import collate_images
from seq2attn.data.latent_batches import between, latent_vectors
from seq2attn.errors import Seq2attnError, require_type
from seq2attn.images.decoding import Pixels
from seq2attn.inference.image_input import ReadImage, read_image
from seq2attn.inference.image_maps import ImageMap, ImageMaps, block_maps, write_maps
from seq2attn.inference.predictor import DEFAULT_PLOT, NO_OPTIONS, OF_TEXTS, PlotOptions, Predictor
from seq2attn.inference.result_list import Results
from seq2attn.inference.viewing import DEFAULT_VIEW, ViewOptions
from seq2attn.models.vision.discriminators import AdversarialPair
from seq2attn.recipe.image_generation import GenerationDataRecipe
from seq2attn.runtime.devices import autocast, explain_out_of_memory
from seq2attn.views.html_table import block, pale
from seq2attn.views.pictures import write_png
from seq2attn.views.sheets import png
from seq2attn.views.thumbnails import thumbnail
from seq2attn.views.viewer import Entry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 64  # images that are generated at a time
LEAST_TRUNCATION = 0.01
MOST = 1_000_000  # images of a call


@dataclass(frozen=True, eq=False, repr=False)
class GeneratedImage:
    """An image that was generated. `str` says which one it is."""

    html_headings: ClassVar[Sequence[str]] = ("image", "class")

    pixels: Pixels  # (H, W, C)
    latent: NDArray[np.float32]  # (Z,)
    name: str  # "seed 1, image 0"; of a real image, its file
    label: str | None = None  # None: the model is not conditional

    def __str__(self) -> str:
        return self.name if self.label is None else f"{self.name}, {self.label}"

    def __repr__(self) -> str:
        height, width, _ = self.pixels.shape
        return f"GeneratedImage({str(self)!r}, {width}x{height})"

    def save(self, path: str | Path) -> Path:
        """Write the image to a PNG file. PlotError if the path does not end in .png."""
        return write_png(path, lambda: png(self.pixels))

    def to_json(self) -> dict[str, Any]:
        """Return a value for json.dumps."""
        return {"image": self.name, "label": self.label, "latent": [round(float(z), 6) for z in self.latent]}

    def html_cells(self) -> list[str]:
        """See Tabular."""
        return [thumbnail(self.pixels, str(self)), escape(self.label or "")]

    def _repr_html_(self) -> str:
        """The image, and which one it is, for notebooks."""
        return block(f"{thumbnail(self.pixels, str(self))} {pale(escape(str(self)))}")


class ImageGenerator(Predictor):
    """Generates images. Returned by `seq2attn.load(run)`.

    data: the recipe's section, with the scale of its pixels.
    """

    task, command = "image_generation", "generate"

    def __init__(
        self,
        model: AdversarialPair,
        data: GenerationDataRecipe,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
    ) -> None:
        self.device, self.precision = torch.device(device), precision
        autocast(self.device, precision)  # raises now if the device does not support the precision
        self.model, self.labels = model, model.labels
        self.reader, self.original_reader = data.reader(), data.original_reader()
        self.normalize = data.scale
        model.to(self.device)

    def generate(
        self, count: int = 1, seed: int = 1, label: str | None = None, *, truncation: float | None = None
    ) -> Results[GeneratedImage]:
        """Return new images.

        An image is a function of the seed and of its number among them; a larger count has the same images
        and more. seed: at least 0. label: the class of all images, None for each class in turn; only of
        conditional models. truncation: no number of the latent vectors is farther from 0 than this: 0.5 makes
        images that are more alike and better, None leaves them as in training.
        """
        require_type(count, int, "the number of images")
        if not 0 < count <= MOST:
            raise Seq2attnError(f"expected count from 1 to {MOST:,}, got {count}")
        latents, names = self.latents(seed, range(count), truncation), _names(seed, range(count))
        return self._results(latents, self.classes(count, label), names)

    def interpolate(
        self,
        rows: int = 8,
        columns: int = 8,
        seed: int = 1,
        label: str | None = None,
        *,
        truncation: float | None = None,
    ) -> Results[GeneratedImage]:
        """Return rows * columns images. A row begins with the image of one latent vector and ends with that
        of another, and the images between lie on the arc between the two; all are of one class. Arguments:
        see `generate`."""
        for value, least, name in ((rows, 1, "rows"), (columns, 2, "columns")):
            require_type(value, int, f"the number of {name}")
            if not least <= value <= MOST:
                raise Seq2attnError(f"expected {name} from {least} to {MOST:,}, got {value}")
        shares, of_rows = torch.linspace(0, 1, columns, device="cpu"), self.classes(rows, label)
        ends = self.latents(seed, range(2 * rows), truncation).view(rows, 2, -1)
        latents = torch.cat([between(start, end, shares) for start, end in ends])
        labels = None if of_rows is None else [name for name in of_rows for _ in range(columns)]
        names = [
            f"seed {seed}, {2 * row} to {2 * row + 1}: {share:.2f}" for row in range(rows) for share in shares
        ]
        return self._results(latents, labels, names)

    def stream(self, lines: Iterable[Any]) -> Iterator[GeneratedImage]:
        """Yield an image of seed 1 for each line, whatever it is."""
        begun, lines = 0, iter(lines)
        while count := len(list(islice(lines, BATCH))):
            numbers, begun = range(begun, begun + count), begun + count
            classes = self.classes(begun, None)
            labels = None if classes is None else classes[numbers.start :]
            yield from self._results(self.latents(1, numbers), labels, _names(1, numbers))

    def latents(self, seed: int, numbers: range, truncation: float | None = None) -> Tensor:
        """Return the latent vectors (N, Z) of images with these numbers."""
        require_type(seed, int, "the seed")
        if seed < 0:
            raise Seq2attnError(f"expected a seed from 0 on, got {seed}")
        if truncation is not None and not truncation >= LEAST_TRUNCATION:
            raise Seq2attnError(f"expected a truncation of at least {LEAST_TRUNCATION}, got {truncation}")
        return latent_vectors(seed, numbers, self.model.generator.latent, truncation)

    def classes(self, count: int, label: str | None) -> list[str] | None:
        """Return the class of each image; None if the model is not conditional. Seq2attnError for a class
        that it does not have."""
        if label is not None and label not in self.labels:
            has = ", ".join(self.labels)
            why = f"this model has {has}" if has else "this model was trained without classes: leave it out"
            raise Seq2attnError(f"unknown class {label!r}: {why}")
        if not self.labels:
            return None
        return [label or self.labels[number % len(self.labels)] for number in range(count)]

    @torch.no_grad()
    def pixels(self, latents: Tensor, labels: Sequence[str] | None) -> list[Pixels]:
        """Return the images (H, W, C) of latent vectors (N, Z) and, if the model is conditional, labels."""
        self.model.eval()
        indices, images = self._indices(labels), list[Pixels]()
        for start in range(0, len(latents), BATCH):
            chunk = slice(start, start + BATCH)
            with (
                explain_out_of_memory(f"out of memory: lower {self.memory_advice}"),
                autocast(self.device, self.precision),
            ):
                made = self.model.generator(
                    latents[chunk].to(self.device), None if indices is None else indices[chunk]
                )
            images += _bytes(made)
        return images

    def maps(self, image: Any = 1, label: str | None = None) -> ImageMaps:
        """Return the maps of all attention blocks (`Block.look`): of generator and discriminator for the
        image of a seed (an int), of the discriminator for a real one (a path, an image of Pillow, an array).

        label: the class of the generated image.
        """
        return self._seen(image, label)[1]

    def draw(
        self, text: Any, options: PlotOptions = DEFAULT_PLOT, decoding: Mapping[str, object] = NO_OPTIONS
    ) -> tuple[GeneratedImage, "Figure"]:
        """See the base class. text: a seed or an image, as `maps` takes it; options.target: the class of the
        generated image."""
        image, maps = self._seen_as(text, options, decoding)
        return image, maps.draw(options)

    def plot(
        self,
        text: Any,
        path: str | Path,
        options: PlotOptions = DEFAULT_PLOT,
        decoding: Mapping[str, object] = NO_OPTIONS,
    ) -> GeneratedImage:
        """See the base class. A path that ends in .json gets the numbers of the maps instead of a picture."""
        image, maps = self._seen_as(text, options, decoding)
        write_maps(maps, image.to_json(), path, options)
        return image

    def entry(
        self, text: Any, options: ViewOptions = DEFAULT_VIEW, decoding: Mapping[str, object] = NO_OPTIONS
    ) -> Entry:
        """See the base class. text: a seed or an image; options.target: the class of the generated image."""
        image, maps = self._seen_as(
            text, PlotOptions(options.target, self_attention=options.self_attention), decoding
        )
        return maps.entry(image.name)

    @property
    def memory_advice(self) -> str:
        """See the base class."""
        return "the size of the images (data.size)"

    def _results(
        self, latents: Tensor, labels: Sequence[str] | None, names: Sequence[str]
    ) -> Results[GeneratedImage]:
        of_images: Sequence[str | None] = labels or [None] * len(names)
        rows = zip(self.pixels(latents, labels), latents.numpy(), names, of_images, strict=True)
        return Results(GeneratedImage(*row) for row in rows)

    def _indices(self, labels: Sequence[str] | None) -> Tensor | None:
        """Return the indices (N,) of labels, on the device of the model."""
        if labels is None or not self.labels:
            return None
        return torch.tensor([self.labels.index(label) for label in labels], device=self.device)

    def _seen_as(
        self, image: Any, options: PlotOptions, decoding: Mapping[str, object]
    ) -> tuple[GeneratedImage, ImageMaps]:
        """Return an image and its maps, if the options are those of images."""
        self.configured(decoding)
        options.refuse(OF_TEXTS, "models of texts")
        return self._seen(image, options.target)

    @torch.no_grad()
    def _seen(self, image: Any, label: str | None) -> tuple[GeneratedImage, ImageMaps]:
        """Return an image and its maps."""
        self.model.eval()
        classes, maps = self.classes(1, label), list[ImageMap]()
        with autocast(self.device, self.precision):
            if isinstance(image, int) and not isinstance(image, bool):
                latents, of_class = self.latents(image, range(1)), None if classes is None else classes[0]
                given = latents.to(self.device), self._indices(classes)
                maps, images = block_maps(self.model, lambda: self.model.generator(*given))
                (name,), (pixels,) = _names(image, range(1)), _bytes(images)
                made = GeneratedImage(pixels, latents[0].numpy(), name, of_class)
                read: ReadImage | Pixels = pixels
            else:
                name, original = read_image(image, self.original_reader)
                read = ReadImage.of(original, self.reader)
                pixels = read.pixels
                images = collate_images([pixels], self.normalize)[0].to(self.device)
                made = GeneratedImage(pixels, np.zeros(0, np.float32), name)
            maps += block_maps(self.model, lambda: self.model.discriminator.vectors(images))[0]
        if not maps:
            raise Seq2attnError(
                "this model has no attention: put a block into model.generator.blocks or "
                "model.discriminator.blocks"
            )
        return made, ImageMaps(read, str(made), maps, "")


def _names(seed: int, numbers: range) -> list[str]:
    return [f"seed {seed}, image {number}" for number in numbers]


def _bytes(images: Tensor) -> list[Pixels]:
    """Return images (B, C, H, W) from -1 to 1 as pixels (H, W, C)."""
    levels = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return list(levels.permute(0, 2, 3, 1).contiguous().cpu().numpy())
