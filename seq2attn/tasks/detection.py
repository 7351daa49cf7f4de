"""The task of finding objects in images."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import StrictInt, StrictStr, TypeAdapter, ValidationError
from typing_extensions import Self

from seq2attn.data import Role
from seq2attn.data.batches import AnyBatchLoader
from seq2attn.data.box_batches import BoxBatchLoader
from seq2attn.data.boxes import BoxExamples, learn_box_labels, prepare_boxes
from seq2attn.data.coco_ids import Id, corpus_category_ids
from seq2attn.data.report import DataError, Report, silent
from seq2attn.inference.detector import NO_IDS, Detector
from seq2attn.inference.image_input import ReadImage
from seq2attn.layers.box_assignment import Alignment
from seq2attn.metrics.detection import Detections, box_report, box_scores, unfindable
from seq2attn.models.vision.detector import ObjectDetector
from seq2attn.models.vision.detector_factory import build_detector
from seq2attn.recipe.detection import DetectionRecipe, PointHeadRecipe, QueryHeadRecipe
from seq2attn.recipe.vision_model import ViTRecipe
from seq2attn.runtime.distributed import ALONE, Group
from seq2attn.tasks.image_task import LabelledImageTask
from seq2attn.tasks.task import LABELS, Evaluation, Outputs, Units, read_part
from seq2attn.text.word_vocabulary import Labels
from seq2attn.training.detection_objectives import (
    PointFactors,
    PointObjective,
    QueryFactors,
    QueryObjective,
)
from seq2attn.training.run_folder import RunFolder

CATEGORIES = "text/categories.json"  # the file of the ids that labels have in COCO's results
_IDS: TypeAdapter[dict[str, Id]] = TypeAdapter(dict[str, StrictInt | StrictStr])


class DetectionTask(LabelledImageTask[DetectionRecipe]):
    """Finding objects in images."""

    units = Units("images", "pixels an image", "boxes")
    hub_name = "object-detection"
    label_tensors = ("head.classes.",)
    refusal = (
        "a model for detection is scored on images with boxes, not on texts: name them in data.test of "
        "its recipe, and leave --source and --references out"
    )

    def __init__(
        self, recipe: DetectionRecipe, labels: Labels, categories: Mapping[str, Id] = NO_IDS
    ) -> None:
        super().__init__(recipe, labels)
        self.categories = categories  # the ids that labels have in COCO's results, if the data give them

    @classmethod
    def learn(cls, recipe: DetectionRecipe) -> Self:
        """See the base class: the labels of the boxes of the training data and the dev set."""
        labels, data = learn_box_labels(recipe.data), recipe.data
        return cls(recipe, labels, corpus_category_ids([*data.train, data.dev]))

    @classmethod
    def open(cls, recipe: DetectionRecipe, folder: RunFolder) -> Self:
        """See the base class."""
        labels = read_part(folder, LABELS, Labels.read)
        has_ids = CATEGORIES in folder.version.checksums
        return cls(recipe, labels, read_part(folder, CATEGORIES, _read_ids) if has_ids else NO_IDS)

    def files(self) -> dict[str, bytes]:
        """See the base class; also the ids of categories, if there are any."""
        ids = json.dumps(dict(self.categories), ensure_ascii=False).encode()
        return {**super().files(), **({CATEGORIES: ids} if self.categories else {})}

    @property
    def vocabulary(self) -> str:
        """See the base class."""
        count = len(self.labels.names)
        return f"{count} label{'s' if count > 1 else ''}"

    def examples(self, role: Role, progress: Callable[[Report], object] = silent) -> BoxExamples:
        """See the base class."""
        return prepare_boxes(self.corpora(role), self.recipe.data, role, progress)

    def batches(self, examples: BoxExamples) -> AnyBatchLoader:
        """See the base class."""
        return BoxBatchLoader(examples, self.labels, self.recipe.data, self.limits, self.recipe.seed)

    def build(self) -> ObjectDetector:
        """See the base class."""
        return build_detector(self.recipe.model, self.recipe.data.num_channels, self.labels.names)

    def objective(self, model: ObjectDetector, training: bool = False) -> PointObjective | QueryObjective:
        """See the base class."""
        head = self.recipe.model.head
        factors = head.loss.model_dump()
        if isinstance(head, QueryHeadRecipe):
            return QueryObjective(QueryFactors(**factors))
        alignment = Alignment(**{name: factors.pop(name) for name in Alignment._fields})
        return PointObjective(PointFactors(**factors), alignment)

    def predictor(
        self, model: Any, device: torch.device, precision: str = "fp32", validating: bool = False
    ) -> Detector:
        """See the base class."""
        return Detector(model, self.recipe.data, device, precision, self.categories)

    def evaluate(
        self,
        predictor: Detector,  # type: ignore[override]
        examples: BoxExamples,
        metrics: Sequence[str],
        rows: Sequence[int] | None = None,
        bootstrap: int = 1000,
        group: Group = ALONE,
    ) -> Evaluation:
        """See the base class; metrics that have nothing to find are undefined."""
        detections, objects = self.outputs(predictor, examples, rows, group)
        undefined = unfindable(objects, metrics)
        defined = [name for name in metrics if name not in undefined]
        scores = box_scores(detections, objects, defined, bootstrap)
        tables = {"boxes": box_report(detections, objects)} if bootstrap else {}  # not used in validation
        return Evaluation(dict(zip(defined, scores, strict=True)), tables, undefined)

    def outputs(
        self,
        predictor: Detector,
        examples: BoxExamples,
        rows: Sequence[int] | None = None,
        group: Group = ALONE,
    ) -> Outputs:
        """See the base class: all boxes with a score of more than 0.001, in pixels of the original images."""
        rows = range(len(examples)) if rows is None else rows
        own = dict(group.share(rows))
        images = (_read(examples, row) for row in own.values())
        found = zip(own, predictor.detections(images), strict=True)
        all_found = group.merged({index: detections.to_json() for index, detections in found})
        detections = [
            Detections(np.array(boxes).reshape(-1, 4), labels, np.array(scores))
            for boxes, labels, scores in all_found
        ]
        return Outputs(detections, [examples.objects(row) for row in rows])

    def undefined(
        self, examples: BoxExamples, rows: Sequence[int], metrics: Sequence[str]
    ) -> Mapping[str, str]:
        """See the base class."""
        return unfindable([examples.objects(row) for row in rows], metrics)

    def summary(self, training: BoxExamples, dev: BoxExamples) -> Iterator[tuple[str, str]]:
        """See the base class: how often each label occurs, sizes of boxes, and what cannot be found."""
        counts = Counter(label for row in range(len(training)) for label in training.labels_of(row))
        yield "boxes", ", ".join(f"{label} {count:,}" for label, count in counts.most_common(12))
        if absent := sorted({*dev.labels} - counts.keys()):
            yield "boxes", f"only in data.dev, and so never learned: {', '.join(absent)}"
        boxes = [training.boxes(row) for row in range(len(training))]
        if sum(counts.values()):
            sides = np.concatenate(boxes).reshape(-1, 2, 2)
            width, height = np.median(sides[:, 1] - sides[:, 0], axis=0)
            most = max(map(len, boxes))
            yield "boxes", f"median {width:.0f}x{height:.0f} pixels (width x height), up to {most} an image"
            yield from self._warnings(sides[:, 1] - sides[:, 0], most)
        backbone = self.recipe.model.backbone
        if not isinstance(backbone, ViTRecipe) and len(training.heights):
            largest = int(training.heights.max()), int(training.widths.max())
            yield from (("note", line) for line in backbone.grid_notes(*largest))

    def _warnings(self, sizes: NDArray[np.float32], most: int) -> Iterator[tuple[str, str]]:
        """Find boxes that are beyond what the head can predict. sizes: widths and heights; most: in an
        image."""
        head, strides = self.recipe.model.head, self.recipe.model.backbone.strides
        if isinstance(head, QueryHeadRecipe) and most > head.queries:
            yield (
                "note",
                f"an image has {most} boxes, and there are {head.queries} queries: raise model.head.queries",
            )
        if isinstance(head, PointHeadRecipe):
            reach = 2 * (head.bins - 1) * strides[-1]
            if (count := int((sizes.max(1) > reach).sum())) > 0:
                yield (
                    "note",
                    f"{count:,} boxes have a side of more than {reach} pixels, which no point can predict: "
                    "raise model.head.bins, or use a network with coarser grids",
                )


def _read_ids(content: bytes) -> dict[str, Id]:
    """Return the ids of labels. DataError if the content is another."""
    try:
        return _IDS.validate_json(content)
    except ValidationError as error:
        raise DataError("expected JSON with a number for each label") from error


def _read(examples: BoxExamples, row: int) -> ReadImage:
    """Return an image as the network reads it, with the way back to its own size."""
    return ReadImage(examples.image(row), examples.to_original(row), examples.original_size(row))
