"""The base class of tasks: vocabulary, batches, model, loss, predictor and metrics of one kind of problem.

A new task needs a subclass and its line in TASKS, a recipe section (RECIPES), a predictor, and the command
that calls the predictor. Training, checking, scoring, comparing and loading are the same for all tasks.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from types import MappingProxyType
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from typing_extensions import Self

from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.data import Coders, DataError, Examples, Role, prepare
from seq2attn.data.batches import AnyBatchLoader
from seq2attn.data.examples import ExampleSet
from seq2attn.data.report import Report, silent
from seq2attn.errors import Seq2attnError
from seq2attn.inference.predictor import Predictor
from seq2attn.metrics import References, Score, defined_scores, tables, transposed
from seq2attn.recipe import AnyRecipe, AttentionRecipe, Section
from seq2attn.runtime.distributed import ALONE, Group
from seq2attn.training.loop import epoch_steps, total_steps
from seq2attn.training.objectives import Objective
from seq2attn.training.run_folder import RunError, RunFolder

LABELS = "text/labels.json"  # the file of labels among those of a task; all others are vocabularies
R = TypeVar("R", bound=AnyRecipe)
T = TypeVar("T")


Rows = Sequence[Sequence[int]]  # for each new row, the old ones whose mean it becomes; none: it is new


class Units(NamedTuple):
    """The names of a task's units, for reports."""

    examples: str  # of the data: "pairs"
    lengths: str  # of examples: "target pieces a sentence"
    targets: str  # over which the loss is averaged: "target tokens"


class Evaluation(NamedTuple):
    """The scores of a model by metric, and tables with details by name."""

    scores: dict[str, Score]
    tables: Mapping[str, Any] = MappingProxyType({})  # `str` of a table is for the terminal; it has to_json()
    undefined: Mapping[str, str] = MappingProxyType({})  # metrics without a value on these data, with reasons


class Outputs(NamedTuple):
    """What a model made of examples, and what it should have made, in the form that metrics compare."""

    hypotheses: Sequence[Any]
    references: Any


