"""The objectives of taggers and classifiers: losses of words, spans and sentences, as sums over a batch."""

from collections.abc import Callable

from jaxtyping import Int
from torch import Tensor

from seq2attn.data.word_batches import LabelledBatch
from seq2attn.errors import Seq2attnError
from seq2attn.layers.crf import CRF
from seq2attn.models.taggers import Classifier, LabelScores, SpanTagger, Tagger
from seq2attn.training.objectives import Losses
from seq2attn.training.token_loss import Loss, cross_entropy

AnyTagger = Tagger | SpanTagger | Classifier


class LabelObjective:
    """Predicts labels (cross-entropy) of words or sentences.

    smoothing: the label smoothing; penalty: the factor of |A A' - I|^2, summed over the sentences
    (`attention.pooling.penalty`).
    """

    def __init__(self, smoothing: float = 0.0, penalty: float = 0.0) -> None:
        self.smoothing, self.penalty = smoothing, penalty

    def forward(self, model: AnyTagger, batch: LabelledBatch) -> LabelScores:
        """See Objective."""
        output: LabelScores = model(batch.words, need_weights=self.penalty > 0)
        return output

    def loss(self, output: LabelScores, batch: LabelledBatch) -> Losses:
        """See Objective."""
        loss = self.label_loss(output, batch)
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

    def label_loss(self, output: LabelScores, batch: LabelledBatch) -> Loss:
        """Return the loss of the scores, without the penalty."""
        return self.masked_cross_entropy(output, batch.labels)

    def masked_cross_entropy(self, output: LabelScores, target: Int[Tensor, "..."]) -> Loss:
        """Return the cross-entropy of the scores with a target for each row; padding does not count."""
        scores, mask = output.scores.flatten(0, -2), output.mask.flatten()  # (N, K), (N,)
        target = target.flatten().masked_fill(~mask, 0)  # (N,)
        return cross_entropy(scores[None], target[None], mask[None], self.smoothing)

    def updated(self) -> None:
        """See Objective."""

    def state(self) -> None:
        """See Objective: nothing."""

    def restore(self, state: None) -> None:
        """See Objective."""


class CRFObjective(LabelObjective):
    """Predicts all labels of a sentence together: -log p(labels) of a CRF."""

    def __init__(self, crf: CRF, penalty: float = 0.0) -> None:
        super().__init__(penalty=penalty)
        self.crf = crf

    def label_loss(self, output: LabelScores, batch: LabelledBatch) -> Loss:
        """See the class."""
        nll = self.crf(output.scores, batch.labels, output.mask).sum()
        return Loss(nll, nll.detach())


class SpanObjective(LabelObjective):
    """Predicts the type of each span, or none.

    span_targets: `SpanTagger.span_targets`, which returns the types (B, N) of spans for the labels (B, S) of
    words and their mask.
    """

    def __init__(self, span_targets: Callable[[Tensor, Tensor], Tensor], smoothing: float = 0.0) -> None:
        super().__init__(smoothing)
        self.span_targets = span_targets

    def label_loss(self, output: LabelScores, batch: LabelledBatch) -> Loss:
        """See the class."""
        return self.masked_cross_entropy(output, self.span_targets(batch.labels, batch.words.mask))


def label_objective(model: AnyTagger, smoothing: float = 0.0, penalty: float = 0.0) -> LabelObjective:
    """Return the objective of a model. Seq2attnError for smoothing with a CRF."""
    if isinstance(model, SpanTagger):
        return SpanObjective(model.span_targets, smoothing)
    if isinstance(model, Tagger) and model.crf is not None:
        if smoothing:
            raise Seq2attnError(
                "a CRF predicts all labels together, and none can be smoothed: set label_smoothing to 0, or "
                "the head to linear"
            )
        return CRFObjective(model.crf, penalty)
    return LabelObjective(smoothing, penalty)
