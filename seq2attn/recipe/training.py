"""Sections of a recipe: training."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field
from typing_extensions import Self

from seq2attn.errors import Seq2attnError
from seq2attn.layers.token_loss import LOSSES, TokenLoss
from seq2attn.metrics.registry import metrics_of
from seq2attn.optim import OPTIMIZERS, SCHEDULES
from seq2attn.recipe.markers import OneOrMore
from seq2attn.recipe.sections import Choice, Count, Fault, Name, Part, Rate, Section, Size, fault, filled
from seq2attn.recipe.wording import shown
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
        "last). null = the layer of `copying`; without copying, the last, and for guided the second to last. "
        "For guided, null = `shift_head` if the decoder has one.",
    )
    head: Count | None = Field(
        None,
        description="Head for the same three losses, from 0. null = the mean of all heads, and for guided "
        "the first; with copying and no layer here, the head of `copying`. Of `shift_head`, null = the mean.",
    )

    def factors(self) -> dict[str, float]:
        """Return the factors of the losses that are on, by name."""
        names = ("coverage", "doubly_stochastic", "guided", "reinforce", "entropy")
        return {name: factor for name in names if (factor := getattr(self, name))}

    def faults(self) -> Iterator[Fault]:
        """Find a section that turns no loss on."""
        if not self.factors():
            yield Fault("", "turns no loss on: give one a factor, as in {coverage: 1.0}, or set it to null")


# Where the recipe is silent: shares of all updates, or of those of TYPICAL_EPOCHS if their number is unknown.
TYPICAL_EPOCHS = 10
WARMUP, LONGEST_WARMUP = 10, 4000  # a tenth; the longest as in Vaswani et al. (2017)
VALIDATIONS, LONGEST_INTERVAL = 10, 1000  # a training has about ten, and one at least every 1,000 updates


def fitted_warmup(total: int) -> int:
    """Return the warm-up of a training with `total` updates, where the recipe is silent."""
    return min(LONGEST_WARMUP, total // WARMUP)


def fitted_interval(total: int) -> int:
    """Return the interval of validations of a training with `total` updates, where the recipe is silent."""
    return max(1, min(LONGEST_INTERVAL, math.ceil(total / VALIDATIONS)))


def _size_or_auto(value: Any) -> Any:
    """Raise one message for what is neither a number nor auto."""
    if type(value) is int and value < 1:
        raise fault(f"expected at least 1, got {value}")
    if type(value) is not int and value != "auto":
        raise fault(f"expected a whole number, or auto, got {shown(value)}")
    return value


BatchSize = Annotated[Size | Literal["auto"], BeforeValidator(_size_or_auto)]
AUTO_SIZE = "auto = the largest that the memory of the GPU holds, which is found once."


class AnyLearningRecipe(Section):
    """Training settings of all tasks. Steps count updates of the weights."""

    batch_key: ClassVar[str]  # the setting that limits the size of a batch: a number, or auto
    example_setting: ClassVar[str] = "data.filter.max_length"  # that which limits the size of an example

    optimizer: Annotated[str, Name(lambda: OPTIMIZERS)] = Field("adamw", description="Optimizer.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate.")
    schedule: Annotated[Part, Choice(SCHEDULES)] = Field(
        "constant",
        validate_default=True,
        description="Learning-rate schedule. Its warmup: null = a tenth of all steps, or an epoch if their "
        "number is unknown, at most 4,000.",
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
    accumulate: Size = Field(
        1,
        description="Batches per update (gradient accumulation); the loss is the mean over all of their "
        "tokens.",
    )
    max_steps: Size | None = Field(None, description="Train for at most this many updates.")
    max_epochs: Size | None = Field(None, description="Train for at most this many epochs.")
    max_minutes: float | None = Field(None, gt=0, description="Train for at most this many minutes.")
    validate_every: Size | None = Field(
        None,
        description="Steps between validations; each also saves a checkpoint. null = a tenth of all steps, "
        "or an epoch if their number is unknown, at most 1,000.",
    )
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
    gradient_checkpointing: bool = Field(
        False,
        description="Compute Transformer layers again in the backward pass, in the place of keeping their "
        "results: less memory, more time, the same gradients.",
    )
    sharded: bool = Field(
        False,
        description="In several processes, let each keep a part of every parameter, gradient and moment only "
        "(FSDP2), for models that do not fit on one device.",
    )
    deterministic: bool = Field(False, description="Use only deterministic kernels (slower on a GPU).")
    tensorboard: bool = Field(False, description="Also write TensorBoard logs (pip install tensorboard).")

    @property
    def interval(self) -> int:
        """The number of updates between validations; where there are no training data, the longest."""
        return LONGEST_INTERVAL if self.validate_every is None else self.validate_every

    def rate_of(self, player: str) -> float:
        """Return the peak learning rate of a part of the model that is trained by itself; "" = all of it."""
        return self.learning_rate

    def fitted(self, total: int | None, per_epoch: int) -> Self:
        """Return these settings with the warm-up and the interval of validations, where they are null.

        total: the number of updates, None if it is unknown; per_epoch: of one epoch.
        """
        total = total or TYPICAL_EPOCHS * per_epoch
        update: dict[str, Any] = {"validate_every": self.validate_every or fitted_interval(total)}
        if "warmup" in (options := self.schedule.options) and options["warmup"] is None:
            update["schedule"] = self.schedule.model_copy(update={"warmup": fitted_warmup(total)})
        return self.model_copy(update=update)

    def fitted_as(self, begun: "AnyLearningRecipe") -> Self:
        """Return these settings with those of a run that they leave to the training data."""
        update: dict[str, Any] = {"schedule": filled(self.schedule, begun.schedule, "warmup")}
        if getattr(self, self.batch_key) == "auto":
            update[self.batch_key] = getattr(begun, begun.batch_key)
        return filled(self, begun, "validate_every").model_copy(update=update)

    @property
    def batch_size(self) -> int:
        """The number that limits the size of a batch. Seq2attnError while it is auto."""
        size: int | str = getattr(self, self.batch_key)
        if isinstance(size, str):
            raise Seq2attnError(
                f"training.{self.batch_key}: {size} is found when training begins: set a number"
            )
        return size

    @property
    def batch_setting(self) -> str:
        """The setting that limits the size of a batch, and its value, for messages."""
        return f"training.{self.batch_key} (now {self.batch_size:,})"

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
        if len({*self.metrics}) < len(self.metrics):
            twice = next(name for name in self.metrics if self.metrics.count(name) > 1)
            yield Fault("metrics", f"{twice} occurs twice: each metric has one score")
        if self.sharded and self.precision == "fp16":
            yield Fault("sharded", "fp16 scales losses in each process: use bf16")
        if self.sharded and getattr(self, self.batch_key) == "auto":
            yield Fault(
                self.batch_key, "auto tries a whole model on one device, not a sharded one: set a number"
            )
        if self.momentum and self.optimizer != "sgd":
            yield Fault("momentum", f"is an option of sgd, not of {self.optimizer}")


class LearningRecipe(AnyLearningRecipe):
    """Training settings of tasks that read texts."""

    batch_key = "batch_tokens"
    batch_tokens: BatchSize = Field(
        4096,
        description="Largest number of tokens in a batch, padding included; of pairs, on the side with more. "
        f"{AUTO_SIZE}",
    )


class PredictionTrainingRecipe(AnyLearningRecipe):
    """Training settings of tasks that predict tokens or labels."""

    loss: Annotated[Part, Choice(LOSSES)] = Field(
        "cross_entropy",
        validate_default=True,
        description="Loss of each predicted token or label. Validation always reports cross-entropy.",
    )
    label_smoothing: Rate = Field(
        0.0, description="Label smoothing: share of the probability spread over the vocabulary or all labels."
    )

    def token_loss(self) -> TokenLoss:
        """Return the loss. Seq2attnError if it cannot be constructed."""
        kind = LOSSES[self.loss.name]
        loss: TokenLoss = self.loss.make(LOSSES, *([self.label_smoothing] if kind.smooths else []))
        return loss

    def faults(self) -> Iterator[Fault]:
        """Find a loss that cannot be constructed, and label smoothing where the loss has none."""
        yield from super().faults()
        try:
            smooths = self.token_loss().smooths
        except Seq2attnError as error:
            yield Fault("loss", str(error))
            return
        if self.label_smoothing and not smooths:
            yield Fault("label_smoothing", f"the loss {self.loss.name} has none: set it to 0")


class TrainingRecipe(PredictionTrainingRecipe, LearningRecipe):
    """Training settings of translation."""

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


class TaggingTrainingRecipe(PredictionTrainingRecipe, LearningRecipe):
    """Training settings of tagging; a CRF has its own loss, without smoothing."""

    metric: Annotated[str, BestBy("tagged words")] = Field("f1", description=BEST)
    metrics: Annotated[list[TagMetric], Field(min_length=1), OneOrMore()] = Field(
        ["f1", "precision", "recall"], description=MEASURED_LABELS
    )


class ClassificationTrainingRecipe(PredictionTrainingRecipe, LearningRecipe):
    """Training settings of classification."""

    metric: Annotated[str, BestBy("labelled texts")] = Field("accuracy", description=BEST)
    metrics: Annotated[list[LabelMetric], Field(min_length=1), OneOrMore()] = Field(
        ["accuracy", "macro-f1"], description=MEASURED_LABELS
    )
