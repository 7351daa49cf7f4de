"""Boxes as data have them: checked, and brought to one form."""

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from seq2attn.data.report import Report

COLUMNS = {  # of the store; each row has a list for each
    "boxes": "float64",  # four for each box: left, top, right, bottom, in pixels of the upright image
    "labels": "string",
    "crowds": "bool",
    "areas": "float64",
    "original_size": "int32",  # height, width
    "image_id": "string",  # one; as JSON
}
SLACK = 1.0  # pixels by which a box may stick out of its image, as rounding or counting from 1 makes it


class BoxForm(NamedTuple):
    """What the four numbers of a box are."""

    format: str = "xyxy"  # or xywh, cxcywh
    inclusive: bool = False  # pixels count from 1, and right and bottom are the last ones
    shares: bool = False  # of the image's width and height; otherwise pixels


class GivenBox(NamedTuple):
    """A box as the data have it."""

    numbers: Any  # should be four numbers
    label: str
    where: str  # file and line
    crowd: bool = False  # a region of many objects, or of one that is not to be judged
    area: float | None = None  # of the object itself, in pixels; None: that of the box


class GivenBoxes(NamedTuple):
    """The boxes of an image as the data have them."""

    boxes: Sequence[GivenBox]
    form: BoxForm
    image_id: int | str
    size: tuple[int, int] | None = None  # height and width as the data say; None: they do not

    def columns(self, height: int, width: int, where: str, report: Report) -> dict[str, list[Any]] | None:
        """See `Annotation`. A bad box is a bad line, and is left out; the image stays without it."""
        if self.size is not None and self.size != (height, width):
            stated = f"{self.size[1]} x {self.size[0]}"
            turned = ": it is turned by its EXIF data" if self.size == (width, height) else ""
            message = f"the image is {width} x {height} where the data say {stated}{turned}"
            report.bad("another size", where, message)
            return None
        kept = [
            (corners, box) for box in self.boxes if (corners := self._corners(box, height, width, report))
        ]
        return {
            "boxes": [number for corners, _ in kept for number in corners],
            "labels": [box.label for _, box in kept],
            "crowds": [box.crowd for _, box in kept],
            "areas": [_area(corners) if box.area is None else box.area for corners, box in kept],
            "original_size": [height, width],
            "image_id": [json.dumps(self.image_id)],
        }

    def _corners(self, box: GivenBox, height: int, width: int, report: Report) -> list[float] | None:
        """Return left, top, right and bottom of a box; None, and a bad line, if it is bad."""
        if (numbers := four_numbers(box.numbers)) is None:
            shown = json.dumps(box.numbers, default=str)[:60]
            report.bad("not a box", box.where, f"expected a box, four finite numbers; got {shown}")
            return None
        left, top, right, bottom = _corners(numbers, self.form, height, width)
        reach = float(
            self.form.inclusive and self.form.format == "xyxy"
        )  # of a box whose numbers are twice the same: where a mouse was clicked, not drawn
        shown = f"{box.label} {_shown(numbers)} ({self.form.format})"
        if right - left < reach or bottom - top < reach:
            what = "right is left of left, or bottom above top"
            if self.form.format != "xyxy":
                what = "its width or height is negative"
            report.bad("reversed box", box.where, f"{shown}: {what}; is format as in the data?")
        elif reach in (right - left, bottom - top):
            report.bad("empty box", box.where, f"{shown}: the box has no area")
        elif min(left, top) < -SLACK or right > width + SLACK or bottom > height + SLACK:
            message = (
                f"{shown}: the box is not within its image, {width} x {height}; is format as in the data?"
            )
            report.bad("box outside", box.where, message)
        else:
            inside = [max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))]
            if inside[0] < inside[2] and inside[1] < inside[3]:
                return inside
            report.bad("box outside", box.where, f"{shown}: the box is outside of its image")
        return None


def four_numbers(value: Any) -> list[float] | None:
    """Return a value as four finite numbers; None if it is something else."""
    if not isinstance(value, list | tuple) or len(value) != 4:
        return None
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in value):
        return None
    try:
        numbers = [float(number) for number in value]
    except OverflowError:  # an integer of hundreds of digits
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _corners(numbers: list[float], form: BoxForm, height: int, width: int) -> list[float]:
    first, second, third, fourth = numbers
    if form.shares:
        first, second, third, fourth = first * width, second * height, third * width, fourth * height
    if form.format == "cxcywh":
        first, second = first - third / 2, second - fourth / 2
    if form.format != "xyxy":
        third, fourth = first + third, second + fourth
    if form.inclusive:
        first, second = first - 1, second - 1
        if form.format != "xyxy":
            third, fourth = third - 1, fourth - 1
    return [first, second, third, fourth]


def _area(corners: Sequence[float]) -> float:
    left, top, right, bottom = corners
    return (right - left) * (bottom - top)


def _shown(numbers: Sequence[float]) -> str:
    return json.dumps([int(number) if number.is_integer() else round(number, 4) for number in numbers])