class Task(ABC, Generic[R]):
    """The base class of tasks. `learn` makes the task of a new run, `open` that of an existing run."""

    units: ClassVar[Units]
    # Beginnings of the names of tensors with a row for each label: if labels differ, `init` leaves them.
    label_tensors: ClassVar[tuple[str, ...]] = ()
    # Likewise of those with a row for each entry of a vocabulary.
    vocabulary_tensors: ClassVar[tuple[str, ...]] = ()

    hub_name: ClassVar[str] = ""  # what the Hugging Face hub calls the task; empty: as we do

    recipe: R

    # ---- vocabulary and batches --------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def learn(cls, recipe: R) -> Self:
        """Return the task of a recipe, with vocabularies learned from the training data."""

    @classmethod
    def keep(cls, recipe: R, folder: RunFolder) -> Self:
        """Return the task of a new run with the vocabularies of another, of a recipe of the same kind; labels
        are those of the training data."""
        return cls.learn(recipe)

    @classmethod
    @abstractmethod
    def open(cls, recipe: R, folder: RunFolder) -> Self:
        """Return the task of a run, with its vocabularies."""

    def rows_of(self, other: Self) -> Mapping[str, Rows]:
        """Return the rows of another run's tensors that stand for each entry of a vocabulary, by the names of
        those that have a row for each."""
        return {}

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """Return the vocabularies, by the names of their files in a run's folder."""

    @property
    @abstractmethod
    def vocabulary(self) -> str:
        """The sizes of the vocabularies, in a line for reports."""

    @abstractmethod
    def examples(self, role: Role, progress: Callable[[Report], object] = silent) -> ExampleSet:
        """Return the examples of train, dev or test. DataError if they cannot be read.

        progress: called now and then while they are read, with the counts so far.
        """

    @abstractmethod
    def inputs(self, examples: Any, rows: Sequence[int]) -> Iterable[Any]:
        """Return what the predictor reads of examples with these indices."""

    @abstractmethod
    def costs(self, examples: Any) -> NDArray[np.int32]:
        """Return what each example takes of the memory of a batch, in any unit: the longest most."""

    def fitted(self, training: Any) -> Self:
        """Return the task with the settings that its recipe leaves to the training data.

        Those of the vocabulary are already set by `learn`.
        """
        settings, loader = self.recipe.training, self.loader(training, training=True)
        settings = settings.fitted(total_steps(settings, loader), epoch_steps(settings, loader))
        return self.with_recipe(self.recipe.model_copy(update={"training": settings}))

    def with_recipe(self, recipe: R) -> Self:
        """Return the task with other settings, and the same vocabularies."""
        task = copy(self)
        task.recipe = recipe
        return task

    @abstractmethod
    def loader(self, examples: Any, training: bool = False, group: Group = ALONE) -> AnyBatchLoader:
        """Return a loader; in training, with the recipe's random changes, for a process of the group."""

    # ---- model and loss ----------------------------------------------------------------------------

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the model with random weights. Seed torch before the call."""

    def empty(self) -> nn.Module:
        """Return a model for loading weights into."""
        return self.build()

    @abstractmethod
    def objective(self, model: Any, training: bool = False) -> Objective:
        """Return the loss that the model is trained with or, if not training, validated with."""

    # ---- results and scores ------------------------------------------------------------------------

    @abstractmethod
    def predictor(
        self, model: Any, device: torch.device, precision: str = "fp32", validating: bool = False
    ) -> Any:
        """Return the model's predictor; for validation with the recipe's faster settings."""

    def evaluate(
        self,
        predictor: Predictor,
        examples: Any,
        metrics: Sequence[str],
        rows: Sequence[int] | None = None,
        bootstrap: int = 1000,
        group: Group = ALONE,
    ) -> Evaluation:
        """Score a model on examples, or on those with the indices `rows`.

        group: the processes that share the work; all of them get the scores.
        """
        return evaluated(self.outputs(predictor, examples, rows, group), metrics, bootstrap)

    def outputs(
        self,
        predictor: Any,
        examples: Any,
        rows: Sequence[int] | None = None,
        group: Group = ALONE,
    ) -> Outputs:
        """Return what metrics compare of examples, or of those with the indices `rows`.

        The default is texts. Tasks with other results (boxes, masks) override it.
        """
        rows = range(len(examples)) if rows is None else rows
        texts = self.output_texts(predictor, self.inputs(examples, rows), group)
        return Outputs(texts, reference_texts(examples, rows))

    def evaluate_texts(
        self,
        predictor: Predictor,
        inputs: Iterable[Any],
        references: References,
        metrics: Sequence[str],
        bootstrap: int = 1000,
        group: Group = ALONE,
    ) -> Evaluation:
        """Score a model on what its predictor reads, and the references."""
        texts = self.output_texts(predictor, inputs, group)
        return evaluated(Outputs(texts, references), metrics, bootstrap)

    def output_texts(
        self, predictor: Predictor, inputs: Iterable[Any], group: Group = ALONE
    ) -> Sequence[str]:
        """Return the results of what the predictor reads, in the form that metrics take."""
        own = group.share(inputs)
        results = predictor.stream_share((given for _, given in own), group.rank, group.size)
        return group.merged(
            {index: self.scored_text(result) for (index, _), result in zip(own, results, strict=True)}
        )

    def undefined(self, examples: Any, rows: Sequence[int], metrics: Sequence[str]) -> Mapping[str, str]:
        """Return the metrics that have no value on examples, whatever the results, with the reasons.

        The default scores the references themselves, as texts. Tasks that override `evaluate` override it.
        """
        own = [examples.target_text(row) for row in rows]
        return defined_scores(own, reference_texts(examples, rows), metrics, 0)[1]

    def scored_text(self, result: Any) -> str:
        """Return a result in the form that metrics take."""
        return str(result)

    def measured_by(self, features: str) -> Self:
        """Return the task with metrics by the features of a run. Seq2attnError if its metrics need none."""
        raise Seq2attnError(
            f"--features are for models that generate images, and this one was trained for {self.recipe.task}"
        )

    def illustration(self, predictor: Any) -> bytes | None:
        """Return a picture (PNG) of what the model can do at a validation; None: there is none."""
        return None

    def evaluate_baselines(self, examples: Any, metrics: Sequence[str]) -> dict[str, list[Score]]:
        """Return the scores of the baselines on examples, by name."""
        if not self.baselines:
            return {}
        rows = range(len(examples))
        return self.score_baselines(self.inputs(examples, rows), reference_texts(examples, rows), metrics)

    @property
    def baselines(self) -> Mapping[str, Callable[[Any], str]]:
        """Functions that make a result of an input without a model, by name."""
        return {}

    def score_baselines(
        self, inputs: Iterable[Any], references: References, metrics: Sequence[str]
    ) -> dict[str, list[Score]]:
        """Return the scores of the baselines, by name."""
        return {
            name: [*defined_scores([baseline(given) for given in inputs], references, metrics)[0].values()]
            for name, baseline in self.baselines.items()
        }

    @classmethod
    def pair_fault(cls, source: str, reference: str) -> str | None:
        """Return the fault of a pair, None if it is valid. Its placeholder {source} is for the name of the
        source."""
        return None

    @classmethod
    def learned(cls, recipe: R) -> str:
        """Return in words what `learn` makes from the training data; empty if nothing."""
        return "the vocabulary"

    # ---- for `seq2attn check` ----------------------------------------------------------------------

    @abstractmethod
    def lengths(self, examples: Any) -> NDArray[np.int32]:
        """Return the lengths of examples, in the units that `units.lengths` names."""

    @classmethod
    def warnings(cls, recipe: R) -> Iterator[str]:
        """Yield warnings of valid settings that are probably unintended."""
        for path, section in _attentions(recipe.model, "model"):
            name = section.normalize.name
            if NORMALIZERS[name].samples() and not cls.reinforced(recipe, path):
                yield (
                    f"{path}.normalize: no loss reinforces the samples of {name}, so that attention learns "
                    "only from batches without sampling (soft_rate); for attention to the source, set "
                    "training.attention_losses.reinforce"
                )

    @classmethod
    def reinforced(cls, recipe: R, path: str) -> bool:
        """Return whether the loss reinforces the samples of the attention at a path of the recipe."""
        return False

    def summary(self, training: Any, dev: Any) -> Iterator[tuple[str, str]]:
        """Yield additional lines of the report on the data, each with its heading."""
        yield from ()


class TextTask(Task[R]):
    """The base class of tasks that read pairs of texts."""

    @property
    @abstractmethod
    def coders(self) -> Coders:
        """The encoders of source and target texts into ids."""

    def examples(self, role: Role, progress: Callable[[Report], object] = silent) -> Examples:
        """See the base class: tokenised pairs.

        DataError also if dev or test has only empty ones, which any model would get right;
        or if the model cannot read the dev set, which validation needs whole (training data are filtered, and
        texts of later use are truncated).
        """
        data = self.reading(role)
        if not data.train:
            raise DataError(
                f"data.{role}: an imported model has no data: score it with files, or train another run that "
                "starts from it (init), with data of its own"
            )
        corpora = data.train if role == "train" else [getattr(data, role)]
        examples = prepare(corpora, data, self.coders, role, progress, self.recipe.text.words)
        if not np.minimum(examples.source_lengths, examples.target_lengths).any():
            raise DataError(
                f"data.{role}: expected {self.units.examples} with text on both sides, and all "
                f"{len(examples):,} are empty on one side or both"
            )
        if role == "dev":
            self._require_readable(examples)
        return examples

    def reading(self, role: Role) -> Any:
        """Return the recipe's data section with all that reading a data set depends on."""
        return self.recipe.data

    @property
    def max_lengths(self) -> Mapping[str, int]:
        """The largest lengths of sources and targets that the model can read, by the part that reads them
        (`encoder`, `decoder`), if there are any."""
        return {}

    def _require_readable(self, dev: Examples) -> None:
        sides = ("encoder", "source", dev.source_lengths), ("decoder", "target", dev.target_lengths)
        for part, side, lengths in sides:
            longest, limit = int(lengths.max(initial=0)), self.max_lengths.get(part)
            if limit is not None and longest > limit:
                raise DataError(
                    f"data.dev: example {int(lengths.argmax())} has a {side} of length {longest:,}, and with "
                    f"its learned positions the {part} can read {limit:,}: raise "
                    f"model.{part}.positions.length by {longest - limit:,}, use other positions, or leave "
                    "long examples out of the dev set"
                )

    def inputs(self, examples: Examples, rows: Sequence[int]) -> list[str]:
        """See the base class: source texts."""
        return [examples.source_text(row) for row in rows]

    def costs(self, examples: Examples) -> NDArray[np.int32]:
        """See the base class: pieces or words on both sides."""
        costs: NDArray[np.int32] = examples.source_lengths + examples.target_lengths
        return costs

    def lengths(self, examples: Examples) -> NDArray[np.int32]:
        """See the base class: those of targets."""
        return examples.target_lengths


