"""Detected objects and those that are there: what the metrics of detection compare."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Objects(NamedTuple):
    """The objects of an image, in its original pixels."""

    boxes: NDArray[np.float64]  # (n, 4): left, top, right, bottom
    labels: list[str]
    crowds: NDArray[np.bool_]  # (n,): regions in which detections are neither right nor wrong
    areas: NDArray[np.float64]  # (n,), in pixels: of the object, if the data have it, or of its box


class Detections(NamedTuple):
    """The objects that a model has found in an image, in its original pixels."""

    boxes: NDArray[np.float64]  # (n, 4): left, top, right, bottom
    labels: list[str]
    scores: NDArray[np.float64]  # (n,): the higher, the surer
