"""The objectives of networks that find objects: losses of boxes and classes, as sums over a batch.

Letters: B batch, M boxes of an image, N points, r queries, K classes.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seq2attn.data.box_batches import BoxBatch
from seq2attn.layers.box_assignment import ALIGNMENT, Alignment, assign_aligned, match
from seq2attn.layers.box_losses import distribution_focal_loss
from seq2attn.layers.boxes import center_size, complete_iou, generalized_iou
from seq2attn.models.vision.detector import ObjectDetector, PointOutput, QueryOutput
from seq2attn.runtime.distributed import ALONE, Group
from seq2attn.training.objectives import Losses


class PointFactors(NamedTuple):
    """Factors of the losses of points."""

    box: float = 7.5  # 1 - CIoU
    distances: float = 1.5  # distribution focal loss
    classes: float = 0.5  # binary cross-entropy


class QueryFactors(NamedTuple):
    """Factors of the losses of queries, and of the costs by which they are matched."""

    classes: float = 1.0  # cross-entropy; the cost is -p
    l1: float = 5.0  # of centre and size, as shares of the image's sides
    giou: float = 2.0  # 1 - GIoU
    nothing: float = 0.1  # weight of queries without a box in the cross-entropy


POINT_FACTORS, QUERY_FACTORS = PointFactors(), QueryFactors()


class _Targets(NamedTuple):
    """What the points of a batch learn."""

    scores: Tensor  # (B, N, K), from 0 to 1
    weights: Tensor  # (B, N), the target score of each point, 0 for those without a box
    boxes: Tensor  # (B, N, 4), of points with a box


class DetectionObjective:
    """The base class of objectives of an `ObjectDetector`. A subclass defines `loss`."""

    def forward(self, model: ObjectDetector, batch: BoxBatch) -> PointOutput | QueryOutput:
        """See Objective."""
        output: PointOutput | QueryOutput = model(batch.images, batch.mask)
        return output

    def updated(self, group: Group = ALONE) -> None:
        """See Objective."""

    def state(self) -> None:
        """See Objective: nothing."""

    def restore(self, state: None) -> None:
        """See Objective."""


class PointObjective(DetectionObjective):
    """The loss of a `PointHead`: sum over points of w (f (1 - CIoU) + g DFL) + h BCE, where the target score
    w comes from the task-aligned assigner (Feng et al. 2021). It is divided by the sum of w of the update, or
    by 1 if that is less."""

    def __init__(self, factors: PointFactors = POINT_FACTORS, alignment: Alignment = ALIGNMENT) -> None:
        self.factors, self.alignment = factors, alignment

    def loss(self, output: PointOutput, batch: BoxBatch) -> Losses:
        """See Objective."""
        boxes, logits = output.boxes(), output.logits.float()
        targets = self._targets(output, boxes.detach(), batch)
        classes = F.binary_cross_entropy_with_logits(logits, targets.scores, reduction="none").sum(-1)
        parts = {"classes": (classes if output.real is None else classes * output.real).sum()}
        own = targets.weights > 0
        weights, gold = targets.weights[own], targets.boxes[own]
        parts["box"] = (weights * (1 - complete_iou(boxes[own], gold))).sum()
        points, strides = (
            part.expand(*own.shape, *part.shape[1:])[own] for part in (output.points, output.strides)
        )
        distances = torch.cat([points - gold[:, :2], gold[:, 2:] - points], -1) / strides.unsqueeze(-1)
        parts["distances"] = (weights * distribution_focal_loss(output.sides[own].float(), distances)).sum()
        return _losses(parts, self.factors._asdict(), targets.weights.sum())

    def _targets(self, output: PointOutput, boxes: Tensor, batch: BoxBatch) -> _Targets:
        """Return what each point learns; each image is assigned on its own."""
        scores = output.logits.detach().float().sigmoid()
        everywhere = torch.ones_like(output.strides, dtype=torch.bool)
        targets, weights, gold_boxes = (
            torch.zeros_like(scores),
            scores.new_zeros(scores.shape[:2]),
            boxes.clone(),
        )
        for row, (gold, labels) in enumerate(zip(batch.boxes, batch.labels, strict=True)):
            gold, labels = gold[labels >= 0], labels[labels >= 0]
            real = everywhere if output.real is None else output.real[row]
            assigned = assign_aligned(
                scores[row], boxes[row], output.points, real, gold, labels, self.alignment
            )
            own = assigned.box >= 0
            index = assigned.box[own]
            targets[row, own, labels[index]] = assigned.score[own]
            weights[row], gold_boxes[row, own] = assigned.score, gold[index].float()
        return _Targets(targets, weights, gold_boxes)


class QueryObjective(DetectionObjective):
    """The loss of a `QueryHead`: each box is matched with one query, so that the sum of the costs is least
    (Carion et al. 2020); the others learn `nothing`. All sums are divided by the number of boxes of the
    update, or by 1 if there are none."""

    def __init__(self, factors: QueryFactors = QUERY_FACTORS) -> None:
        self.factors = factors

    def loss(self, output: QueryOutput, batch: BoxBatch) -> Losses:
        """See Objective."""
        logits, boxes = output.logits.float(), output.boxes()
        images, queries, which = self._matched(logits, boxes, output, batch)
        gold, labels = batch.boxes[images, which].float(), batch.labels[images, which]
        nothing = logits.shape[-1] - 1
        target = batch.labels.new_full(logits.shape[:2], nothing)  # (B, r)
        target[images, queries] = labels
        weights = logits.new_ones(logits.shape[-1])
        weights[nothing] = self.factors.nothing
        shares = center_size(gold) / output.sizes.repeat(1, 2)[images]
        parts = {
            "classes": F.cross_entropy(logits.flatten(0, 1), target.flatten(), weights, reduction="sum"),
            "l1": (output.centre_sizes[images, queries] - shares).abs().sum(),
            "giou": (1 - generalized_iou(boxes[images, queries], gold)).sum(),
        }
        return _losses(parts, self.factors._asdict(), logits.new_tensor(float(batch.num_targets)))

    @torch.no_grad()
    def _matched(
        self, logits: Tensor, boxes: Tensor, output: QueryOutput, batch: BoxBatch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the image, the query and the box of each pair."""
        probabilities, pairs = logits.softmax(-1), []
        for row, labels in enumerate(batch.labels):
            (there,) = (labels >= 0).nonzero(as_tuple=True)
            gold = batch.boxes[row, there].float()
            shares = center_size(gold) / output.sizes[row].repeat(2)
            cost = -self.factors.classes * probabilities[row][:, labels[there]]  # (r, M)
            cost += self.factors.l1 * torch.cdist(output.centre_sizes[row], shares, p=1)
            cost -= self.factors.giou * generalized_iou(boxes[row][:, None], gold[None])
            queries, columns = (torch.from_numpy(part) for part in match(cost.double().cpu().numpy()))
            columns = there[columns.to(there.device)]
            pairs.append(torch.stack([torch.full_like(columns, row), queries.to(there.device), columns]))
        images, queries, which = torch.cat(pairs, 1)
        return images, queries, which


def _losses(parts: dict[str, Tensor], factors: dict[str, float], count: Tensor) -> Losses:
    """Return the losses with the sum of all parts, each times its factor."""
    whole = torch.stack([factors[name] * part for name, part in parts.items()]).sum()
    reported = {name: part.detach() for name, part in parts.items()}
    return Losses(whole, whole, None, reported, count.detach())
