"""Random changes of training images, by the names that they have in recipes.

Keyword-only parameters are a change's options in a recipe. To add one, write its class and add its line to
AUGMENTATIONS. All that is random comes from the generator, so that the generator of an example and an epoch
determines the change.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from numpy.typing import NDArray
from PIL import Image

from seq2attn.images.decoding import Pixels
from seq2attn.registry import Registry

Share = Annotated[float, Ge(0), Le(1)]
Byte = Annotated[int, Ge(0), Le(255)]
# (2, 3): takes a position (x, y, 1) of the result to the position (x, y) of the image from which it comes.
# x goes to the right and y down; the pixel in row i, column j covers x from j to j + 1, y from i to i + 1.
Matrix = NDArray[np.float64]


class Augmentation(ABC):
    """A random change of a training image."""

    @abstractmethod
    def apply(self, image: Pixels, random: np.random.Generator) -> Pixels:
        """Return the changed image, in the same size."""


class Geometric(Augmentation):
    """A change that moves pixels, all by one matrix, so that boxes and masks can move with them.

    fill: the value of pixels from outside of the image.
    """

    def __init__(self, *, fill: Byte = 0) -> None:
        self.fill = fill

    @abstractmethod
    def matrix(self, height: int, width: int, random: np.random.Generator) -> Matrix | None:
        """Return the matrix of the change; None if the image stays as it is."""

    def apply(self, image: Pixels, random: np.random.Generator) -> Pixels:
        """See the base class."""
        matrix = self.matrix(image.shape[0], image.shape[1], random)
        return image if matrix is None else warp(image, matrix, self.fill)


def warp(image: Pixels, matrix: Matrix, fill: int = 0) -> Pixels:
    """Return an image whose pixels come from the positions that a matrix says, between four pixels their
    bilinear mean; from outside, `fill`."""
    height, width, channels = image.shape
    picture = Image.fromarray(image if channels == 3 else image[:, :, 0])
    warped = np.asarray(
        picture.transform(
            (width, height),
            Image.Transform.AFFINE,
            tuple(matrix.flatten().tolist()),
            Image.Resampling.BILINEAR,
            fillcolor=(fill,) * 3 if channels == 3 else fill,
        )
    )
    return warped if channels == 3 else warped[:, :, None]


class Flip(Geometric):
    """Mirrors the image with a probability."""

    def __init__(
        self, *, probability: Share = 0.5, direction: Literal["horizontal", "vertical"] = "horizontal"
    ) -> None:
        super().__init__()
        self.probability, self.direction = probability, direction

    def matrix(self, height: int, width: int, random: np.random.Generator) -> Matrix | None:
        """See the base class."""
        if random.random() >= self.probability:
            return None
        if self.direction == "horizontal":
            return np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0]])
        return np.array([[1.0, 0.0, 0.0], [0.0, -1.0, height]])


class Crop(Geometric):
    """Pads the image on all sides and cuts out a window of its size at a random place."""

    def __init__(self, *, padding: Annotated[int, Ge(1)] = 4, fill: Byte = 0) -> None:
        super().__init__(fill=fill)
        self.padding = padding

    def matrix(self, height: int, width: int, random: np.random.Generator) -> Matrix | None:
        """See the base class."""
        left, top = random.integers(-self.padding, self.padding, size=2, endpoint=True).tolist()
        return np.array([[1.0, 0.0, left], [0.0, 1.0, top]])


class Affine(Geometric):
    """Turns, scales and shifts the image about its centre, each by a random amount.

    rotate: the largest angle, in degrees. scale: the largest change of the size: 0.1 is from 0.9 to 1.1.
    translate: the largest shift, as a share of the image's height and width.
    """

    def __init__(
        self,
        *,
        rotate: Annotated[float, Ge(0), Le(180)] = 10.0,
        scale: Annotated[float, Ge(0), Lt(1)] = 0.1,
        translate: Share = 0.1,
        fill: Byte = 0,
    ) -> None:
        super().__init__(fill=fill)
        self.rotate, self.scale, self.translate = rotate, scale, translate

    def matrix(self, height: int, width: int, random: np.random.Generator) -> Matrix | None:
        """See the base class."""
        turn, size, right, down = random.uniform(-1.0, 1.0, size=4).tolist()
        angle, scale = np.deg2rad(turn * self.rotate), 1.0 + size * self.scale
        inverse = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
        centre = np.array([width / 2, height / 2])
        shift = self.translate * np.array([right * width, down * height])
        return np.column_stack([inverse, centre - inverse @ (centre + shift)])


class ColorJitter(Augmentation):
    """Multiplies brightness, contrast and saturation by random factors: 0.2 is from 0.8 to 1.2."""

    def __init__(self, *, brightness: Share = 0.2, contrast: Share = 0.2, saturation: Share = 0.2) -> None:
        self.changes = np.array([brightness, contrast, saturation])

    def apply(self, image: Pixels, random: np.random.Generator) -> Pixels:
        """See the base class."""
        brightness, contrast, saturation = (1 + self.changes * random.uniform(-1.0, 1.0, size=3)).tolist()
        values = image.astype(np.float32) * np.float32(brightness)
        values = _blended(values, values.mean(), contrast)
        values = _blended(values, values.mean(axis=2, keepdims=True), saturation)
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _blended(values: NDArray[np.float32], centre: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Return values at `factor` times their distance from a centre."""
    return centre + np.float32(factor) * (values - centre)


class Erase(Augmentation):
    """Covers a random rectangle with the image's mean colour, with a probability (Zhong et al. 2020, without
    its noise).

    area: the largest share of the image that is covered. The sides are in a ratio of 0.3 to 3.3.
    """

    def __init__(self, *, probability: Share = 0.5, area: Annotated[float, Gt(0), Le(1)] = 0.3) -> None:
        self.probability, self.area = probability, area

    def apply(self, image: Pixels, random: np.random.Generator) -> Pixels:
        """See the base class."""
        if random.random() >= self.probability:
            return image
        height, width, _ = image.shape
        area = random.uniform(0.0, self.area) * height * width
        ratio = np.exp(random.uniform(-np.log(3.3), np.log(3.3)))
        rows = int(np.clip(round(np.sqrt(area * ratio)), 1, height))
        columns = int(np.clip(round(np.sqrt(area / ratio)), 1, width))
        top, left = random.integers(height - rows + 1), random.integers(width - columns + 1)
        erased = image.copy()
        erased[top : top + rows, left : left + columns] = np.rint(image.mean(axis=(0, 1)))
        return erased


class Mixup:
    """Mixes the image with a random one of the training data, and the loss with that of its label (Zhang et
    al. 2018). It comes after all other changes. The image's share is at least a half.

    alpha: both parameters of the Beta distribution of the shares.
    """

    def __init__(self, *, alpha: Annotated[float, Gt(0)] = 0.2) -> None:
        self.alpha = alpha

    def draw(self, count: int, random: np.random.Generator) -> tuple[int, float]:
        """Return the number of the partner, of `count` examples, and the share of the image itself."""
        partner, share = int(random.integers(count)), float(random.beta(self.alpha, self.alpha))
        return partner, max(share, 1 - share)


AUGMENTATIONS: Registry[type[Augmentation] | type[Mixup]] = Registry("AUGMENTATIONS", Augmentation, Mixup)
AUGMENTATIONS |= {
    "flip": Flip,
    "crop": Crop,
    "affine": Affine,
    "color_jitter": ColorJitter,
    "erase": Erase,
    "mixup": Mixup,
}
