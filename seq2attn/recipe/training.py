"""Sections of a recipe: training and decoding."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import Self

from seq2attn.metrics.registry import metrics_of
from seq2attn.optim import OPTIMIZERS, SCHEDULES
from seq2attn.recipe.sections import Choice, Count, Fault, Name, OneOrMore, Part, Rate, Section, Size
from seq2attn.runtime.devices import PRECISIONS

Factor = Annotated[float, Field(ge=0)]


class MetricOf(Name):
    """Marks a text field that takes the name of a metric of this kind of output."""

    def __init__(self, measures: str) -> None:
        super().__init__(partial(metrics_of, measures))


class BestBy(Name):
    """Marks a text field that takes `loss`, or the name of a metric of this kind of output."""

    def __init__(self, measures: str) -> None:
        super().__init__(lambda: ["loss", *metrics_of(measures)])


TextMetric = Annotated[str, MetricOf("texts")]
TagMetric = Annotated[str, MetricOf("tagged words")]
LabelMetric = Annotated[str, MetricOf("labelled texts")]
BEST = "Metric by which the best checkpoint is chosen."
MEASURED = "Metrics of the final scores and of `score`; also of validation, except slow ones (ter)."
MEASURED_LABELS = "Metrics of the final scores, of `score` and of validation."


# ---- training ---------------------------------------------------------------------------------------


class EarlyStopping(Section):
    """Early stopping: end training when validation no longer improves."""

    patience: Size = Field(5, description="Number of validations in a row without a new best score.")


class AttentionLossesRecipe(Section):
    """Auxiliary losses of attention weights. Each is taken per token, times its factor; 0 = off."""

    coverage: Factor = Field(
        0.0, description="Coverage loss: penalises attending to a position again (See et al. 2017)."
    )
    doubly_stochastic: Factor = Field(
        0.0,
        description="Penalises positions whose weights over all target tokens do not sum to 1 (Xu et al. "
        "2015).",
    )
    guided: Factor = Field(
        0.0,
        description="Guided attention: cross-entropy of the weights with gold alignments (Garg et al. 2019).",
    )
    reinforce: Factor = Field(
        0.0,
        description="REINFORCE: raises the probability of sampled positions from which the target is likely; "
        "for the normalizer `hard` (Xu et al. 2015).",
    )
    entropy: Factor = Field(
        0.0, description="Penalises weights of low entropy, so that sampling with `reinforce` explores."
    )
    layer: int | None = Field(
        None,
        description="Layer of a Transformer for coverage, doubly_stochastic and guided, from 0 (-1 = the "
        "last). null = the layer of `copying`; without copying, the last, and for guided the second to last.",
    )
    head: Count | None = Field(
        None,
        description="Head for the same three losses, from 0. null = the mean of all heads, and for guided "
        "the first; with copying and no layer here, the head of `copying`.",
    )

    def factors(self) -> dict[str, float]:
        """Return the factors of the losses that are on, by name."""
        names = ("coverage", "doubly_stochastic", "guided", "reinforce", "entropy")
        return {name: factor for name in names if (factor := getattr(self, name))}

    def faults(self) -> Iterator[Fault]:
        """Find a section that turns no loss on."""
        if not self.factors():
            yield Fault("", "turns no loss on: give one a factor, as in {coverage: 1.0}, or set it to null")


class LearningRecipe(Section):
    """Training settings of all tasks. Steps count updates of the weights."""

    optimizer: Annotated[str, Name(lambda: OPTIMIZERS)] = Field("adamw", description="Optimizer.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate.")
    schedule: Annotated[Part, Choice(SCHEDULES)] = Field(
        "constant", validate_default=True, description="Learning-rate schedule."
    )
    weight_decay: float = Field(
        0.0, ge=0, description="Weight decay of matrices; vectors (biases, norms) have none."
    )
    betas: tuple[Rate, Rate] = Field(
        (0.9, 0.98), description="Decay rates of the moment estimates of adam and adamw."
    )
    eps: float = Field(1e-8, gt=0, description="Epsilon of adam and adamw.")
    momentum: Rate = Field(0.0, description="Momentum of sgd.")
    clip: float | None = Field(
        1.0, gt=0, description="Largest norm of the gradient, to which it is clipped; null = no clipping."
    )
    batch_tokens: Size = Field(
        4096,
        description="Largest number of tokens in a batch, padding included; of pairs, on the side with more.",
    )
    accumulate: Size = Field(
        1,
        description="Batches per update (gradient accumulation); the loss is the mean over all of their "
        "tokens.",
    )
    max_steps: Size | None = Field(None, description="Train for at most this many updates.")
    max_epochs: Size | None = Field(None, description="Train for at most this many epochs.")
    max_minutes: float | None = Field(None, gt=0, description="Train for at most this many minutes.")
    validate_every: Size = Field(500, description="Steps between validations; each also saves a checkpoint.")
    save_every: Size | None = Field(
        None, description="Steps between further checkpoints; null = only at validations."
    )
    log_every: Size = Field(50, description="Steps between records in log.jsonl.")
    metric: str = Field(description=BEST)
    metrics: Sequence[str] = Field(description=MEASURED)
    early_stopping: EarlyStopping | None = Field(
        None, description="End training when validation no longer improves; null = never."
    )
    keep_best: Size = Field(1, description="Number of best checkpoints to keep.")
    keep_last: Size = Field(1, description="Number of last checkpoints to keep.")
    average: Count = Field(0, description="Average this many last checkpoints at the end; 0 = none.")
    ema: Rate = Field(
        0.0,
        description="Decay of an exponential moving average of the weights; 0 = none. It rises to this "
        "value: after n updates it is at most (1 + n) / (10 + n), as with `num_updates` in TensorFlow's "
        "ExponentialMovingAverage, so that the average soon forgets the random weights of the start.",
    )
    precision: Annotated[str, Name(lambda: PRECISIONS)] = Field(
        "fp32", description="Precision of the computation; weights are always kept in float32."
    )
    deterministic: bool = Field(False, description="Use only deterministic kernels (slower on a GPU).")
    tensorboard: bool = Field(False, description="Also write TensorBoard logs (pip install tensorboard).")

    @classmethod
    def measurable(cls) -> tuple[str, ...]:
        """Return the names of all metrics that fit the task."""
        (name,) = get_args(cls.model_fields["metrics"].annotation)
        _, marker = get_args(name)
        return tuple(marker.names())

    def faults(self) -> Iterator[Fault]:
        """Find training without an end, and settings that contradict each other."""
        ends = (self.max_steps, self.max_epochs, self.max_minutes, self.early_stopping)
        if all(end is None for end in ends):
            yield Fault("", "needs an end: set max_steps, max_epochs, max_minutes or early_stopping")
        if SCHEDULES[self.schedule.name].needs_total and self.max_steps is None and self.max_epochs is None:
            yield Fault(
                "schedule",
                f"{self.schedule.name} depends on the number of steps: set max_steps or max_epochs",
            )
        if self.average > self.keep_last:
            yield Fault(
                "average", f"averages {self.average} checkpoints but keep_last keeps {self.keep_last}"
            )
        if self.average and self.ema:
            yield Fault("average", "average and ema cannot be combined: use one of them")
        if self.momentum and self.optimizer != "sgd":
            yield Fault("momentum", f"is an option of sgd, not of {self.optimizer}")


class TrainingRecipe(LearningRecipe):
    """Training settings of translation."""

    label_smoothing: Rate = Field(
        0.0, description="Label smoothing: share of the probability spread over the vocabulary."
    )
    attention_losses: AttentionLossesRecipe | None = Field(
        None, description="Auxiliary losses of the attention weights; null = none."
    )
    metric: Annotated[str, BestBy("texts")] = Field("bleu", description=BEST)
    metrics: Annotated[list[TextMetric], Field(min_length=1), OneOrMore()] = Field(
        ["bleu", "chrf", "ter"], description=MEASURED
    )


class SummaryTrainingRecipe(TrainingRecipe):
    """Training settings of summarization."""

    metric: Annotated[str, BestBy("texts")] = Field("rouge-l", description=BEST)
    metrics: Annotated[list[TextMetric], Field(min_length=1), OneOrMore()] = Field(
        ["rouge-1", "rouge-2", "rouge-l", "rouge-lsum"], description=MEASURED
    )


class TaggingTrainingRecipe(LearningRecipe):
    """Training settings of tagging."""

    label_smoothing: Rate = Field(
        0.0, description="Label smoothing: share of the probability spread over all labels; not with a CRF."
    )
    metric: Annotated[str, BestBy("tagged words")] = Field("f1", description=BEST)
    metrics: Annotated[list[TagMetric], Field(min_length=1), OneOrMore()] = Field(
        ["f1", "precision", "recall"], description=MEASURED_LABELS
    )


class ClassificationTrainingRecipe(LearningRecipe):
    """Training settings of classification."""

    label_smoothing: Rate = Field(
        0.0, description="Label smoothing: share of the probability spread over all labels."
    )
    metric: Annotated[str, BestBy("labelled texts")] = Field("accuracy", description=BEST)
    metrics: Annotated[list[LabelMetric], Field(min_length=1), OneOrMore()] = Field(
        ["accuracy", "macro-f1"], description=MEASURED_LABELS
    )


# ---- decoding ---------------------------------------------------------------------------------------


MARGIN = 10  # pieces by which an output may exceed max_length_ratio times the length of its source
RATIO = 3.0  # max_length_ratio where there are no training data
LOWEST_RATIO = 0.01  # that training data give; they are written with two digits, and 0 is no ratio
# max_length_ratio from training data: enough for this share of the pairs, with some to spare; and twice the
# mean ratio, because short pairs need none (MARGIN suffices), but sources to come may be longer
ENOUGH, SPARE, TIMES_MEAN = 0.999, 1.25, 2.0

IntArray = NDArray[np.integer[Any]]


class DecodingRecipe(Section):
    """Decoding: beam search or sampling. These are the defaults of `translate` and `score`."""

    beam: Annotated[int, Field(ge=1, le=500)] = Field(5, description="Beam size; 1 = greedy search.")
    length_normalization: Literal["gnmt", "simple", "none"] = Field(
        "simple",
        description="Divisor of the log-probability of n tokens. gnmt: ((5 + n) / 6)^penalty (Wu et al. "
        "2016); simple: n^penalty.",
    )
    length_penalty: float = Field(
        1.0, ge=0, le=10, description="The exponent `penalty` in length_normalization."
    )
    coverage_penalty: float = Field(
        0.0,
        ge=0,
        description="Factor of the sum of log min(1, attention) over the source pieces (Wu et al. 2016); 0 = "
        "none. With `sample` it only ranks the samples of a sentence.",
    )
    min_length: Count = Field(0, description="Shortest output, in pieces.")
    max_length: Size = Field(256, description="Longest output, in pieces.")
    max_length_ratio: float | None = Field(
        None,
        gt=0,
        description="Longest output as a multiple of the source length, plus 10 pieces; null = from the "
        "training data: 1.25 times what suffices for 99.9 % of the pairs, at least twice the mean ratio.",
    )
    max_source: Size = Field(
        1024, description="Longest source, in pieces; longer ones are truncated, with a warning."
    )
    no_repeat_ngram: Count = Field(
        0, description="Forbid n-grams of this many pieces to occur twice in an output; 0 = allow all."
    )
    replace_unknown: bool = Field(
        False, description="Replace unknown pieces by the source word with the largest attention weight."
    )
    batch_tokens: Size = Field(
        4096, description="Largest number of tokens in a batch: source tokens times beam."
    )
    validation_beam: Size = Field(1, description="Beam size of validation.")
    nbest: Size = Field(
        1, description="Number of outputs for each source; in beam search, at most the beam size."
    )
    sample: bool = Field(False, description="Sample outputs instead of searching for the most probable.")
    temperature: float = Field(
        1.0, ge=1e-6, le=1e6, description="Sampling temperature: logits are divided by it."
    )
    top_k: Count = Field(0, description="Sample from the k most probable pieces; 0 = from all.")
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Nucleus sampling: sample from the most probable pieces with this total probability.",
    )
    seed: Count = Field(
        1,
        description="Random seed of sampling; sentence n of an input always gets the same sample.",
    )

    def limits(self, source_lengths: IntArray) -> IntArray:
        """Return the largest number of pieces of the output of each source, given the sources' lengths with
        </s>."""
        ratio = RATIO if self.max_length_ratio is None else self.max_length_ratio
        longest = np.minimum(ratio * source_lengths + MARGIN, self.max_length)
        limits: IntArray = np.maximum(longest, self.min_length).astype(np.int64)
        return limits

    def fitted(self, source_lengths: IntArray, target_lengths: IntArray) -> Self:
        """Return these settings with the max_length_ratio of training data, if it is null: for the lengths of
        sources with </s>, and of targets without it."""
        if self.max_length_ratio is not None:
            return self
        needed = float(np.quantile((target_lengths - MARGIN) / source_lengths, ENOUGH))
        mean = float(target_lengths.sum() / source_lengths.sum())
        ratio = max(round(max(TIMES_MEAN * mean, SPARE * needed), 2), LOWEST_RATIO)
        return self.model_copy(update={"max_length_ratio": ratio})

    def faults(self) -> Iterator[Fault]:
        """Find lengths and numbers of outputs that contradict each other."""
        if self.min_length > self.max_length:
            yield Fault("min_length", f"{self.min_length} is more than max_length {self.max_length}")
        if not self.sample and self.nbest > self.beam:
            yield Fault(
                "nbest", f"{self.nbest} outputs need a beam of at least {self.nbest}, got {self.beam}"
            )
