"""Images with boxes, as detection has them -> a store in the cache -> examples."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2attn.data.box_corpora import open_boxes
from seq2attn.data.box_rows import COLUMNS
from seq2attn.data.corpora import Role
from seq2attn.data.examples import Part
from seq2attn.data.images import ImageExamples, ImageKind, image_parts
from seq2attn.data.report import DataError, Report, silent
from seq2attn.images.decoding import ImageReader
from seq2attn.images.geometry import Boxes, Matrix, clipped, inverse, moved
from seq2attn.metrics.detection import Objects
from seq2attn.recipe.box_data import AnyBoxes, DetectionDataRecipe
from seq2attn.text.word_vocabulary import Labels

WITH_BOXES = ImageKind(open_boxes, COLUMNS)


def prepare_boxes(
    corpora: Sequence[AnyBoxes],
    data: DetectionDataRecipe,
    role: Role,
    progress: Callable[[Report], object] = silent,
) -> "BoxExamples":
    """Read and decode the images of corpora, and check their boxes; see `prepare_images`.

    Coordinates refer to the upright image, as its EXIF data turn it. A box that is not four finite numbers,
    is empty, reversed or outside of its image, or has an unknown class, is a bad line. With `bad_lines: skip`
    it is left out and counted, and its image stays. Boxes may stick out by a pixel, and are cut off there.

    Raises:
        DataError: data cannot be read, or there is a bad line and `data.bad_lines` is stop.
    """
    return BoxExamples(image_parts(corpora, data, role, WITH_BOXES, progress), data.reader())


def learn_box_labels(data: DetectionDataRecipe) -> Labels:
    """Return the labels of the boxes of training data and dev set, sorted. There may be a single one.

    DataError as `prepare_boxes`, and if there is no box.
    """
    train, dev = prepare_boxes(data.train, data, "train"), prepare_boxes([data.dev], data, "dev")
    names = sorted({*train.labels, *dev.labels})
    if not names:
        raise DataError("data.train: expected boxes, and no image has one")
    return Labels(names)


class BoxExamples(ImageExamples):
    """Images by number, each with its boxes. Made by `prepare_boxes`."""

    def __init__(self, parts: Sequence[Part], reader: ImageReader) -> None:
        super().__init__(parts, reader)
        chunks = [chunk for part in parts for chunk in part.stored.chunks]
        self._boxes = [{name: chunk.column(name) for name in COLUMNS} for chunk in chunks]
        #: The labels that boxes have, sorted.
        self.labels: list[str] = sorted(
            {label.as_py() for columns in self._boxes for label in columns["labels"].flatten().unique()}
        )

    def objects(self, number: int) -> Objects:
        """Return all objects of an image in its original pixels, for scoring; with crowds."""
        boxes, areas = (self._numbers(name, number, np.float64) for name in ("boxes", "areas"))
        crowds = self._numbers("crowds", number, np.bool_)
        return Objects(boxes.reshape(-1, 4), self._values("labels", number), crowds, areas)

    def boxes(self, number: int) -> NDArray[np.float32]:
        """Return the boxes of an image, (n, 4): left, top, right, bottom in pixels of `image(number)`.

        Crowds are left out, and so are boxes that resizing by `crop` has cut off (`images.geometry.clipped`).
        """
        return self._learned(number)[0].astype(np.float32)

    def labels_of(self, number: int) -> list[str]:
        """Return the labels of the boxes of an image."""
        return self._learned(number)[1]

    def original_size(self, number: int) -> tuple[int, int]:
        """Return the height and width of an image, upright, before it was resized."""
        height, width = self._values("original_size", number)
        return height, width

    def to_original(self, number: int) -> Matrix:
        """Return the matrix (2, 3) that takes a position of `image(number)` to that of the original image."""
        return self.reader.geometry(*self.original_size(number))[0]

    def image_id(self, number: int) -> int | str:
        """Return what the data call an image: in COCO its id, otherwise the name of its file without folder
        and suffix, or the number of its row."""
        (text,) = self._values("image_id", number)
        image_id: int | str = json.loads(text)
        return image_id

    @property
    def targets(self) -> list[str]:
        """The labels of the boxes of each image, with spaces between."""
        return [self.target_text(number) for number in range(len(self))]

    def target_text(self, number: int) -> str:
        """Return the labels of the boxes of an image, with spaces between."""
        return " ".join(self.labels_of(number))

    def references(self, number: int) -> list[str]:
        """See the base class."""
        return [self.target_text(number)]

    def _learned(self, number: int) -> tuple[Boxes, list[str]]:
        objects = self.objects(number)
        boxes = moved(objects.boxes, inverse(self.to_original(number)))
        size = float(self.widths[number]), float(self.heights[number])
        boxes, left = clipped(boxes, (0.0, 0.0, *size))
        left &= ~objects.crowds
        return boxes[left], [label for label, kept in zip(objects.labels, left, strict=True) if kept]

    def _numbers(self, name: str, number: int, kind: type[Any]) -> NDArray[Any]:
        return np.array(self._values(name, number), dtype=kind)

    def _values(self, name: str, number: int) -> list[Any]:
        chunk, row = self._find(number)
        values: list[Any] = self._boxes[chunk][name][row].as_py()
        return values
