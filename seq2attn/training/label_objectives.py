"""What labellers learn: losses of words, spans and sentences, as sums over what a batch counts."""

from collections.abc import Callable

from jaxtyping import Int
from torch import Tensor

from seq2attn.errors import Seq2attnError
from seq2attn.layers.crf import CRF
from seq2attn.layers.word_embedding import LabelledBatch
from seq2attn.models.taggers import Classifier, Labelled, SpanTagger, Tagger
from seq2attn.training.objectives import Losses
from seq2attn.training.token_loss import Loss, cross_entropy

AnyTagger = Tagger | SpanTagger | Classifier


class LabelObjective:
    """To predict labels (cross-entropy) of words or sentences.

    smoothing: of the labels; penalty: the factor of |A A' - I|^2, of each sentence's pooling
    (`pooling.penalty`).
    """

    def __init__(self, smoothing: float = 0.0, penalty: float = 0.0) -> None:
        self.smoothing, self.penalty = smoothing, penalty

    def forward(self, model: AnyTagger, batch: LabelledBatch) -> Labelled:
        """See Objective."""
        answer: Labelled = model(batch.words, look=self.penalty > 0)
        return answer

    def loss(self, answer: Labelled, batch: LabelledBatch) -> Losses:
        """See Objective."""
        loss = self.cost(answer, batch)
        if not self.penalty:
            return Losses(loss.smoothed, *loss)
        if answer.penalty is None:
            raise Seq2attnError(
                "a penalty is on how far a pooling's queries look alike, and this model has none: set it to 0"
            )
        alike = answer.penalty.sum()
        return Losses(loss.smoothed + self.penalty * alike, *loss, {"penalty": alike})

    def cost(self, answer: Labelled, batch: LabelledBatch) -> Loss:
        """What the answer's scores cost."""
        return self.compared(answer, batch.labels)

    def compared(self, answer: Labelled, gold: Int[Tensor, "..."]) -> Loss:
        """Cross-entropy with labels, one for each row of scores; whatever stands on padding."""
        scores, mask = answer.scores.flatten(0, -2), answer.mask.flatten()
        gold = gold.flatten().masked_fill(~mask, 0)
        return cross_entropy(scores[None], gold[None], mask[None], self.smoothing)

    def updated(self) -> None:
        """See Objective."""

    def state(self) -> None:
        """See Objective: nothing."""

    def restore(self, state: None) -> None:
        """See Objective."""


class CRFObjective(LabelObjective):
    """To predict all labels of a sentence together: -log p(labels) of a CRF."""

    def __init__(self, crf: CRF, penalty: float = 0.0) -> None:
        super().__init__(penalty=penalty)
        self.crf = crf

    def cost(self, answer: Labelled, batch: LabelledBatch) -> Loss:
        """See the class."""
        nll = self.crf(answer.scores, batch.labels, answer.mask).sum()
        return Loss(nll, nll.detach())


class SpanObjective(LabelObjective):
    """To predict of each span its type, or that it is none.

    gold: from labels (B, S) of words and their mask to types (B, N) of spans, `SpanTagger.gold`.
    """

    def __init__(self, gold: Callable[[Tensor, Tensor], Tensor], smoothing: float = 0.0) -> None:
        super().__init__(smoothing)
        self.gold = gold

    def cost(self, answer: Labelled, batch: LabelledBatch) -> Loss:
        """See the class."""
        return self.compared(answer, self.gold(batch.labels, batch.words.mask))


def label_objective(model: AnyTagger, smoothing: float = 0.0, penalty: float = 0.0) -> LabelObjective:
    """What a model learns by. Seq2attnError for smoothing with a CRF."""
    if isinstance(model, SpanTagger):
        return SpanObjective(model.gold, smoothing)
    if isinstance(model, Tagger) and model.crf is not None:
        if smoothing:
            raise Seq2attnError(
                "a CRF predicts all labels together, and none can be smoothed: set label_smoothing to 0, or "
                "the head to linear"
            )
        return CRFObjective(model.crf, penalty)
    return LabelObjective(smoothing, penalty)
