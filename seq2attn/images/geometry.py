"""Positions and boxes in images, the matrices that move them, and pixels that are moved.

x goes to the right and y down; the pixel in row i, column j covers x from j to j + 1, y from i to i + 1. A
box is (left, top, right, bottom) in these coordinates: its area is that of the pixels that it covers.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# (2, 3): takes a position (x, y, 1) of the result to the position (x, y) of the image from which it comes.
Matrix = NDArray[np.float64]
Boxes = NDArray[np.float64]  # (n, 4): left, top, right, bottom
Pixels = NDArray[np.uint8]  # (H, W, C), C = 1 in grey and 3 in RGB
VISIBLE = 0.2  # the share of a box that must lie in the image; of less, what it shows cannot be told


def identity() -> Matrix:
    """Return the matrix that leaves positions where they are."""
    return np.eye(2, 3)


def composed(outer: Matrix, inner: Matrix) -> Matrix:
    """Return the matrix that takes a position first by the inner matrix, then by the outer one."""
    both: Matrix = outer @ np.vstack([inner, [0.0, 0.0, 1.0]])
    return both


def inverse(matrix: Matrix) -> Matrix:
    """Return the matrix that takes positions back."""
    back = np.linalg.inv(matrix[:, :2])
    return np.column_stack([back, -back @ matrix[:, 2]])


def moved(boxes: Boxes, matrix: Matrix) -> Boxes:
    """Return the boxes around the four corners of boxes, moved by a matrix.

    Where the matrix turns, a box is larger than what it shows: the corners that it is drawn around are those
    of the old box, and not of the object, which nobody knows.
    """
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]  # (n, 4, 2)
    places = corners @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([places.min(axis=1), places.max(axis=1)], axis=1)


def clipped(boxes: Boxes, window: tuple[float, float, float, float]) -> tuple[Boxes, NDArray[np.bool_]]:
    """Cut boxes off at the sides of a window (left, top, right, bottom).

    Returns:
        the boxes, and which of them are left: those of which at least VISIBLE of the area is in the window.
    """
    left, top, right, bottom = window
    inside = np.clip(boxes, [left, top, left, top], [right, bottom, right, bottom])
    share = areas(inside) / np.maximum(areas(boxes), np.finfo(np.float64).tiny)
    return inside, (areas(inside) > 0) & (share >= VISIBLE)


def random_factors(
    smallest: float, largest: float, stretch: float, random: np.random.Generator
) -> NDArray[np.float64]:
    """Return factors of width and height: their geometric mean is evenly distributed in its logarithm, and
    their ratio likewise, from 1 / (1 + stretch) to 1 + stretch."""
    factor = np.exp(random.uniform(np.log(smallest), np.log(largest)))
    ratio = np.exp(random.uniform(-1.0, 1.0) * np.log1p(stretch) / 2)
    return np.array([factor * ratio, factor / ratio])


def areas(boxes: Boxes) -> NDArray[np.float64]:
    """Return the area of each box, (n,), in pixels."""
    areas: NDArray[np.float64] = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return areas


def warp(image: Pixels, matrix: Matrix, fill: int = 0, size: tuple[int, int] | None = None) -> Pixels:
    """Return an image whose pixels come from the positions that a matrix says, between four pixels their
    bilinear mean; from outside, `fill`. size: its height and width; None: as before."""
    height, width = size or image.shape[:2]
    channels = image.shape[2]
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


def between(image: Pixels, rows: NDArray[np.float32], columns: NDArray[np.float32]) -> Pixels:
    """Return an image whose pixels (h, w) come from places between those of another, by the bilinear mean of
    the four around. rows, columns: these places, (h, w), in the image; 0 is the middle of the first pixel."""
    top, left = (np.floor(places).astype(np.intp) for places in (rows, columns))
    below, right = (
        np.minimum(first + 1, last - 1) for first, last in zip((top, left), image.shape, strict=False)
    )
    down, along = (rows - top)[..., None], (columns - left)[..., None]
    upper = image[top, left] * (1 - along) + image[top, right] * along
    lower = image[below, left] * (1 - along) + image[below, right] * along
    pixels: Pixels = np.rint(upper * (1 - down) + lower * down).astype(np.uint8)
    return pixels
