"""Features by which sets of images are compared: of a trained classifier, or of the pixels alone."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from seq2attn.errors import Seq2attnError
from seq2attn.images.decoding import Pixels
from seq2attn.inference.image_categorizer import ImageCategorizer
from seq2attn.metrics.generation import ImageFeatures

CHUNK = 64  # images that are read at a time
SIDE = 8  # of the grid to which pixels are averaged


class FeatureExtractor(Protocol):
    """What turns images into features."""

    def __call__(self, images: Iterable[Pixels]) -> ImageFeatures:
        """Return the features of images."""


class PixelFeatures:
    """Mean pixels, from 0 to 1, of 8 x 8 parts of an image: what there is without a classifier. They see
    where ink and colours are, but no shapes."""

    def __call__(self, images: Iterable[Pixels]) -> ImageFeatures:
        """Return the features of images."""
        vectors = [np.asarray(_small(image), np.float64).ravel() / 255 for image in images]
        return ImageFeatures(f"pixels{SIDE}x{SIDE}", np.stack(vectors))


class ClassifierFeatures:
    """The vector that a classifier has before its last layer, and the probabilities of its classes.

    name: of the classifier and its weights, as resnet20@1a2b3c.
    """

    def __init__(self, categorizer: ImageCategorizer, name: str) -> None:
        self.categorizer, self.name = categorizer, name

    def __call__(self, images: Iterable[Pixels]) -> ImageFeatures:
        """Return the features of images, which are read as the classifier reads any."""
        vectors, probabilities = zip(*self._chunks(iter(images)), strict=True)
        return ImageFeatures(self.name, np.concatenate(vectors), np.concatenate(probabilities))

    @torch.no_grad()
    def _chunks(self, images: Iterator[Pixels]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.categorizer.model.eval()
        while chunk := [self.categorizer.reader.read(image) for image in islice(images, CHUNK)]:
            output = self.categorizer.output(chunk, weights=False)
            if output.vectors is None:
                raise Seq2attnError(f"{self.name}: expected a classifier that returns its vectors, got none")
            yield output.vectors.double().cpu().numpy(), output.scores.double().softmax(-1).cpu().numpy()


def _small(image: Pixels) -> Image.Image:
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    return picture.resize((SIDE, SIDE), Image.Resampling.BOX)