def evaluated(outputs: Outputs, metrics: Sequence[str], bootstrap: int) -> Evaluation:
    """Return the scores of outputs, and, unless for validation (bootstrap 0), the tables of the metrics."""
    scores, undefined = defined_scores(*outputs, metrics, bootstrap)
    details = tables(*outputs, metrics) if bootstrap else {}
    return Evaluation(scores, details, undefined)


def read_part(folder: RunFolder, name: str, read: Callable[[bytes], T]) -> T:
    """Return what a function makes of a file of a run. RunError, with the file's name, if it refuses it."""
    content = folder.content(name)
    try:
        return read(content)
    except Seq2attnError as error:
        raise RunError(f"{folder.path / name} is damaged: {error}") from error


def _attentions(part: Any, path: str) -> Iterator[tuple[str, AttentionRecipe]]:
    """Yield every attention of a recipe section, with its path."""
    if isinstance(part, AttentionRecipe):
        yield path, part
    elif isinstance(part, Section):
        for name in type(part).model_fields:
            yield from _attentions(getattr(part, name), f"{path}.{name}")
    elif isinstance(part, list):
        for index, inner in enumerate(part):
            yield from _attentions(inner, f"{path}.{index}")


def reference_texts(examples: ExampleSet, rows: Sequence[int]) -> References:
    """Return the references of examples, in the form that metrics take."""
    lists = transposed([examples.references(row) for row in rows])
    return lists if len(lists) > 1 else [examples.target_text(row) for row in rows]
