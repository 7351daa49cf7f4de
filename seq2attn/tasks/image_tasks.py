"""Tasks of images: classification."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from typing_extensions import Self

from seq2attn.data import Role
from seq2attn.data.batches import AnyBatchLoader
from seq2attn.data.image_batches import ImageBatchLoader
from seq2attn.data.images import ImageExamples, learn_labels, prepare_images
from seq2attn.data.report import Report, silent
from seq2attn.inference.image_categorizer import RANKED, ImageCategorizer, ImageCategory
from seq2attn.models.vision.classifier import ImageClassifier
from seq2attn.models.vision.factory import build_image_classifier
from seq2attn.recipe.roots import ImageClassificationRecipe
from seq2attn.recipe.tagger_model import AttentivePoolingRecipe
from seq2attn.recipe.vision_model import ViTRecipe
from seq2attn.tasks.image_task import LabelledImageTask
from seq2attn.tasks.task import Units
from seq2attn.training.image_objective import ImageObjective


class ImageClassificationTask(LabelledImageTask[ImageClassificationRecipe]):
    """Classification of images."""

    units = Units("images", "pixels an image", "images")
    label_tensors = ("output.",)

    @classmethod
    def learn(cls, recipe: ImageClassificationRecipe) -> Self:
        """See the base class: the labels of the training data and the dev set."""
        return cls(recipe, learn_labels(recipe.data))

    @property
    def vocabulary(self) -> str:
        """See the base class."""
        return f"{len(self.labels.names)} labels"

    def examples(self, role: Role, progress: Callable[[Report], object] = silent) -> ImageExamples:
        """See the base class."""
        return prepare_images(self.corpora(role), self.recipe.data, role, progress)

    def batches(self, examples: ImageExamples) -> AnyBatchLoader:
        """See the base class."""
        return ImageBatchLoader(examples, self.labels, self.recipe.data, self.limits, self.recipe.seed)

    def build(self) -> ImageClassifier:
        """See the base class."""
        return build_image_classifier(self.recipe.model, self.recipe.data.num_channels, self.labels.names)

    def objective(self, model: ImageClassifier, training: bool = False) -> ImageObjective:
        """See the base class."""
        if not training:
            return ImageObjective()
        pooling = self.recipe.model.pooling
        penalty = pooling.penalty if isinstance(pooling, AttentivePoolingRecipe) else 0.0
        return ImageObjective(self.recipe.training.token_loss(), penalty)

    def predictor(
        self, model: Any, device: torch.device, precision: str = "fp32", validating: bool = False
    ) -> ImageCategorizer:
        """See the base class."""
        return ImageCategorizer(model, self.labels, self.recipe.data, device, precision)

    def scored_text(self, result: ImageCategory) -> str:
        """See the base class: the most probable labels, separated by tabs."""
        return "\t".join(result.ranked[:RANKED])

    @property
    def baselines(self) -> Mapping[str, Callable[[Any], str]]:
        """See the base class: the most frequent label of the training data."""
        return {"majority": lambda _: self._majority}

    @cached_property
    def _majority(self) -> str:
        counts = Counter(self.examples("train").targets)
        return max(sorted(counts), key=counts.__getitem__)

    def summary(self, training: ImageExamples, dev: ImageExamples) -> Iterator[tuple[str, str]]:
        """See the base class: how often each label occurs, and blocks that are too wide for the images."""
        counts = Counter(training.targets)
        yield "labels", ", ".join(f"{label} {count:,}" for label, count in counts.most_common(12))
        if absent := sorted(set(dev.targets) - counts.keys()):
            yield "labels", f"only in data.dev, and so never learned: {', '.join(absent)}"
        backbone = self.recipe.model.backbone
        if not isinstance(backbone, ViTRecipe) and len(training.heights):
            sides = int(training.heights.max()), int(training.widths.max())
            yield from (("note", line) for line in backbone.grid_notes(*sides))
