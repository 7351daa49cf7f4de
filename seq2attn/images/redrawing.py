"""A random change of training images that are strokes of a pen: they are drawn in another way."""

from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le

from seq2attn.images.geometry import random_factors
from seq2attn.images.strokes import Drawing


class Redraw:
    """Draws an image of strokes in another way: turned, slanted and scaled as a whole, each stroke moved a
    little by itself, with another pen. It comes before all other changes, and its edges are as sharp as those
    of the image. Images that are not of strokes stay as they are.

    rotate: the largest angle, in degrees. slant: the largest shift to the right for a pixel upwards.
    smallest, largest: of the factors of the size, evenly distributed in their logarithm. stretch: the largest
    change of the ratio of the sides: 0.2 is from 1 / 1.2 to 1.2. jitter: how far each stroke is turned,
    slanted, scaled and shifted by itself, as a share of its size; of a long one, of the usual size.
    thickness: the largest change of the width of the pen: 0.4 is from 1 / 1.4 to 1.4.
    """

    def __init__(
        self,
        *,
        rotate: Annotated[float, Ge(0), Le(180)] = 3.0,
        slant: Annotated[float, Ge(0), Le(2)] = 0.2,
        smallest: Annotated[float, Gt(0), Le(1)] = 0.75,
        largest: Annotated[float, Ge(1), Le(16)] = 1.3,
        stretch: Annotated[float, Ge(0), Le(4)] = 0.2,
        jitter: Annotated[float, Ge(0), Le(1)] = 0.05,
        thickness: Annotated[float, Ge(0), Le(4)] = 0.4,
    ) -> None:
        self.rotate, self.slant, self.jitter = rotate, slant, jitter
        self.sizes, self.thickness = (smallest, largest, stretch), thickness

    def apply(self, drawing: Drawing, random: np.random.Generator) -> Drawing:
        """Return the changed drawing."""
        turn, slant = random.uniform(-1.0, 1.0, size=2).tolist()
        angle = np.deg2rad(turn * self.rotate)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        slanting = np.array([[1.0, -slant * self.slant], [0.0, 1.0]])
        scaling = np.diag(random_factors(*self.sizes, random))
        width = drawing.width * float(np.exp(random.uniform(-1.0, 1.0) * np.log1p(self.thickness)))
        jittered = self._jittered(drawing, random)
        return jittered.moved(np.column_stack([rotation @ slanting @ scaling, np.zeros(2)]))._replace(
            width=width
        )

    def _jittered(self, drawing: Drawing, random: np.random.Generator) -> Drawing:
        """Return a drawing each of whose strokes has moved by itself."""
        starts = np.concatenate([[0], np.cumsum(drawing.lengths)[:-1]])
        low, high = (side.reduceat(drawing.points, starts) for side in (np.minimum, np.maximum))  # (S, 2)
        middles = (low + high) / 2
        sizes = (high - low).max(axis=1)
        usual = float(np.median(sizes))
        changes = self.jitter * random.uniform(-1.0, 1.0, size=(len(starts), 2, 3))
        long = np.maximum(sizes / max(usual, 1.0), 1.0)[:, None, None]  # its ends would move far
        matrices = np.eye(2) + changes[:, :, :2] / long
        shifts = middles + usual * changes[:, :, 2] - (matrices @ middles[:, :, None])[:, :, 0]
        moves = np.concatenate([matrices, shifts[:, :, None]], axis=2)  # (S, 2, 3)
        return drawing.moved(np.repeat(moves, drawing.lengths, axis=0))
