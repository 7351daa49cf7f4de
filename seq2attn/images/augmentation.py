"""Random changes of training images, by the names that they have in recipes.

Keyword-only parameters are a change's options in a recipe. To add one, write its class and add its line to
AUGMENTATIONS. All that is random comes from the generator, so that the generator of an example and an epoch
determines the change.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from numpy.typing import NDArray
from PIL import Image

from seq2attn.images.decoding import Pixels
from seq2attn.images.geometry import Matrix, between, composed, identity, random_factors, warp
from seq2attn.images.redrawing import Redraw
from seq2attn.registry import Registry

Share = Annotated[float, Ge(0), Le(1)]
Byte = Annotated[int, Ge(0), Le(255)]


class Changed(NamedTuple):
    """A changed image, and the matrix by which its boxes and its mask move."""

    image: Pixels
    matrix: Matrix  # takes a position of this image to that of the image before the change


class Augmentation(ABC):
    """A random change of a training image."""

    @abstractmethod
    def apply(self, image: Pixels, random: np.random.Generator) -> Pixels:
        """Return the changed image, in the same size unless the change is to another one."""


class Geometric(Augmentation):
    """A change that moves pixels, all by one matrix, so that boxes and masks can move with them.

    fill: the value of pixels from outside of the image; None: it needs none from there.
    """

    def __init__(self, *, fill: Byte | None = 0) -> None:
        self.fill = fill

    @abstractmethod
    def matrix(self, height: int, width: int, random: np.random.Generator) -> Matrix | None:
        """Return the matrix of the change; None if the image stays as it is."""

    def result_size(self, height: int, width: int, matrix: Matrix) -> tuple[int, int]:
        """Return height and width of the image after a change by this matrix; by default they stay."""
        return height, width

    def apply(self, image: Pixels, random: np.random.Generator) -> Pixels:
        """See the base class."""
        return changed(image, [self], random).image


def changed(image: Pixels, changes: Sequence[Augmentation], random: np.random.Generator) -> Changed:
    """Return an image after changes.

    Those that move pixels are made first, all at once: so pixels are averaged only once, and what one of them
    moves out of the image and the next one back in is not lost. The others follow in their order.
    """
    matrix, fill, height, width = identity(), 0, *image.shape[:2]
    moved = False
    for move in (change for change in changes if isinstance(change, Geometric)):
        step = move.matrix(height, width, random)
        if step is not None:
            moved, matrix = True, composed(matrix, step)
            height, width = move.result_size(height, width, step)
            fill = fill if move.fill is None else move.fill
    if moved:
        image = warp(image, matrix, fill, (height, width))
    for change in (change for change in changes if not isinstance(change, Geometric)):
        image = change.apply(image, random)
    return Changed(image, matrix)


class Flip(Geometric):
    """Mirrors the image with a probability."""

    def __init__(
        self, *, probability: Share = 0.5, direction: Literal["horizontal", "vertical"] = "horizontal"
    ) -> None:
        super().__init__(fill=None)
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


class RandomCrop(Geometric):
    """Cuts out a window at a random place, which is then the image, as large images are trained in parts.

    size: height and width of the window; of an image that is smaller, its own.
    """

    def __init__(self, *, size: Annotated[int, Ge(1)] = 224) -> None:
        super().__init__(fill=None)
        self.size = size

    def matrix(self, height: int, width: int, random: np.random.Generator) -> Matrix:
        """See the base class."""
        left, top = (int(random.integers(max(side - self.size, 0) + 1)) for side in (width, height))
        return np.array([[1.0, 0.0, left], [0.0, 1.0, top]])

    def result_size(self, height: int, width: int, matrix: Matrix) -> tuple[int, int]:
        """See the base class."""
        return min(height, self.size), min(width, self.size)


class Affine(Geometric):
    """Slants, turns, scales and shifts the image about its centre, each by a random amount.

    rotate: the largest angle, in degrees. scale: the largest change of the size: 0.1 is from 0.9 to 1.1.
    translate: the largest shift, as a share of the image's height and width. shear: the largest angle by
    which upright lines lean to the left or right, in degrees.
    """

    def __init__(
        self,
        *,
        rotate: Annotated[float, Ge(0), Le(180)] = 10.0,
        scale: Annotated[float, Ge(0), Lt(1)] = 0.1,
        translate: Share = 0.1,
        shear: Annotated[float, Ge(0), Lt(90)] = 0.0,
        fill: Byte = 0,
    ) -> None:
        super().__init__(fill=fill)
        self.rotate, self.scale, self.translate, self.shear = rotate, scale, translate, shear

    def matrix(self, height: int, width: int, random: np.random.Generator) -> Matrix | None:
        """See the base class."""
        turn, size, right, down = random.uniform(-1.0, 1.0, size=4).tolist()
        angle, scale = np.deg2rad(turn * self.rotate), 1.0 + size * self.scale
        inverse = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
        if self.shear:
            lean = np.tan(np.deg2rad(self.shear * random.uniform(-1.0, 1.0)))
            inverse = np.array([[1.0, lean], [0.0, 1.0]]) @ inverse
        centre = np.array([width / 2, height / 2])
        shift = self.translate * np.array([right * width, down * height])
        return np.column_stack([inverse, centre - inverse @ (centre + shift)])


class ScaleJitter(Geometric):
    """Scales the image by a random factor, evenly distributed in its logarithm, about a random place: where
    the image grows, a window of its size is cut out; where it shrinks, the rest is filled (Ghiasi et al.
    2021).

    smallest, largest: of the factors. stretch: the largest change of the ratio of the sides: 0.2 is from
    1 / 1.2 to 1.2.
    """

    def __init__(
        self,
        *,
        smallest: Annotated[float, Gt(0), Le(1)] = 0.5,
        largest: Annotated[float, Ge(1), Le(16)] = 2.0,
        stretch: Annotated[float, Ge(0), Le(4)] = 0.0,
        fill: Byte = 0,
    ) -> None:
        super().__init__(fill=fill)
        self.smallest, self.largest, self.stretch = smallest, largest, stretch

    def matrix(self, height: int, width: int, random: np.random.Generator) -> Matrix | None:
        """See the base class."""
        factors = random_factors(self.smallest, self.largest, self.stretch, random)
        shift = random.uniform(size=2) * np.array([width, height]) * (1 - factors)
        return np.column_stack([np.diag(1 / factors), -shift / factors])


class Scale(Geometric):
    """Scales the image by a random factor, evenly distributed in its logarithm, and its size with it (Li et
    al. 2020, scale augmentation), for tasks whose images keep their own sizes.

    smallest, largest: of the factors. stretch: the largest change of the ratio of the sides: 0.2 is from
    1 / 1.2 to 1.2.
    """

    def __init__(
        self,
        *,
        smallest: Annotated[float, Gt(0), Le(1)] = 0.7,
        largest: Annotated[float, Ge(1), Le(16)] = 1.4,
        stretch: Annotated[float, Ge(0), Le(4)] = 0.0,
    ) -> None:
        super().__init__(fill=None)
        self.smallest, self.largest, self.stretch = smallest, largest, stretch

    def matrix(self, height: int, width: int, random: np.random.Generator) -> Matrix:
        """See the base class. Sides are whole numbers of pixels."""
        columns, rows = random_factors(self.smallest, self.largest, self.stretch, random)
        sides = max(1, round(width * columns)), max(1, round(height * rows))
        return np.array([[width / sides[0], 0.0, 0.0], [0.0, height / sides[1], 0.0]])

    def result_size(self, height: int, width: int, matrix: Matrix) -> tuple[int, int]:
        """See the base class."""
        return round(height / matrix[1, 1]), round(width / matrix[0, 0])


class Elastic(Augmentation):
    """Bends the image: the points of a coarse grid are shifted at random, all others smoothly between them
    (Simard et al. 2003, in the form of Ronneberger et al. 2015). Pixels at the sides go on outside.

    spacing: of the points, in pixels. shift: the standard deviation of their shifts to the right and down,
    in pixels.
    """

    def __init__(
        self, *, spacing: Annotated[float, Ge(2)] = 7.0, shift: Annotated[float, Gt(0)] = 1.0
    ) -> None:
        self.spacing, self.shift = spacing, shift

    def apply(self, image: Pixels, random: np.random.Generator) -> Pixels:
        """See the base class."""
        sides = image.shape[:2]
        points = [max(2, round(side / self.spacing) + 1) for side in sides]
        places = list[NDArray[np.float32]]()
        for still, side in zip(np.indices(sides, dtype=np.float32), sides, strict=True):  # rows, columns
            shifts = Image.fromarray(random.normal(0.0, self.shift, points).astype(np.float32))
            moved = still + np.asarray(shifts.resize(sides[::-1], Image.Resampling.BICUBIC))
            places.append(np.clip(moved, 0, side - 1))
        return between(image, *places)


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


class Tile(NamedTuple):
    """One of the images of a mosaic."""

    matrix: Matrix  # takes a position of the mosaic to that of the image
    window: tuple[int, int, int, int]  # its part of the mosaic: left, top, right, bottom


class Mosaic:
    """Puts the image and three random ones of the training data around a random point, with a probability
    (Bochkovskiy et al. 2020). It comes before all other changes.

    The mosaic has the size of the image, and the point lies in its middle half. All four images are scaled
    by one random factor, and a corner of each lies on the point; what does not fit is cut off.

    smallest: the smallest of the factors; with 1 the images fill the mosaic.
    """

    def __init__(
        self,
        *,
        probability: Share = 1.0,
        smallest: Annotated[float, Gt(0), Le(1)] = 0.5,
        fill: Byte = 114,
    ) -> None:
        self.probability, self.smallest, self.fill = probability, smallest, fill

    def draw(self, row: int, count: int, random: np.random.Generator) -> list[int]:
        """Return the numbers of the images, of `count` examples, in the order of `apply`; only that of the
        image itself if there is no mosaic."""
        if random.random() >= self.probability:
            return [row]
        rows: list[int] = random.permutation([row, *random.integers(count, size=3)]).tolist()
        return rows

    def apply(
        self, images: Sequence[Pixels], size: tuple[int, int], random: np.random.Generator
    ) -> tuple[Pixels, list[Tile]]:
        """Return the mosaic of four images, and how each of them lies in it.

        images: top left, top right, bottom left and bottom right. size: height and width of the mosaic.
        """
        height, width = size
        column, row = round(width * random.uniform(0.25, 0.75)), round(height * random.uniform(0.25, 0.75))
        factor = random.uniform(self.smallest, 1.0)
        mosaic, tiles = np.empty((height, width, images[0].shape[2]), np.uint8), []
        for number, image in enumerate(images):
            right, below = number % 2, number // 2
            window = column * right, row * below, width if right else column, height if below else row
            scale = factor * min(height / image.shape[0], width / image.shape[1])
            left = column - (1 - right) * scale * image.shape[1]
            top = row - (1 - below) * scale * image.shape[0]
            matrix = np.array([[1 / scale, 0.0, -left / scale], [0.0, 1 / scale, -top / scale]])
            corner = np.array([[1.0, 0.0, window[0]], [0.0, 1.0, window[1]]])
            part = window[3] - window[1], window[2] - window[0]
            if min(part):
                seen = warp(image, composed(matrix, corner), self.fill, part)
                mosaic[window[1] : window[3], window[0] : window[2]] = seen
            tiles.append(Tile(matrix, window))
        return mosaic, tiles


AUGMENTATIONS: Registry[type[Augmentation] | type[Mixup] | type[Mosaic] | type[Redraw]] = Registry(
    "AUGMENTATIONS", Augmentation, Mixup, Mosaic, Redraw
)
AUGMENTATIONS |= {
    "flip": Flip,
    "crop": Crop,
    "random_crop": RandomCrop,
    "affine": Affine,
    "scale": Scale,
    "scale_jitter": ScaleJitter,
    "elastic": Elastic,
    "color_jitter": ColorJitter,
    "erase": Erase,
    "mixup": Mixup,
    "mosaic": Mosaic,
    "redraw": Redraw,
}
