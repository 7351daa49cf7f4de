"""Boxes with labels and scores, drawn on an image."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from matplotlib import font_manager
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from seq2attn.views.fonts import font_families
from seq2attn.views.pictures import PlotError, shortened

# Told apart with any colour vision (Okabe and Ito 2008), with grey for black, which dark images would hide.
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999")
SMALLEST = 480  # pixels of the longer side: smaller images are drawn enlarged, so that texts can be read
_SHARE = 45  # of the longer side, to the height of a letter
_LETTERS = 24  # of a label

Rectangle = tuple[float, float, float, float]


class _Tag(NamedTuple):
    """The text of a box, and where it stands."""

    text: str
    place: Rectangle
    colour: str


def drawn(
    pixels: NDArray[np.uint8],
    boxes: ArrayLike,
    labels: Sequence[str],
    scores: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
) -> Image.Image:
    """Return a picture of an image (H, W, 1 or 3) with boxes (n, 4), each in the colour of its label.

    Images whose longer side is under SMALLEST are enlarged by a whole number, pixel by pixel. Lines and
    letters grow with the image. Boxes with high scores lie on those with low ones, and texts where there is
    room.

    Args:
        pixels: the image.
        boxes: left, top, right, bottom in its pixels.
        labels: of the boxes.
        scores: of the boxes; None: none is written.
        names: all labels in the order of their colours, so that these are the same in several pictures; None:
            the labels here, sorted.

    Raises:
        PlotError: there are not as many labels or scores as boxes, or a box is not finite.
    """
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    _check(corners, labels, scores)
    factor = max(1, math.ceil(SMALLEST / max(pixels.shape[:2])))
    enlarged = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    picture = Image.fromarray(enlarged[..., 0] if enlarged.shape[2] == 1 else enlarged).convert("RGB")
    draw, side = ImageDraw.Draw(picture), max(picture.size)
    width, letters = max(2, round(side / 320)), max(13, side // _SHARE)
    order = np.arange(len(corners)) if scores is None else np.argsort(scores, kind="stable")
    known = list(names or ()) + sorted({*labels} - {*(names or ())})
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(known)}
    for number in order:
        left, top, right, bottom = corners[number] * factor
        outline = left, top, max(left, right - 1), max(top, bottom - 1)
        draw.rectangle(outline, outline=colours[labels[number]], width=width)
    taken: list[Rectangle] = []
    tags = []
    for number in order[::-1]:
        text = shortened(labels[number], _LETTERS) + ("" if scores is None else f" {scores[number]:.2f}")
        size = _text_size(draw, text, letters)
        place = _place(corners[number] * factor, size, picture.size, taken)
        taken.append(place)
        tags.append(_Tag(text, place, colours[labels[number]]))
    for tag in reversed(tags):
        _draw_tag(draw, tag, letters)
    return picture


def _check(corners: NDArray[np.float64], labels: Sequence[str], scores: Sequence[float] | None) -> None:
    counts = len(corners), len(labels), len(corners if scores is None else scores)
    if len({*counts}) > 1:
        raise PlotError(f"expected a label and a score for each of {counts[0]} boxes, got {counts[1:]}")
    if not np.isfinite(corners).all():
        raise PlotError("expected finite boxes, got nan or infinity")


def _place(
    box: NDArray[np.float64], size: tuple[float, float], picture: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle:
    """Return where the text of a box stands: at one of its corners, outside if possible, and on no other text
    if possible; always within the picture."""
    left, top, right, bottom = box.tolist()
    width, height = size
    first = None
    for y in (top - height, bottom, top, bottom - height):
        for x in (left, right - width):
            inside_x = min(max(x, 0.0), max(picture[0] - width, 0.0))
            inside_y = min(max(y, 0.0), max(picture[1] - height, 0.0))
            place = inside_x, inside_y, inside_x + width, inside_y + height
            first = first or place
            if inside_y == y and not any(_meet(place, other) for other in taken):
                return place
    return first or (0.0, 0.0, width, height)


def _meet(one: Rectangle, other: Rectangle) -> bool:
    """Whether two rectangles have an area in common."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _draw_tag(draw: ImageDraw.ImageDraw, tag: _Tag, letters: int) -> None:
    """Draw a text on a filled rectangle, in black or white, whichever is read more easily."""
    red, green, blue = (int(tag.colour[i : i + 2], 16) for i in (1, 3, 5))
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 140
    draw.rectangle(tag.place, fill=tag.colour)
    x, y = tag.place[0] + letters / 4, tag.place[1] + letters / 8
    draw.text((x, y), tag.text, fill="white" if dark else "black", font=_font(tag.text, letters))


def _text_size(draw: ImageDraw.ImageDraw, text: str, letters: int) -> tuple[float, float]:
    """Return width and height of a text with its margins."""
    return draw.textlength(text, font=_font(text, letters)) + letters / 2, letters * 1.4


def _font(text: str, letters: int) -> Any:
    """Return a font for a text: DejaVu Sans, or one that has the characters that it lacks."""
    return _loaded(font_families(text)[-1], letters)


@lru_cache(maxsize=64)
def _loaded(family: str, letters: int) -> Any:
    path = font_manager.findfont(font_manager.FontProperties(family=[family]))
    return ImageFont.truetype(path, letters)
