"""The objective of taggers and classifiers: the loss of words, spans or sentences, as a sum over a batch."""

from seq2attn.data.word_batches import LabelledBatch
from seq2attn.errors import Seq2attnError
from seq2attn.layers.token_loss import CrossEntropy, Loss, TokenLoss
from seq2attn.models.taggers import Classifier, LabelScores, SpanTagger, Tagger
from seq2attn.runtime.distributed import ALONE, Group
from seq2attn.training.objectives import Losses

AnyTagger = Tagger | SpanTagger | Classifier


class LabelObjective:
    """Predicts labels of words, spans or sentences: each independently or, with a CRF, -log p(labels) of all
    labels of a sentence.

    token_loss: of each label, by default cross-entropy; Seq2attnError for a model with a CRF, which has its
    own loss. penalty: the factor of |A A' - I|^2, summed over the sentences (`attention.pooling.penalty`).
    """

    def __init__(self, model: AnyTagger, token_loss: TokenLoss | None = None, penalty: float = 0.0) -> None:
        self.crf, self.targets, self.penalty = model.crf, model.targets, penalty
        if self.crf is not None and token_loss is not None:
            raise Seq2attnError(
                "a CRF predicts all labels together and has its own loss: give no other, or set the head to "
                "linear"
            )
        self.token_loss = CrossEntropy() if token_loss is None else token_loss

    def forward(self, model: AnyTagger, batch: LabelledBatch) -> LabelScores:
        """See Objective."""
        output: LabelScores = model(batch.words, need_weights=self.penalty > 0)
        return output

    def loss(self, output: LabelScores, batch: LabelledBatch) -> Losses:
        """See Objective."""
        loss = self._label_loss(output, batch)
        losses = Losses(whole=loss.smoothed, loss=loss.smoothed, nll=loss.nll)
        if not self.penalty:
            return losses
        if output.penalty is None:
            raise Seq2attnError(
                "the penalty makes the weights of a pooling's queries differ, and this model has no such "
                "queries: set it to 0"
            )
        penalty = output.penalty.sum()
        return losses._replace(whole=loss.smoothed + self.penalty * penalty, parts={"penalty": penalty})

    def _label_loss(self, output: LabelScores, batch: LabelledBatch) -> Loss:
        """Return the loss of the scores, without the penalty; padding does not count."""
        if self.crf is not None:
            nll = self.crf(output.scores, batch.labels, output.mask).sum()
            return Loss(nll, nll.detach())
        scores, mask = output.scores.flatten(0, -2), output.mask.flatten()  # (N, K), (N,)
        target = self.targets(batch.labels, batch.words.mask).flatten().masked_fill(~mask, 0)  # (N,)
        return self.token_loss(scores[None], target[None], mask[None])

    def updated(self, group: Group = ALONE) -> None:
        """See Objective."""

    def state(self) -> None:
        """See Objective: nothing."""

    def restore(self, state: None) -> None:
        """See Objective."""
