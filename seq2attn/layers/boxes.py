"""Boxes (left, top, right, bottom): how far they overlap, and which of a heap of them stand for the others.

Letters: M and N numbers of boxes, K classes.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_TINY = 1e-9  # against 0 / 0: of empty boxes, in pixels or their squares


def iou(boxes: Float[Tensor, "*m 4"], others: Float[Tensor, "*n 4"]) -> Float[Tensor, "*b"]:
    """Return the area of the intersection divided by that of the union, for pairs of boxes.

    The leading axes broadcast: boxes[:, None] and others[None] give a matrix.
    """
    both, either = _areas(boxes, others)
    return both / either.clamp(min=_TINY)


def generalized_iou(boxes: Float[Tensor, "*m 4"], others: Float[Tensor, "*n 4"]) -> Float[Tensor, "*b"]:
    """Return IoU - (hull - union) / hull, from -1 to 1, where the hull is the smallest box around both
    (Rezatofighi et al. 2019). It has a gradient where boxes do not meet."""
    both, either = _areas(boxes, others)
    width, height = _hull(boxes, others).unbind(-1)
    hull = (width * height).clamp(min=_TINY)
    return both / either.clamp(min=_TINY) - (hull - either) / hull


def complete_iou(boxes: Float[Tensor, "*m 4"], others: Float[Tensor, "*n 4"]) -> Float[Tensor, "*b"]:
    """Return IoU - d^2 / c^2 - a v (Zheng et al. 2020), where d is the distance of the centres, c the
    diagonal of the smallest box around both, v = 4 / pi^2 (arctan w/h - arctan w'/h')^2, and
    a = v / (1 - IoU + v), which gets no gradient."""
    overlap = iou(boxes, others)
    centre, other = (2 * center_size(part)[..., :2] for part in (boxes, others))
    distance = (centre - other).square().sum(-1) / 4
    diagonal = _hull(boxes, others).square().sum(-1).clamp(min=_TINY)
    shape = 4 / math.pi**2 * (_angle(boxes) - _angle(others)).square()
    with torch.no_grad():
        share = shape / (1 - overlap + shape).clamp(min=_TINY)
    return overlap - distance / diagonal - share * shape


def center_size(boxes: Float[Tensor, "*m 4"]) -> Float[Tensor, "*m 4"]:
    """Return boxes as (x of the centre, y, width, height)."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)


def corners(boxes: Float[Tensor, "*m 4"]) -> Float[Tensor, "*m 4"]:
    """Return boxes as (left, top, right, bottom); the inverse of `center_size`."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def within(points: Float[Tensor, "*m 2"], boxes: Float[Tensor, "*n 4"]) -> Bool[Tensor, "*b"]:
    """Return which points (x, y) lie strictly inside of boxes; the leading axes broadcast."""
    return ((points > boxes[..., :2]) & (points < boxes[..., 2:])).all(-1)


@torch.no_grad()
def suppressed(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, " N"],
    classes: Int[Tensor, " N"],
    overlap: float = 0.7,
) -> Int[Tensor, " M"]:
    """Return which boxes are left by non-maximum suppression within each class, from the highest score down.

    From the highest score down, a box is kept unless its IoU with a kept one of its class is more than
    `overlap`. Of equal scores the first comes first, so that the result is always the same. The matrix of all
    IoU is computed: give at most some thousand boxes.
    """
    order = scores.sort(descending=True, stable=True).indices
    boxes, classes = boxes[order].float(), classes[order]
    rivals = (iou(boxes[:, None], boxes[None]) > overlap) & (classes[:, None] == classes)
    hidden = rivals.cpu().numpy()
    kept, gone = list[int](), np.zeros(len(hidden), dtype=np.bool_)
    for number, row in enumerate(hidden):
        if not gone[number]:
            kept.append(number)
            gone |= row
    return order[torch.tensor(kept, dtype=torch.long, device=order.device)]


def _areas(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return the areas of the intersection and of the union."""
    low, high = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    both = (high - low).clamp(min=0).prod(-1)
    one, other = ((part[..., 2:] - part[..., :2]).prod(-1) for part in (boxes, others))
    return both, one + other - both


def _hull(boxes: Tensor, others: Tensor) -> Tensor:
    """Return width and height (..., 2) of the smallest box around both."""
    low, high = torch.minimum(boxes[..., :2], others[..., :2]), torch.maximum(boxes[..., 2:], others[..., 2:])
    return high - low


def _angle(boxes: Tensor) -> Tensor:
    """Return arctan(width / height)."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
    return torch.atan2(width, height)
