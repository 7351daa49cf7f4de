"""The base classes of tasks that read images."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from seq2attn.data import Role
from seq2attn.data.batches import AnyBatchLoader
from seq2attn.data.image_batches import beside_training
from seq2attn.data.image_plan import BatchLimits
from seq2attn.data.images import ImageExamples
from seq2attn.errors import Seq2attnError
from seq2attn.images.decoding import Pixels
from seq2attn.inference.predictor import Predictor
from seq2attn.runtime.distributed import ALONE, Group
from seq2attn.tasks.task import LABELS, R, Task, read_part
from seq2attn.text.word_vocabulary import Labels
from seq2attn.training.run_folder import RunFolder


class ImageTask(Task[R]):
    """The base class of tasks that read images."""

    refusal: ClassVar[str] = ""  # why results are not scored as texts; empty: they are

    def corpora(self, role: Role) -> list[Any]:
        """Return the corpora of train, dev or test."""
        data = self.recipe.data
        return list(data.train) if role == "train" else [getattr(data, role)]

    def inputs(self, examples: ImageExamples, rows: Sequence[int]) -> Iterator[Pixels]:
        """See the base class: pixels, already resized."""
        return map(examples.image, rows)

    def costs(self, examples: ImageExamples) -> NDArray[np.int32]:
        """See the base class: pixels."""
        return examples.heights * examples.widths

    def lengths(self, examples: ImageExamples) -> NDArray[np.int32]:
        """See the base class."""
        return self.costs(examples)

    def fitted(self, training: ImageExamples) -> Self:
        """See the base class; also mean and standard deviation of the pixels, and the largest image."""
        largest = int(self.costs(training).max(initial=0))
        data = self.recipe.data.fitted(*training.mean_and_std(), largest)
        task = self.with_recipe(self.recipe.model_copy(update={"data": data}))
        return super(ImageTask, task).fitted(training)

    def loader(self, examples: Any, training: bool = False, group: Group = ALONE) -> AnyBatchLoader:
        """See the base class."""
        loader, recipe = self.batches(examples), self.recipe
        if not training:
            return loader
        return beside_training(loader, recipe.data.workers, group, recipe.training.accumulate)

    @classmethod
    def learned(cls, recipe: R) -> str:
        """See the base class."""
        return "the labels"

    @abstractmethod
    def batches(self, examples: Any) -> AnyBatchLoader:
        """Return a loader that prepares a batch when it is asked for it."""

    @property
    def limits(self) -> BatchLimits:
        """The limits of a batch."""
        settings = self.recipe.training
        return BatchLimits(settings.batch_size, settings.batch_pixels)

    def output_texts(
        self, predictor: Predictor, inputs: Iterable[Any], group: Group = ALONE
    ) -> Sequence[str]:
        """See the base class. Seq2attnError if results are no texts."""
        if self.refusal:
            raise Seq2attnError(self.refusal)
        return super().output_texts(predictor, inputs, group)


class LabelledImageTask(ImageTask[R]):
    """The base class of tasks whose images, or boxes in them, have labels."""

    def __init__(self, recipe: R, labels: Labels) -> None:
        self.recipe, self.labels = recipe, labels

    @classmethod
    def open(cls, recipe: R, folder: RunFolder) -> Self:
        """See the base class."""
        return cls(recipe, read_part(folder, LABELS, Labels.read))

    def files(self) -> dict[str, bytes]:
        """See the base class."""
        return {LABELS: self.labels.content}
