"""Slow references of detection, written as loops: overlaps, suppression, assignment and losses of boxes."""

import math
from itertools import permutations
from typing import Any

from seq2attn.data.box_batches import BoxBatch
from seq2attn.layers.box_assignment import ALIGNMENT, Alignment
from seq2attn.models.vision.detector import PointOutput, QueryOutput


def slow_iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = width * height if width > 0 and height > 0 else 0.0
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def slow_hull(a: list[float], b: list[float]) -> tuple[float, float]:
    return max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])


def slow_giou(a: list[float], b: list[float]) -> float:
    width, height = slow_hull(a, b)
    overlap = slow_iou(a, b)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    union = areas / (1 + overlap)
    return overlap - (width * height - union) / (width * height)


def slow_ciou(a: list[float], b: list[float]) -> float:
    width, height = slow_hull(a, b)
    overlap = slow_iou(a, b)
    distance = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
    angles = [math.atan((box[2] - box[0]) / (box[3] - box[1])) for box in (a, b)]
    v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    share = v / (1 - overlap + v) if v else 0.0
    return overlap - distance / (width**2 + height**2) - share * v


def slow_assignment(
    scores: list[list[float]],
    boxes: Any,
    points: Any,
    real: list[bool],
    gold: Any,
    labels: list[int],
    rule: Alignment,
) -> tuple[list[int], list[float]]:
    """The assigner of section 3.3 of the paper, with a loop for each of its sentences."""
    owners: dict[int, list[tuple[float, int]]] = {}
    t, u = {}, {}
    for m, box in enumerate(gold):
        for n in range(len(points)):
            u[m, n] = max(0.0, slow_ciou(box, boxes[n]))
            t[m, n] = scores[n][labels[m]] ** rule.alpha * u[m, n] ** rule.beta
        inside = [
            n for n, (x, y) in enumerate(points) if real[n] and box[0] < x < box[2] and box[1] < y < box[3]
        ]
        if not inside:
            centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            all_real = [n for n in range(len(points)) if real[n]]
            inside = [min(all_real, key=lambda n: math.dist(points[n], centre))]
        for n in sorted(inside, key=lambda n: (-t[m, n], n))[: rule.top]:
            owners.setdefault(n, []).append((-u[m, n], m))
    box_of = [min(owners[n])[1] if n in owners else -1 for n in range(len(points))]
    target = [0.0] * len(points)
    for m in range(len(gold)):
        own = [n for n in range(len(points)) if box_of[n] == m]
        largest = max((t[m, n] for n in own), default=0.0)
        for n in own:
            target[n] = t[m, n] / largest * max(u[m, k] for k in own) if largest else 0.0
    return box_of, target


def slow_suppression(boxes: Any, scores: Any, classes: Any, overlap: float) -> list[int]:
    kept: list[int] = []
    for n in sorted(range(len(boxes)), key=lambda n: (-scores[n], n)):
        if all(classes[n] != classes[k] or slow_iou(boxes[n], boxes[k]) <= overlap for k in kept):
            kept.append(n)
    return kept


def slow_point_loss(output: PointOutput, batch: BoxBatch) -> tuple[float, float]:
    """Return the sum of the losses and that of the target scores."""
    whole, count = 0.0, 0.0
    boxes, points, strides = output.boxes().tolist(), output.points.tolist(), output.strides.tolist()
    for row in range(len(batch.labels)):
        scores = output.logits[row].sigmoid().tolist()
        labels = [label for label in batch.labels[row].tolist() if label >= 0]
        gold = batch.boxes[row].tolist()[: len(labels)]
        real = [True] * len(points) if output.real is None else output.real[row].tolist()
        box_of, target = slow_assignment(scores, boxes[row], points, real, gold, labels, ALIGNMENT)
        for n, (x, y) in enumerate(points):
            for k, p in enumerate(scores[n]) if real[n] else ():
                goal = target[n] if target[n] and labels[box_of[n]] == k else 0.0
                whole -= 0.5 * (goal * math.log(p) + (1 - goal) * math.log(1 - p))
            if not target[n]:
                continue
            box = gold[box_of[n]]
            whole += 7.5 * target[n] * (1 - slow_ciou(boxes[row][n], box))
            sides = [(x - box[0]), (y - box[1]), (box[2] - x), (box[3] - y)]
            for side, logits in zip(sides, output.sides[row, n].tolist(), strict=True):
                d = min(max(side / strides[n], 0.0), len(logits) - 1.01)
                log_sum, left = math.log(sum(map(math.exp, logits))), int(d)
                loss = (left + 1 - d) * (log_sum - logits[left]) + (d - left) * (log_sum - logits[left + 1])
                whole += 1.5 * target[n] * loss / 4
            count += target[n]
    return whole, count


def slow_query_loss(output: QueryOutput, batch: BoxBatch) -> float:
    """Return the sum of the losses, with the best of all permutations."""
    return sum(_image_loss(output, batch, row) for row in range(len(batch.labels)))


def _image_loss(output: QueryOutput, batch: BoxBatch, row: int) -> float:
    labels = [label for label in batch.labels[row].tolist() if label >= 0]
    gold, (width, height) = batch.boxes[row].tolist(), output.sizes[row].tolist()
    logits, p = output.logits[row].tolist(), output.logits[row].softmax(-1).tolist()
    boxes, centre_sizes = output.boxes()[row].tolist(), output.centre_sizes[row].tolist()

    def of_box(query: int, m: int) -> float:
        left, top, right, bottom = gold[m]
        goal = (
            (left + right) / 2 / width,
            (top + bottom) / 2 / height,
            (right - left) / width,
            (bottom - top) / height,
        )
        l1 = sum(abs(a - b) for a, b in zip(centre_sizes[query], goal, strict=True))
        return 5 * l1 + 2 * (1 - slow_giou(boxes[query], gold[m]))

    best = min(
        permutations(range(len(boxes)), len(labels)),
        key=lambda order: sum(of_box(query, m) - p[query][labels[m]] for m, query in enumerate(order)),
    )
    whole = sum(of_box(query, m) for m, query in enumerate(best))
    for query, values in enumerate(logits):
        label = labels[best.index(query)] if query in best else len(values) - 1
        nll = math.log(sum(map(math.exp, values))) - values[label]
        whole += nll if query in best else 0.1 * nll
    return whole
