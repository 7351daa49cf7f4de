"""Which prediction learns which box of an image: by the task-aligned assigner, or one to one.

Letters: N predictions, M boxes of one image, K classes.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from seq2attn.attention.precision import full_precision
from seq2attn.layers.boxes import center_size, complete_iou, within


class Alignment(NamedTuple):
    """How a prediction's share in a box is measured: t = s^alpha u^beta (Feng et al. 2021, eq. 1), where s is
    its score for the box's class and u its CIoU with the box."""

    alpha: float = 0.5
    beta: float = 6.0
    top: int = 10  # predictions of a box: those with the highest t


ALIGNMENT = Alignment()


class Assigned(NamedTuple):
    """What each prediction is to learn."""

    box: Tensor  # (N,), long, the index of its box; -1: none
    score: Tensor  # (N,), float32, the target of its score for the class of the box


@torch.no_grad()
def assign_aligned(
    scores: Float[Tensor, "N K"],
    boxes: Float[Tensor, "N 4"],
    points: Float[Tensor, "N 2"],
    real: Bool[Tensor, " N"],
    gold: Float[Tensor, "M 4"],
    labels: Int[Tensor, " M"],
    alignment: Alignment = ALIGNMENT,
) -> Assigned:
    """Assign the boxes of an image to points on a grid (Feng et al. 2021, TOOD, section 3.3).

    The candidates of a box are the points strictly inside it, or the nearest if there are none; of these the
    `top` with the highest t are its own. A point of several boxes belongs to the one with the largest u. The
    target score of a point is t / max t * max u, with the maxima over the points of its box. Of equal values
    the first counts.

    scores: probabilities, from 0 to 1; boxes: as predicted from the points; real: which points lie on the
    image.
    """
    with full_precision(scores.device):
        gold, boxes, points = gold.float(), boxes.float(), points.float()
        if not len(gold):
            nothing = torch.zeros_like(points[:, 0])
            return Assigned(nothing.long() - 1, nothing)
        u = complete_iou(gold[:, None], boxes[None]).clamp(min=0)  # (M, N)
        t = scores.float()[:, labels].mT.pow(alignment.alpha) * u.pow(alignment.beta)  # (M, N)
        chosen = _candidates(points, real, gold)
        chosen &= _highest(t.masked_fill(~chosen, -1.0), alignment.top)
        winner = u.masked_fill(~chosen, -1.0).argmax(0)  # (N,)
        own = chosen & (winner == torch.arange(len(gold), device=u.device).unsqueeze(1))
        t, u = t * own, u * own
        largest = t.amax(1, keepdim=True).clamp(min=torch.finfo(t.dtype).tiny)
        score = (t / largest * u.amax(1, keepdim=True)).sum(0)
        return Assigned(winner.masked_fill(~own.any(0), -1), score)


def _candidates(points: Tensor, real: Tensor, gold: Tensor) -> Tensor:
    """Return which points (M, N) may learn a box."""
    inside = within(points[None], gold[:, None]) & real
    centres = center_size(gold)[:, None, :2]
    distance = (points[None] - centres).square().sum(-1).masked_fill(~real, torch.inf)  # (M, N)
    nearest = torch.zeros_like(inside).scatter_(1, distance.argmin(1, keepdim=True), value=True)
    return torch.where(inside.any(1, keepdim=True), inside, nearest & real)


def _highest(values: Tensor, count: int) -> Tensor:
    """Return which are the `count` highest values of each row; of equal ones the first."""
    if values.shape[1] <= count:
        return torch.ones_like(values, dtype=torch.bool)
    least = values.topk(count, 1).values[:, -1:]
    above, equal = values > least, values == least
    return above | (equal & (equal.cumsum(1) <= count - above.sum(1, keepdim=True)))


def match(cost: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs (rows, columns) of the least total cost, in which every row, or every column if there
    are fewer, occurs once: the assignment problem.

    It is solved by shortest augmenting paths (Jonker & Volgenant 1987), in O(n^2 m) for n <= m, which is
    enough for the boxes of an image. Costs must be finite.
    """
    if cost.shape[0] > cost.shape[1]:
        columns, rows = match(cost.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    count, width = cost.shape
    of_rows, of_columns = np.zeros(count), np.zeros(width)  # the dual variables
    owner = np.full(width, -1)  # the row of each column, -1: none
    for start in range(count):
        slack, before = np.full(width, np.inf), np.full(width, -1)
        visited, row, column = np.zeros(width, dtype=bool), start, -1
        while row >= 0:
            if column >= 0:
                visited[column] = True
            reduced = cost[row] - of_rows[row] - of_columns
            shorter = ~visited & (reduced < slack)
            slack[shorter], before[shorter] = reduced[shorter], column
            column = int(np.where(visited, np.inf, slack).argmin())
            step = slack[column]
            of_rows[start] += step
            of_rows[owner[visited]] += step
            of_columns[visited] -= step
            slack[~visited] -= step
            row = int(owner[column])
        while column >= 0:  # exchange the owners along the path
            previous = int(before[column])
            owner[column] = start if previous < 0 else owner[previous]
            column = previous
    columns = np.flatnonzero(owner >= 0)
    order = np.argsort(owner[columns])
    return owner[columns][order], columns[order]
