"""The objective of networks that give each pixel a class: losses of pixels, as sums over a batch.

Letters: B batch, K classes, H x W pixels.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seq2attn.data.mask_batches import MaskBatch
from seq2attn.layers.token_loss import CrossEntropy, Loss, TokenLoss
from seq2attn.models.vision.segmenters import PixelScores, SegmentationNet
from seq2attn.runtime.distributed import ALONE, Group
from seq2attn.training.objectives import Losses


class SegmentationObjective:
    """The loss of each counted pixel, the soft Dice loss of each image, and the losses of auxiliary
    classifiers; all are sums over pixels.

    pixel_loss: by default cross-entropy; dice: the factor of `soft_dice`; auxiliary: the factor of the loss
    of pixels of each auxiliary classifier.
    """

    def __init__(
        self, pixel_loss: TokenLoss | None = None, dice: float = 0.0, auxiliary: float = 0.0
    ) -> None:
        self.pixel_loss, self.dice, self.auxiliary = pixel_loss or CrossEntropy(), dice, auxiliary

    def forward(self, model: SegmentationNet, batch: MaskBatch) -> PixelScores:
        """See Objective."""
        output: PixelScores = model(batch.images, batch.mask)
        return output

    def loss(self, output: PixelScores, batch: MaskBatch) -> Losses:
        """See Objective."""
        labels, counted = batch.labels, batch.counted
        loss = self._sum(output.scores, labels, counted)
        whole, parts = loss.smoothed, dict[str, Tensor]()
        if self.dice:
            parts["dice"] = soft_dice(output.scores, labels, counted)
            whole = whole + self.dice * parts["dice"]
        if self.auxiliary and output.auxiliary:
            losses = [self._sum(scores, labels, counted).smoothed for scores in output.auxiliary]
            parts["auxiliary"] = torch.stack(losses).sum()
            whole = whole + self.auxiliary * parts["auxiliary"]
        return Losses(whole, loss.smoothed, loss.nll, parts)

    def _sum(self, scores: Tensor, labels: Tensor, counted: Tensor) -> Loss:
        """Return the sum of the losses of all counted pixels."""
        return self.pixel_loss(scores.flatten(2).mT, labels.flatten(1), counted.flatten(1))

    def updated(self, group: Group = ALONE) -> None:
        """See Objective."""

    def state(self) -> None:
        """See Objective: nothing."""

    def restore(self, state: None) -> None:
        """See Objective."""


def soft_dice(
    scores: Float[Tensor, "B K H W"], labels: Int[Tensor, "B H W"], counted: Bool[Tensor, "B H W"]
) -> Float[Tensor, ""]:
    """Return the sum over images of n (1 - mean over classes of 2 sum p t / (sum p + sum t)), for the n
    counted pixels of an image and the classes that it has (Milletari et al. 2016, without their squares).

    It is a sum over images, each with the weight of its pixels. So, divided by all counted pixels of an
    update, it is the mean loss of a pixel's image, and does not depend on how the update is split into
    batches; a ratio of sums over a whole batch would.
    """
    probabilities = scores.float().softmax(1) * counted.unsqueeze(1)  # (B, K, H, W)
    classes = torch.arange(scores.shape[1], device=labels.device)[:, None, None]
    targets = (labels.unsqueeze(1) == classes) & counted.unsqueeze(1)  # (B, K, H, W)
    shared = (probabilities * targets).sum((2, 3))  # (B, K)
    size = targets.sum((2, 3))
    there = size > 0
    dice = (
        2 * shared / (probabilities.sum((2, 3)) + size).clamp(min=1)
    )  # of a class that is there, at least 1
    mean = (dice * there).sum(1) / there.sum(1).clamp(min=1)
    return ((1 - mean) * counted.sum((1, 2))).sum()
