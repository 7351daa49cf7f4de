"""What a recipe may say about training and decoding, section by section."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Literal, get_args

from pydantic import Field

from seq2attn.metrics.base import Measured
from seq2attn.metrics.registry import metrics_of
from seq2attn.optim import OPTIMIZERS, SCHEDULES
from seq2attn.recipe.sections import Choice, Count, Fault, Name, OneOrMore, Part, Rate, Section, Size
from seq2attn.runtime.devices import PRECISIONS

Factor = Annotated[float, Field(ge=0)]


class MetricOf(Name):
    """Marks a text field that takes the name of a metric of this kind of output."""

    def __init__(self, measures: Measured) -> None:
        super().__init__(partial(metrics_of, measures))


class BestBy(Name):
    """Marks a text field that takes `loss`, or the name of a metric of this kind of output."""

    def __init__(self, measures: Measured) -> None:
        super().__init__(lambda: ["loss", *metrics_of(measures)])


TextMetric = Annotated[str, MetricOf("texts")]
TagMetric = Annotated[str, MetricOf("tagged words")]
LabelMetric = Annotated[str, MetricOf("labelled texts")]
BEST = "What makes a checkpoint the best."
MEASURED = "What is measured: at the end, by `score`, and (ter is too slow for it) in validation."

# ---- training ---------------------------------------------------------------------------------------


class EarlyStopping(Section):
    """Stop when validation has not improved."""

    patience: Size = Field(5, description="So many validations without a new best.")


class AttentionLossesRecipe(Section):
    """What attention is taught besides: a loss for each token, times its factor here; 0 = not."""

    coverage: Factor = Field(0.0, description="Looking again where has been looked (See et al. 2017).")
    doubly_stochastic: Factor = Field(
        0.0, description="Slots that are not looked at once in all (Xu et al. 2015)."
    )
    guided: Factor = Field(0.0, description="Looking where gold alignments do not (Garg et al. 2019).")
    reinforce: Factor = Field(
        0.0, description="Drawing slots from which a sentence is unlikely; for hard (Xu et al. 2015)."
    )
    entropy: Factor = Field(0.0, description="Weights that are sure of themselves; goes with reinforce.")
    layer: int | None = Field(
        None,
        description="Of a Transformer, from 0 (-1 = the last), for the first three; null = the last, and for "
        "guided the one before; with copying, its own.",
    )
    head: Count | None = Field(
        None,
        description="For the first three, from 0; null = the mean of all, and for guided the first; with "
        "copying and no layer, its own.",
    )

    def factors(self) -> dict[str, float]:
        """The losses that are wanted, by name, and what each is multiplied by."""
        names = ("coverage", "doubly_stochastic", "guided", "reinforce", "entropy")
        return {name: factor for name in names if (factor := getattr(self, name))}

    def faults(self) -> Iterator[Fault]:
        """Losses without one are a mistake."""
        if not self.factors():
            yield Fault("", "names no loss: give one a factor, as in {coverage: 1.0}, or set it to null")


class LearningRecipe(Section):
    """How any model learns. Steps count updates; metrics are those of the task."""

    optimizer: Annotated[str, Name(lambda: OPTIMIZERS)] = Field(
        "adamw", description="What updates the weights."
    )
    learning_rate: float = Field(1e-3, gt=0, description="At its highest.")
    schedule: Annotated[Part, Choice(SCHEDULES)] = Field(
        "constant", validate_default=True, description="How the learning rate goes."
    )
    weight_decay: float = Field(0.0, ge=0, description="Of matrices; vectors (biases, norms) are spared.")
    betas: tuple[Rate, Rate] = Field((0.9, 0.98), description="Of adam and adamw.")
    eps: float = Field(1e-8, gt=0, description="Of adam and adamw.")
    momentum: Rate = Field(0.0, description="Of sgd.")
    clip: float | None = Field(
        1.0, gt=0, description="Largest gradient norm of an update; null = no clipping."
    )
    batch_tokens: Size = Field(4096, description="Tokens of a batch on its longer side, padding included.")
    accumulate: Size = Field(1, description="Batches per update; the loss is exact over all their tokens.")
    max_steps: Size | None = Field(None, description="The end, in updates.")
    max_epochs: Size | None = Field(None, description="The end, in passes through the data.")
    max_minutes: float | None = Field(None, gt=0, description="The end, in minutes of training.")
    validate_every: Size = Field(500, description="Steps between validations (and checkpoints).")
    save_every: Size | None = Field(None, description="Steps between checkpoints, if more often.")
    log_every: Size = Field(50, description="Steps between lines in log.jsonl.")
    metric: str = Field(description=BEST)
    metrics: Sequence[str] = Field(description=MEASURED)
    early_stopping: EarlyStopping | None = Field(None, description="End when nothing improves.")
    keep_best: Size = Field(1, description="So many best checkpoints stay.")
    keep_last: Size = Field(1, description="So many last checkpoints stay.")
    average: Count = Field(0, description="At the end, average the last so many checkpoints; 0 = no.")
    ema: Rate = Field(0.0, description="Decay of an exponential moving average of the weights; 0 = none.")
    precision: Annotated[str, Name(lambda: PRECISIONS)] = Field("fp32", description="Of the computation.")
    deterministic: bool = Field(False, description="Only deterministic kernels (slower on a GPU).")
    tensorboard: bool = Field(
        False, description="Also write TensorBoard logs (pip install seq2attn[tensorboard])."
    )

    @classmethod
    def measurable(cls) -> tuple[str, ...]:
        """Return the names of all metrics that fit the task."""
        (name,) = get_args(cls.model_fields["metrics"].annotation)
        _, marker = get_args(name)
        return tuple(marker.names())

    def faults(self) -> Iterator[Fault]:
        """An end, and enough checkpoints for what is asked of them."""
        ends = (self.max_steps, self.max_epochs, self.max_minutes, self.early_stopping)
        if all(end is None for end in ends):
            yield Fault("", "needs an end: set max_steps, max_epochs, max_minutes or early_stopping")
        if SCHEDULES[self.schedule.name].needs_total and self.max_steps is None and self.max_epochs is None:
            yield Fault(
                "schedule", f"{self.schedule.name} needs to know the end: set max_steps or max_epochs"
            )
        if self.average > self.keep_last:
            yield Fault(
                "average", f"averages {self.average} checkpoints but keep_last keeps {self.keep_last}"
            )
        if self.average and self.ema:
            yield Fault("average", "average and ema are two ways to one end: choose one")
        if self.momentum and self.optimizer != "sgd":
            yield Fault("momentum", f"belongs to sgd, not to {self.optimizer}")


class TrainingRecipe(LearningRecipe):
    """How a model learns that translates."""

    label_smoothing: Rate = Field(0.0, description="Share of the target spread over the vocabulary.")
    attention_losses: AttentionLossesRecipe | None = Field(None, description="What attention is taught.")
    metric: Annotated[str, BestBy("texts")] = Field("bleu", description=BEST)
    metrics: Annotated[list[TextMetric], Field(min_length=1), OneOrMore()] = Field(
        ["bleu", "chrf", "ter"], description=MEASURED
    )


class SummaryTrainingRecipe(TrainingRecipe):
    """How a model learns that summarizes."""

    metric: Annotated[str, BestBy("texts")] = Field("rouge-l", description=BEST)
    metrics: Annotated[list[TextMetric], Field(min_length=1), OneOrMore()] = Field(
        ["rouge-1", "rouge-2", "rouge-l", "rouge-lsum"], description=MEASURED
    )


class TaggingTrainingRecipe(LearningRecipe):
    """How a model learns that tags words."""

    label_smoothing: Rate = Field(0.0, description="Share of a label spread over all; not with a CRF.")
    metric: Annotated[str, BestBy("tagged words")] = Field("f1", description=BEST)
    metrics: Annotated[list[TagMetric], Field(min_length=1), OneOrMore()] = Field(
        ["f1", "precision", "recall"], description=MEASURED
    )


class ClassificationTrainingRecipe(LearningRecipe):
    """How a model learns that labels sentences."""

    label_smoothing: Rate = Field(0.0, description="Share of a label spread over all.")
    metric: Annotated[str, BestBy("labelled texts")] = Field("accuracy", description=BEST)
    metrics: Annotated[list[LabelMetric], Field(min_length=1), OneOrMore()] = Field(
        ["accuracy", "macro-f1"], description=MEASURED
    )


# ---- decoding ---------------------------------------------------------------------------------------


class DecodingRecipe(Section):
    """How translations are searched for; the defaults of `translate` and `score`."""

    beam: Annotated[int, Field(ge=1, le=500)] = Field(
        5, description="Hypotheses that are followed; 1 = greedy."
    )
    length_normalization: Literal["gnmt", "simple", "none"] = Field(
        "simple", description="gnmt: ((5 + n) / 6)^penalty (Wu et al. 2016); simple: n^penalty."
    )
    length_penalty: float = Field(1.0, ge=0, le=10, description="The penalty in length_normalization.")
    coverage_penalty: float = Field(
        0.0,
        ge=0,
        description="Times log min(1, attention) of each source piece (Wu et al. 2016); 0 = none. With "
        "sample it only ranks the draws of a sentence.",
    )
    min_length: Count = Field(0, description="Fewest pieces of a translation.")
    max_length: Size = Field(256, description="Most pieces of a translation.")
    max_length_ratio: float = Field(3.0, gt=0, description="Most pieces per source piece (plus 10).")
    max_source: Size = Field(
        1024, description="Most pieces of a source; a longer one is cut, with a warning."
    )
    no_repeat_ngram: Count = Field(0, description="No n-gram of so many pieces twice; 0 = no limit.")
    replace_unknown: bool = Field(False, description="Unknown pieces become the source word looked at most.")
    batch_tokens: Size = Field(4096, description="Source tokens times beam that are worked on at once.")
    validation_beam: Size = Field(1, description="The beam while training.")
    nbest: Size = Field(1, description="So many translations of each sentence, at most the beam.")
    sample: bool = Field(False, description="Draw translations at random instead of searching for the best.")
    temperature: float = Field(1.0, gt=0, description="Of sampling: below 1 is safer, above 1 more varied.")
    top_k: Count = Field(0, description="Sample from the k likeliest pieces; 0 = from all.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Sample from the likeliest pieces of this total probability."
    )
    seed: Count = Field(1, description="Of sampling; sentence n of an input always draws the same.")

    def faults(self) -> Iterator[Fault]:
        """Lengths in order."""
        if self.min_length > self.max_length:
            yield Fault("min_length", f"{self.min_length} is more than max_length {self.max_length}")
        if not self.sample and self.nbest > self.beam:
            yield Fault(
                "nbest", f"{self.nbest} translations need a beam of at least {self.nbest}, not {self.beam}"
            )
