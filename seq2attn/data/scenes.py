"""Scenes of handwritten digits with exact boxes, made when they are read: data to learn detection from."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from seq2attn.images.decoding import Pixels

SIDE = 128  # pixels of a scene
MOST = 8  # digits of a scene
SIDES = 16, 56  # smallest and largest side of a digit
INK = 64  # brightness from which a pixel belongs to its digit
SHARED = 0.1  # largest intersection over union of two boxes
TRIES = 20  # of a place for a digit, before it is left out


class Scene(NamedTuple):
    """A picture of several digits."""

    pixels: Pixels  # (SIDE, SIDE, 1)
    boxes: list[list[int]]  # left, top, right, bottom
    labels: list[int]


def make_scenes(images: Sequence[Pixels], labels: Sequence[int], count: int, seed: int) -> Iterator[Scene]:
    """Yield scenes of 1 to MOST digits, each of a random size and place; a pure function of its arguments.

    images: (H, W) each, white on black. Where digits overlap, the brighter pixel is seen; a box is drawn
    around all pixels of its digit.
    """
    for number in range(count):
        random = np.random.default_rng([seed, number])
        scene = Scene(np.zeros((SIDE, SIDE, 1), np.uint8), [], [])
        for digit in random.choice(len(images), int(random.integers(1, MOST + 1)), replace=False).tolist():
            _add(scene, images[digit], labels[digit], random)
        yield scene


def _add(scene: Scene, digit: Pixels, label: int, random: np.random.Generator) -> None:
    """Draw a digit at a random place; after TRIES places that are taken, leave it out."""
    for _ in range(TRIES):
        side = int(random.integers(SIDES[0], SIDES[1] + 1))
        left, top = random.integers(0, SIDE - side + 1, size=2).tolist()
        drawn = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BILINEAR))
        rows, columns = np.nonzero(drawn >= INK)
        if not len(rows):
            continue
        box = [
            left + int(columns.min()),
            top + int(rows.min()),
            left + int(columns.max()) + 1,
            top + int(rows.max()) + 1,
        ]
        if all(_overlap(box, other) <= SHARED for other in scene.boxes):
            window = scene.pixels[top : top + side, left : left + side, 0]
            np.maximum(window, drawn, out=window)
            scene.boxes.append(box)
            scene.labels.append(label)
            return


def _overlap(box: list[int], other: list[int]) -> float:
    """Return the intersection over union of two boxes."""
    width, height = (min(box[i + 2], other[i + 2]) - max(box[i], other[i]) for i in (0, 1))
    shared = max(width, 0) * max(height, 0)
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return shared / (areas - shared)
