"""The objective of networks that label images: the loss of labels, as a sum over a batch."""

import torch
from torch import Tensor

from seq2attn.data.image_batches import ImageBatch
from seq2attn.errors import Seq2attnError
from seq2attn.layers.token_loss import CrossEntropy, Loss, TokenLoss
from seq2attn.models.vision.classifier import ImageClassifier, ImageScores
from seq2attn.runtime.distributed import ALONE, Group
from seq2attn.training.objectives import Losses


class ImageObjective:
    """Predicts the labels of images; of mixed images, both labels by their shares (Zhang et al. 2018, mixup).

    token_loss: of a label, by default cross-entropy; penalty: the factor of |A A' - I|^2, summed over the
    images (`attention.pooling.penalty`).
    """

    def __init__(self, token_loss: TokenLoss | None = None, penalty: float = 0.0) -> None:
        self.token_loss, self.penalty = token_loss or CrossEntropy(), penalty

    def forward(self, model: ImageClassifier, batch: ImageBatch) -> ImageScores:
        """See Objective."""
        output: ImageScores = model(batch.images, batch.mask, need_weights=self.penalty > 0)
        return output

    def loss(self, output: ImageScores, batch: ImageBatch) -> Losses:
        """See Objective."""
        loss = self._sum(output.scores, batch.labels)
        if batch.mixed is not None:
            loss = self._mixed(output.scores, batch.labels, batch.mixed.labels, batch.mixed.share)
        losses = Losses(whole=loss.smoothed, loss=loss.smoothed, nll=loss.nll)
        if not self.penalty:
            return losses
        if output.penalty is None:
            raise Seq2attnError("the penalty is for a pooling with queries: set it to 0")
        penalty = output.penalty.sum()
        return losses._replace(whole=loss.smoothed + self.penalty * penalty, parts={"penalty": penalty})

    def _sum(self, scores: Tensor, labels: Tensor) -> Loss:
        """Return the sum of the losses of all images."""
        return self.token_loss(scores[None], labels[None], torch.ones_like(labels[None], dtype=torch.bool))

    def _mixed(self, scores: Tensor, labels: Tensor, others: Tensor, share: Tensor) -> Loss:
        """Return the sum of share * loss(label) + (1 - share) * loss(other label)."""
        first, second = self.token_loss.each(scores, labels), self.token_loss.each(scores, others)
        smoothed, nll = (
            (share * one + (1 - share) * other).sum() for one, other in zip(first, second, strict=True)
        )
        return Loss(smoothed, nll)

    def updated(self, group: Group = ALONE) -> None:
        """See Objective."""

    def state(self) -> None:
        """See Objective: nothing."""

    def restore(self, state: None) -> None:
        """See Objective."""
