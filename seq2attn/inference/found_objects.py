"""The objects in an image, as a predictor returns them."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from seq2attn.images.decoding import Pixels
from seq2attn.views.html_table import block, pale

if TYPE_CHECKING:
    from PIL.Image import Image

_SHOWN = 5  # objects, in text


class FoundObject(NamedTuple):
    """An object in an image."""

    label: str
    score: float  # from 0 to 1: the higher, the surer
    box: tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the image as it is

    def __str__(self) -> str:
        return f"{self.label} {self.score:.2f}"


@dataclass(frozen=True, eq=False, repr=False)
class FoundObjects:
    """An image and the objects that are in it, from the surest on. `str` gives their labels and scores."""

    name: str  # of the image's file; "" if it came from memory
    pixels: Pixels  # (H, W, C), upright, in its own size
    objects: list[FoundObject]
    labels: list[str]  # of all classes that the model knows
    category_ids: Mapping[str, int | str]  # of all labels, in COCO's results

    def __len__(self) -> int:
        return len(self.objects)

    def __str__(self) -> str:
        more = [f"and {len(self) - _SHOWN} more"] if len(self) > _SHOWN else []
        return ", ".join([*map(str, self.objects[:_SHOWN]), *more]) or "nothing"

    def __repr__(self) -> str:
        height, width = self.pixels.shape[:2]
        return f"FoundObjects({width} x {height}: {self})"

    def plot(self, path: str | Path | None = None) -> "Image":
        """Return a picture of the image with the boxes of the objects, their labels and scores; save it if a
        path is given, which ends in .png."""
        from seq2attn.views.boxes import drawn
        from seq2attn.views.pictures import write_png

        boxes, scores = [one.box for one in self.objects], [one.score for one in self.objects]
        image = drawn(self.pixels, boxes, [one.label for one in self.objects], scores, self.labels)
        if path is not None:
            image.save(content := BytesIO(), "PNG")
            write_png(path, content.getvalue)
        return image

    def to_json(self) -> dict[str, Any]:
        """Return a value for json.dumps: the objects with their boxes [left, top, right, bottom]."""
        objects = [
            {"label": one.label, "score": round(one.score, 4), "box": _rounded(one.box)}
            for one in self.objects
        ]
        return {"image": self.name, "objects": objects}

    def to_coco(
        self, image_id: int | str | None = None, category_ids: Mapping[str, int | str] | None = None
    ) -> list[dict[str, Any]]:
        """Return the objects in the form in which COCO has results, [left, top, width, height].

        image_id: None: the name of the file without folder and suffix, as a number if it is one.
        category_ids: of all labels; None: those of the model's training data, if these were files of COCO, or
            else the number of the label among all of the model's, from 1.
        """
        image_id = image_id_of(self.name) if image_id is None else image_id
        category_ids = self.category_ids if category_ids is None else category_ids
        lines = []
        for one in self.objects:
            left, top, right, bottom = one.box
            lines.append(
                {
                    "image_id": image_id,
                    "category_id": category_ids[one.label],
                    "bbox": _rounded((left, top, right - left, bottom - top)),
                    "score": round(one.score, 5),
                    "label": one.label,
                }
            )
        return lines

    def _repr_html_(self) -> str:
        """The image with its boxes, small, its name, and the objects, for notebooks."""
        from seq2attn.views.thumbnails import thumbnail

        picture = thumbnail(np.asarray(self.plot()), str(self))
        return block(f"{picture} {escape(self.name)} {pale(escape(str(self)))}")


def image_id_of(name: str) -> int | str:
    """Return the id of an image in COCO's results: its name without folder and suffix, as a number if it is
    one."""
    stem = Path(name).stem
    return int(stem) if stem.isdecimal() else stem


def _rounded(numbers: tuple[float, ...]) -> list[float]:
    return [round(number, 2) for number in numbers]
