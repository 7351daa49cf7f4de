"""The task that gives each pixel of an image a class."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from typing_extensions import Self

from seq2attn.data import Role
from seq2attn.data.batches import AnyBatchLoader
from seq2attn.data.mask_batches import MaskBatchLoader
from seq2attn.data.masks import MaskExamples, prepare_masks
from seq2attn.data.report import Report, silent
from seq2attn.inference.image_input import ReadImage
from seq2attn.inference.segmenter import Segmenter
from seq2attn.metrics import Score, defined_scores
from seq2attn.metrics.segmentation import confusion
from seq2attn.models.vision.factory import build_segmenter
from seq2attn.models.vision.segmenters import SegmentationNet
from seq2attn.recipe.segmentation import HeadNetRecipe, SegmentationRecipe
from seq2attn.runtime.distributed import ALONE, Group
from seq2attn.tasks.image_task import ImageTask
from seq2attn.tasks.task import Outputs, Units
from seq2attn.training.run_folder import RunFolder
from seq2attn.training.segmentation_objective import SegmentationObjective


class SegmentationTask(ImageTask[SegmentationRecipe]):
    """Segmentation of images."""

    units = Units("images", "pixels an image", "pixels")
    hub_name = "image-segmentation"
    refusal = (
        "a model for segmentation is scored on images with masks, not on texts: name them in data.test "
        "of its recipe, and leave --source and --references out"
    )

    def __init__(self, recipe: SegmentationRecipe) -> None:
        self.recipe = recipe

    @classmethod
    def learn(cls, recipe: SegmentationRecipe) -> Self:
        """See the base class: there is nothing to learn, as the recipe names the classes."""
        return cls(recipe)

    @classmethod
    def learned(cls, recipe: SegmentationRecipe) -> str:
        """See the base class."""
        return ""

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
        return prepare_masks(self.corpora(role), self.recipe.data, role, progress)

    def batches(self, examples: MaskExamples) -> AnyBatchLoader:
        """See the base class."""
        return MaskBatchLoader(examples, self.recipe.data, self.limits, self.recipe.seed)

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

    def outputs(
        self,
        predictor: Segmenter,
        examples: MaskExamples,
        rows: Sequence[int] | None = None,
        group: Group = ALONE,
    ) -> Outputs:
        """See the base class: the confusion matrix of each image, in the size of the image itself."""
        rows = range(len(examples)) if rows is None else rows
        classes = self.recipe.data.classes
        own = dict(group.share(rows))
        masks = predictor.masks(self._resized(examples, [*own.values()]))
        counts = {
            index: confusion(examples.labels(row), mask, len(classes)).tolist()
            for (index, row), mask in zip(own.items(), masks, strict=True)
        }
        return Outputs([np.array(matrix) for matrix in group.merged(counts)], classes)

    def undefined(
        self, examples: MaskExamples, rows: Sequence[int], metrics: Sequence[str]
    ) -> Mapping[str, str]:
        """See the base class."""
        classes = self.recipe.data.classes
        masks = map(examples.labels, rows)
        matrices = [confusion(mask, mask, len(classes)) for mask in masks]
        return defined_scores(matrices, classes, metrics, 0)[1]

    @property
    def baselines(self) -> Mapping[str, Callable[[Any], str]]:
        """See the base class: the class that most pixels of the training data have, for each pixel."""
        return {"majority": lambda _: self.recipe.data.classes[self._majority]}

    def score_baselines(self, inputs: Any, references: Any, metrics: Sequence[str]) -> dict[str, list[Score]]:
        """See the base class. references: the true classes of the pixels of each image."""
        count = len(self.recipe.data.classes)
        matrices = [confusion(truth, np.full_like(truth, self._majority), count) for truth in references]
        scores, _ = defined_scores(matrices, self.recipe.data.classes, metrics)
        return {"majority": [*scores.values()]}

    @cached_property
    def _majority(self) -> int:
        return int(self.examples("train").counts.argmax())

    def _resized(self, examples: MaskExamples, rows: Sequence[int]) -> Iterator[ReadImage]:
        """Yield images as the network reads them, with the way back to their own size."""
        reader = self.recipe.data.reader()
        for row in rows:
            size = examples.size(row)
            yield ReadImage(examples.image(row), reader.geometry(*size)[0], size)

    def summary(self, training: MaskExamples, dev: MaskExamples) -> Iterator[tuple[str, str]]:
        """See the base class: the share of each class, and blocks that are too wide for the images."""
        names, counts = self.recipe.data.classes, training.counts
        shares = 100 * counts / max(counts.sum(), 1)
        yield "classes", ", ".join(f"{name} {share:.1f} %" for name, share in zip(names, shares, strict=True))
        only_in_dev = (counts == 0) & (dev.counts > 0)
        if absent := [name for name, new in zip(names, only_in_dev, strict=True) if new]:
            yield "classes", f"only in data.dev, and so never learned: {', '.join(absent)}"
        sides = int(training.heights.max()), int(training.widths.max())
        yield from (("note", line) for line in self.recipe.model.grid_notes(*sides))
