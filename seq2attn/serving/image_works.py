"""What is computed for images: texts, objects, classes of pixels, labels; and new images."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from seq2attn.images.decoding import FORMATS, ImageError, ImageReader, Pixels
from seq2attn.inference.captioner import Captioner
from seq2attn.inference.captions import Caption
from seq2attn.inference.decoding_options import require_prefixes
from seq2attn.inference.detector import Detector
from seq2attn.inference.found_objects import FoundObjects
from seq2attn.inference.image_categorizer import ImageCategorizer, ImageCategory
from seq2attn.inference.image_generator import BATCH, GeneratedImage, ImageGenerator
from seq2attn.inference.image_predictor import ImagePredictor
from seq2attn.inference.segmentations import Segmentation
from seq2attn.inference.segmenter import Segmenter
from seq2attn.inference.viewing import map_of_image
from seq2attn.recipe import DecodingRecipe
from seq2attn.serving.limits import PIXELS_OF_A_LINE
from seq2attn.serving.waiting import Line, Work

_PIXELS = 2**21  # of a batch
Seeing = Captioner | Detector | ImageCategorizer | Segmenter


class TooLargeError(ImageError):
    """An image with more pixels than are accepted."""


class Picture(NamedTuple):
    """An image, and the beginning of what is written from it."""

    pixels: Pixels
    prefix: str = ""


def decoded(content: bytes, reader: ImageReader, most: int) -> Pixels:
    """Return the pixels of a file, upright, in the size that they have.

    TooLargeError, before anything is decoded, if there are more than `most`, or than the model accepts;
    ImageError if it is no image or damaged.
    """
    most = most if reader.most is None else min(most, reader.most)
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise TooLargeError("too large image", f"the image has more than {most:,} pixels") from error
    except Exception as error:  # Pillow's decoders raise anything for damaged files
        raise ImageError("not an image", f"expected an image ({', '.join(FORMATS)})") from error
    if width * height > most:
        raise TooLargeError(
            "too large image", f"the image is {width:,} x {height:,}: expected at most {most:,} pixels"
        )
    return ImageReader(reader.channels).read(content)


class LookedAt(NamedTuple):
    """An image as the model reads it, and where the model looks."""

    pixels: Pixels
    maps: list[tuple[str, Tensor]]  # names, and weights (rows, columns) of the parts of a grid over it


class OfImages(Work):
    """The base class of works that compute a result for each `Picture`."""

    @property
    def budget(self) -> int:
        """See the base class: in pixels."""
        return _PIXELS

    def lines(self, items: Sequence[Picture]) -> list[Line]:
        """See the base class."""
        sizes = [item.pixels.shape[0] * item.pixels.shape[1] for item in items]
        return [
            Line(item, size, number, 1 + size // PIXELS_OF_A_LINE)
            for number, (item, size) in enumerate(zip(items, sizes, strict=True))
        ]


@dataclass(frozen=True)
class Captioning(OfImages):
    """Texts that are written from images."""

    predictor: Captioner
    decoding: DecodingRecipe
    alignment: bool = False

    def lines(self, items: Sequence[Picture]) -> list[Line]:
        """See the base class. Seq2attnError for a prefix that is longer than texts may be."""
        prefixes = [*dict.fromkeys(item.prefix for item in items)]
        pieces = self.predictor.target.encode(prefixes)
        require_prefixes(pieces, self.decoding, ["the text"] * len(prefixes))
        return super().lines(items)

    def compute(self, lines: Sequence[Line]) -> list[Caption]:
        """See the base class."""
        read = self.predictor.reader.read
        return self.predictor.results(
            [("", read(line.item.pixels)) for line in lines],
            self.decoding,
            self.alignment,
            [line.item.prefix for line in lines],
            [line.number for line in lines],
        )


@dataclass(frozen=True)
class Detecting(OfImages):
    """The objects in images."""

    predictor: Detector
    threshold: float

    def compute(self, lines: Sequence[Line]) -> list[FoundObjects]:
        """See the base class."""
        return self.predictor.detect([line.item.pixels for line in lines], threshold=self.threshold)


@dataclass(frozen=True)
class Segmenting(OfImages):
    """The class of each pixel of images."""

    predictor: Segmenter

    def compute(self, lines: Sequence[Line]) -> list[Segmentation]:
        """See the base class."""
        return self.predictor.segment([line.item.pixels for line in lines], probabilities=False)


@dataclass(frozen=True)
class LabellingImages(OfImages):
    """The labels of images."""

    predictor: ImageCategorizer

    def compute(self, lines: Sequence[Line]) -> list[ImageCategory]:
        """See the base class."""
        return self.predictor.classify([line.item.pixels for line in lines], weights=False)


@dataclass(frozen=True)
class Looking(OfImages):
    """The maps of images: of each word of what is written, or those of the network."""

    predictor: Seeing

    def compute(self, lines: Sequence[Line]) -> list[LookedAt]:
        """See the base class."""
        return [self._looked(line.item) for line in lines]

    def _looked(self, picture: Picture) -> LookedAt:
        """Return the maps of an image, the mean of heads and channels, and of all places that ask."""
        predictor = self.predictor
        if isinstance(predictor, Captioner):
            image, decoding = ("", predictor.reader.read(picture.pixels)), predictor.decoding
            (caption,) = predictor.results([image], decoding, True, [picture.prefix], [0])
            weights = [] if caption.alignment is None else [*caption.alignment]
            return LookedAt(caption.pixels, [*zip(caption.words, weights, strict=bool(weights))])
        seen = predictor.maps(picture.pixels)
        maps = [(name, map_of_image(name, map, False)) for name, map in seen.items()]
        return LookedAt(
            seen.pixels,
            [
                (name, torch.as_tensor(map.weights, device="cpu").mean((0, 1)).view(map.grid))
                for name, map in maps
                if map.kind == "place" and map.grid is not None
            ],
        )


@dataclass(frozen=True)
class Generating(Work):
    """New images: a line is the number of images with a seed and a class."""

    predictor: ImageGenerator
    seed: int
    label: str | None = None
    truncation: float | None = None

    @property
    def budget(self) -> int:
        """See the base class: one line."""
        return BATCH

    def lines(self, items: Sequence[int]) -> list[Line]:
        """See the base class. Seq2attnError for a class that the model does not have."""
        self.predictor.classes(1, self.label)
        return [Line(count, BATCH, number, count) for number, count in enumerate(items)]

    def compute(self, lines: Sequence[Line]) -> list[list[GeneratedImage]]:
        """See the base class."""
        return [
            list(self.predictor.generate(line.item, self.seed, self.label, truncation=self.truncation))
            for line in lines
        ]


def reader_of(predictor: Any) -> ImageReader:
    """Return the reader of a predictor's images, as they are in their files."""
    return predictor.original_reader if isinstance(predictor, ImagePredictor) else predictor.reader
