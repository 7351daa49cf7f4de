"""Pictures of boxes: in the colours of their labels, readable at any size of the image."""

import numpy as np
import pytest
from PIL import ImageColor

from seq2attn.views.boxes import COLOURS, SMALLEST, drawn
from seq2attn.views.pictures import PlotError


def blank(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.full((height, width, channels), 128, np.uint8)


def count(picture: np.ndarray, colour: str) -> int:
    return int((picture == ImageColor.getrgb(colour)).all(axis=2).sum())


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 3, 3), (96, 128, 1), (480, 640, 3), (1500, 60, 3)])
def test_an_image_of_any_size_is_drawn_large_enough(shape):
    height, width, _ = shape
    picture = drawn(blank(*shape), [[0, 0, width, height]], ["cell"], [0.5])
    factor = picture.width // width
    assert picture.size == (width * factor, height * factor) and picture.mode == "RGB"
    assert max(picture.size) >= SMALLEST and (
        factor == 1 or max(picture.size) < SMALLEST + max(height, width)
    )
    assert count(np.asarray(picture), COLOURS[0]) > 0


def test_the_outline_lies_on_the_last_pixels_within_the_box():
    picture = np.asarray(drawn(blank(480, 640), [[100, 50, 300, 200]], ["cell"]))
    colour = ImageColor.getrgb(COLOURS[0])
    assert (picture[100, 100] == colour).all() and (picture[100, 299] == colour).all()
    assert (picture[199, 250] == colour).all() and (picture[100, 99] == 128).all()
    assert (picture[100, 300] == 128).all() and (picture[100, 200] == 128).all()


def test_labels_have_their_colours_in_every_picture():
    names = ["a", "b", "c"]
    for label, colour in zip(names, COLOURS, strict=False):
        picture = np.asarray(drawn(blank(480, 640), [[100, 100, 200, 200]], [label], names=names))
        assert count(picture, colour) > 400
        assert all(count(picture, other) == 0 for other in COLOURS[:3] if other != colour)


def test_texts_do_not_lie_on_each_other_while_there_is_room():
    boxes = [[100, 100, 200, 200]] * 3
    alone = count(np.asarray(drawn(blank(480, 640), boxes[:1], ["a"], [0.9])), COLOURS[0])
    together = count(np.asarray(drawn(blank(480, 640), boxes, ["a"] * 3, [0.9, 0.8, 0.7])), COLOURS[0])
    assert together > 2 * alone - 900  # the outline is the same


def test_no_boxes_leave_the_image_as_it_is():
    pixels = np.arange(480 * 640 * 3, dtype=np.uint32).reshape(480, 640, 3).astype(np.uint8)
    assert (np.asarray(drawn(pixels, np.zeros((0, 4)), [])) == pixels).all()


def test_what_does_not_fit_is_an_error():
    for boxes, labels, scores in (([[0, 0, 1, 1]], [], None), ([[0, 0, 1, 1]], ["a"], [0.1, 0.2])):
        with pytest.raises(PlotError, match="a label and a score for each of 1 boxes"):
            drawn(blank(9, 9), boxes, labels, scores)
    with pytest.raises(PlotError, match="finite boxes"):
        drawn(blank(9, 9), [[0, 0, np.nan, 1]], ["a"])
