"""The predictor of objects in images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2attn.attention.blocks import Map
from seq2attn.data.coco_ids import Id, category_ids
from seq2attn.errors import Seq2attnError
from seq2attn.images.decoding import Pixels
from seq2attn.images.geometry import inverse, moved
from seq2attn.inference.found_objects import FoundObject, FoundObjects
from seq2attn.inference.image_input import ReadImage, image_chunks, read_image, several
from seq2attn.inference.image_maps import ImageMap, ImageMaps
from seq2attn.inference.image_predictor import CHUNK, ImagePredictor
from seq2attn.layers.boxes import suppressed
from seq2attn.metrics.detection import Detections
from seq2attn.models.vision.detector import Candidates, ObjectDetector, QueryOutput
from seq2attn.recipe.box_data import DetectionDataRecipe

if TYPE_CHECKING:
    from seq2attn.inference.image_input import OneImage

OVERLAP = 0.7  # largest IoU of two boxes of a class
SURE, POSSIBLE = 0.25, 0.001  # least scores: of what is shown, and of what is scored
NO_IDS: Mapping[str, Id] = MappingProxyType({})
MOST_CANDIDATES, MOST = 3000, 300  # boxes of an image before and after suppression, the surest


class Detector(ImagePredictor[FoundObjects]):
    """Finds the objects in images. Returned by `seq2attn.load(run)`.

    data: the recipe's section, with a normalisation. categories: ids of labels in COCO's results; others have
        numbers of their own.
    """

    task, command = "detection", "detect"

    def __init__(
        self,
        model: ObjectDetector,
        data: DetectionDataRecipe,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        categories: Mapping[str, Id] = NO_IDS,
    ) -> None:
        super().__init__(model, data, device, precision)
        self.labels, self.category_ids = model.labels, category_ids(model.labels, categories)

    @overload
    def detect(  # type: ignore[overload-overlap]
        self, image: "OneImage", *, threshold: float = SURE
    ) -> FoundObjects: ...

    @overload
    def detect(self, image: "Sequence[OneImage]", *, threshold: float = SURE) -> list[FoundObjects]: ...

    def detect(self, image: Any, *, threshold: float = SURE) -> FoundObjects | list[FoundObjects]:
        """Return the objects in an image, or in each of a list of images: at most 300, from the surest on.

        Boxes are in pixels of the image as it is, upright. Of boxes of a class whose intersection over union
        is more than 0.7 the surest is kept, if the head predicts an object more than once.

        image: the path of a file, an image of Pillow, or 8-bit pixels (H, W) or (H, W, channels), as a numpy
            array. threshold: the least score of an object, from 0 to 1.

        Raises:
            ImageError: it is no image, or damaged; the message names the file.
        """
        results = list(self.stream(image if several(image) else [image], threshold))
        return results if several(image) else results[0]

    def stream(self, lines: Iterable[Any], threshold: float = SURE) -> Iterator[FoundObjects]:
        """See the base class: images, as `detect` takes them."""
        if not 0 <= threshold <= 1:
            raise Seq2attnError(f"expected a threshold of scores from 0 to 1, got {threshold}")
        for chunk in image_chunks(lines, self.original_reader, CHUNK):
            read = (self.read(pixels) for _, pixels in chunk)
            for (name, pixels), found in zip(chunk, self.detections(read, threshold), strict=True):
                yield self._result(name, pixels, found)

    def detections(self, images: Iterable[ReadImage], threshold: float = POSSIBLE) -> Iterator[Detections]:
        """Yield the objects of each image, in pixels of the original, from the surest on."""
        images = iter(images)
        while chunk := list(islice(images, CHUNK)):
            yield from self._detect_chunk(chunk, threshold)

    def maps(self, image: "OneImage") -> ImageMaps:
        """Return the maps of the network for an image: those of its attention blocks (`Block.look`), and for
        each object that a query has found, where the query attends."""
        return self._seen(image)[1]

    def _detect_chunk(self, images: list[ReadImage], threshold: float) -> list[Detections]:
        """Return the objects of some images, in their order."""
        results: dict[int, Detections] = {}
        for rows, output in self._outputs([image.pixels for image in images], self.output):
            candidates = output.candidates()
            for index, row in enumerate(rows):
                of_image = Candidates(*(part[index].cpu() for part in candidates))
                results[row] = self._detections(of_image, images[row], threshold)
        return [results[row] for row in range(len(images))]

    def _detections(self, candidates: Candidates, image: ReadImage, threshold: float) -> Detections:
        """Return the objects of an image, of its candidates (N, 4) and (N, K)."""
        height, width = image.pixels.shape[:2]
        limits = torch.tensor(
            [width, height, width, height], dtype=torch.float32, device=candidates.boxes.device
        )
        boxes = candidates.boxes.clamp(min=0).minimum(limits)
        boxes, classes, scores = best_boxes(boxes, candidates.scores, threshold, self.model.head.suppresses)
        labels = [self.labels[index] for index in classes.tolist()]
        original = moved(_numpy(boxes), image.to_original)
        return Detections(original, labels, _numpy(scores))

    def _result(self, name: str, pixels: Pixels, found: Detections) -> FoundObjects:
        objects = [
            FoundObject(label, score, (left, top, right, bottom))
            for label, score, (left, top, right, bottom) in zip(
                found.labels, found.scores.tolist(), found.boxes.tolist(), strict=True
            )
        ]
        return FoundObjects(name, pixels, objects, self.labels, self.category_ids)

    def _seen(self, image: Any) -> tuple[FoundObjects, ImageMaps]:
        """Return the result of an image, and its maps."""
        name, pixels = read_image(image, self.original_reader)
        read = self.read(pixels)
        maps, output = self._looked(read.pixels)
        candidates = Candidates(*(part[0].detach().cpu() for part in output.candidates()))
        result = self._result(name, pixels, self._detections(candidates, read, SURE))
        if isinstance(output, QueryOutput):
            maps += _of_queries(output, candidates.scores, self.labels)
        return result, ImageMaps(read, str(result), maps, "", lambda: _drawn(result, read))


def best_boxes(
    boxes: Tensor, scores: Tensor, threshold: float, suppress: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the boxes, classes and scores above a threshold, at most MOST, from the surest on.

    boxes: (N, 4); scores: (N, K), so that a box may stand for several classes; empty boxes are left out.
    suppress: leave out boxes of a class that overlap with a surer one.
    """
    solid = (boxes[:, 2:] > boxes[:, :2]).all(-1, keepdim=True)
    which, classes = ((scores > threshold) & solid).nonzero(as_tuple=True)
    values = scores[which, classes]
    order = values.sort(descending=True, stable=True).indices[:MOST_CANDIDATES]
    boxes, classes, values = boxes[which[order]], classes[order], values[order]
    if suppress:
        kept = suppressed(boxes, values, classes, OVERLAP)
        boxes, classes, values = boxes[kept], classes[kept], values[kept]
    return boxes[:MOST], classes[:MOST], values[:MOST]


def _drawn(found: FoundObjects, read: ReadImage) -> Pixels:
    """Return the image as the network has read it, with the boxes of the objects."""
    from seq2attn.views.boxes import drawn

    boxes = moved(np.array([one.box for one in found.objects]).reshape(-1, 4), inverse(read.to_original))
    labels, scores = [one.label for one in found.objects], [one.score for one in found.objects]
    return np.asarray(drawn(read.pixels, boxes, labels, scores, found.labels))


def _of_queries(output: QueryOutput, scores: Tensor, labels: Sequence[str]) -> list[ImageMap]:
    """Return where each query attends that has found an object, from the surest on; at least one."""
    best, classes = scores.max(-1)  # (r,)
    order = best.sort(descending=True, stable=True).indices.tolist()
    maps = []
    for query in order:
        if best[query] > SURE or query == order[0]:
            weights = output.weights[:1, :, query].mean(1, keepdim=True).unflatten(-1, output.grid)
            name = f"query {query}: {labels[int(classes[query])]} {float(best[query]):.2f}"
            map = Map("place", weights.detach().float().cpu(), output.grid)
            maps.append(ImageMap(name, f"head.queries.{query}", "pooling", map))
    return maps


def _numpy(tensor: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.double().numpy()
    return array
