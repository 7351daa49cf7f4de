"""The task that gives each pixel of an image a class."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import Self

from seq2attn.data import Role
from seq2attn.data.batches import AnyBatchLoader
from seq2attn.data.image_batches import beside_training
from seq2attn.data.image_plan import BatchLimits
from seq2attn.data.mask_batches import MaskBatchLoader
from seq2attn.data.masks import MaskExamples, prepare_masks
from seq2attn.data.report import Report, silent
from seq2attn.errors import Seq2attnError
from seq2attn.images.decoding import Pixels
from seq2attn.inference.predictor import Predictor
from seq2attn.inference.segmenter import Resized, Segmenter
from seq2attn.metrics import References, Score, score, tables
from seq2attn.metrics.segmentation import confusion
from seq2attn.models.vision.factory import build_segmenter
from seq2attn.models.vision.segmenters import SegmentationNet
from seq2attn.recipe.segmentation import HeadNetRecipe, SegmentationRecipe
from seq2attn.runtime.distributed import ALONE, Group
from seq2attn.tasks.task import Evaluation, Task, Units
from seq2attn.training.run_folder import RunFolder
from seq2attn.training.segmentation_objective import SegmentationObjective


class SegmentationTask(Task[SegmentationRecipe]):
    """Segmentation of images."""

    units = Units("images", "pixels an image", "pixels")

    def __init__(self, recipe: SegmentationRecipe) -> None:
        self.recipe = recipe

    @classmethod
    def learn(cls, recipe: SegmentationRecipe) -> Self:
        """See the base class: there is nothing to learn, as the recipe names the classes."""
        return cls(recipe)

    @classmethod
    def open(cls, recipe: SegmentationRecipe, folder: RunFolder) -> Self:
        """See the base class."""
        return cls(recipe)

    def files(self) -> dict[str, bytes]:
        """See the base class: none."""
        return {}

    @property
    def vocabulary(self) -> str:
        """See the base class."""
        return f"{len(self.recipe.data.classes)} classes"

    def examples(self, role: Role, progress: Callable[[Report], object] = silent) -> MaskExamples:
        """See the base class."""
        data = self.recipe.data
        return prepare_masks(data.train if role == "train" else [getattr(data, role)], data, role, progress)

    def inputs(self, examples: MaskExamples, rows: Sequence[int]) -> Iterator[Pixels]:
        """See the base class: pixels, already resized."""
        return map(examples.image, rows)

    def costs(self, examples: MaskExamples) -> NDArray[np.int32]:
        """See the base class: pixels."""
        return examples.heights * examples.widths

    def lengths(self, examples: MaskExamples) -> NDArray[np.int32]:
        """See the base class."""
        return self.costs(examples)

    def fitted(self, training: MaskExamples) -> Self:
        """See the base class; also mean and standard deviation of the pixels."""
        data = self.recipe.data.normalized_by(*training.mean_and_std())
        task = self.with_recipe(self.recipe.model_copy(update={"data": data}))
        return super(SegmentationTask, task).fitted(training)

    def loader(self, examples: MaskExamples, training: bool = False) -> AnyBatchLoader:
        """See the base class."""
        settings, data = self.recipe.training, self.recipe.data
        limits = BatchLimits(settings.batch_images, settings.batch_pixels)
        loader = MaskBatchLoader(examples, data, limits, self.recipe.seed)
        return beside_training(loader, data.workers) if training else loader

    def build(self) -> SegmentationNet:
        """See the base class."""
        data = self.recipe.data
        return build_segmenter(self.recipe.model, data.num_channels, data.classes)

    def objective(self, model: SegmentationNet, training: bool = False) -> SegmentationObjective:
        """See the base class: in training the losses of the recipe, else the cross-entropy of a pixel."""
        if not training:
            return SegmentationObjective()
        settings, network = self.recipe.training, self.recipe.model
        auxiliary = network.auxiliary if isinstance(network, HeadNetRecipe) else 0.0
        return SegmentationObjective(settings.token_loss(), settings.dice, auxiliary)

    def predictor(
        self, model: SegmentationNet, device: torch.device, precision: str = "fp32", validating: bool = False
    ) -> Segmenter:
        """See the base class."""
        return Segmenter(model, self.recipe.data, device, precision)

    def evaluate(
        self,
        predictor: Segmenter,  # type: ignore[override]
        examples: MaskExamples,
        metrics: Sequence[str],
        rows: Sequence[int] | None = None,
        bootstrap: int = 1000,
        group: Group = ALONE,
    ) -> Evaluation:
        """See the base class: by the confusion matrix of each image, in the size of the image itself."""
        rows = range(len(examples)) if rows is None else rows
        classes = self.recipe.data.classes
        own = dict(group.share(rows))
        masks = predictor.masks(self._resized(examples, [*own.values()]))
        counts = {
            index: confusion(examples.labels(row), mask, len(classes)).tolist()
            for (index, row), mask in zip(own.items(), masks, strict=True)
        }
        matrices = [np.array(matrix) for matrix in group.merged(counts)]
        scores = score(matrices, classes, metrics, bootstrap)
        details = tables(matrices, classes, metrics) if bootstrap else {}  # validation does not use them
        return Evaluation(dict(zip(metrics, scores, strict=True)), details)

    def evaluate_texts(
        self,
        predictor: Predictor,
        inputs: Iterable[Any],
        references: References,
        metrics: Sequence[str],
        bootstrap: int = 1000,
        group: Group = ALONE,
    ) -> Evaluation:
        """Seq2attnError: masks are no texts."""
        raise Seq2attnError(
            "a model for segmentation is scored on images with masks, not on texts: name them in data.test "
            "of its recipe, and leave --source and --references out"
        )

    @property
    def baselines(self) -> Mapping[str, Callable[[Any], str]]:
        """See the base class: the class that most pixels of the training data have, for each pixel."""
        return {"majority": lambda _: self.recipe.data.classes[self._majority]}

    def score_baselines(self, inputs: Any, references: Any, metrics: Sequence[str]) -> dict[str, list[Score]]:
        """See the base class. references: the true classes of the pixels of each image."""
        count = len(self.recipe.data.classes)
        matrices = [confusion(truth, np.full_like(truth, self._majority), count) for truth in references]
        return {"majority": score(matrices, self.recipe.data.classes, metrics)}

    @cached_property
    def _majority(self) -> int:
        return int(self.examples("train").counts.argmax())

    def _resized(self, examples: MaskExamples, rows: Sequence[int]) -> Iterator[Resized]:
        """Yield images as the network reads them, with the way back to their own size."""
        reader = self.recipe.data.reader()
        for row in rows:
            size = examples.size(row)
            yield Resized(examples.image(row), reader.geometry(*size)[0], size)

    def summary(self, training: MaskExamples, dev: MaskExamples) -> Iterator[tuple[str, str]]:
        """See the base class: the share of each class, and blocks that are too wide for the images."""
        names, counts = self.recipe.data.classes, training.counts
        shares = 100 * counts / max(counts.sum(), 1)
        yield "classes", ", ".join(f"{name} {share:.1f} %" for name, share in zip(names, shares, strict=True))
        only_in_dev = (counts == 0) & (dev.counts > 0)
        if absent := [name for name, new in zip(names, only_in_dev, strict=True) if new]:
            yield "classes", f"only in data.dev, and so never learned: {', '.join(absent)}"
        sides = int(training.heights.max()), int(training.widths.max())
        yield from (("note", line) for line in self.recipe.model.wide_rates(*sides))
