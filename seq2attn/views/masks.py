"""Pictures of masks: PNG files with a palette, and the classes in colours over their image, with a legend."""

import colorsys
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from seq2attn.views.image_maps import grey
from seq2attn.views.pictures import (
    PALE,
    Picture,
    empty_figure,
    fit,
    shortened,
    text_style,
    without_glyph_warnings,
)

Color = tuple[int, int, int]
# Far from each other, and in an order in which neighbours differ; white is left for what does not count.
_COLORS: tuple[Color, ...] = (
    *((70, 130, 180), (230, 159, 0), (128, 64, 128), (0, 158, 115), (204, 60, 60), (240, 228, 66)),
    *((90, 60, 30), (204, 121, 167), (60, 60, 200), (140, 200, 60), (120, 220, 230), (110, 110, 110)),
)
_BACKGROUND: Color = (0, 0, 0)
_OPACITY, _EDGE = 0.55, 0.9  # of colours over the image, and of the edges between classes
_SIDE, _ROW, _MARK = 4.0, 0.24, 0.16  # inches: the longer side of the image, a row of the legend, its square
_SHOWN = 40  # classes in a legend


def palette(classes: Sequence[str], colors: Mapping[str, Sequence[int]] | None = None) -> list[Color]:
    """Return the colour of each class: of the recipe, or one of its own. A first class `background` is
    black, and is left clear in pictures."""
    if colors is not None:
        return [(red, green, blue) for red, green, blue in map(colors.__getitem__, classes)]
    chosen = list[Color]()
    for number, name in enumerate(classes):
        if number == 0 and name.lower() == "background":
            chosen.append(_BACKGROUND)
        elif number < len(_COLORS):
            chosen.append(_COLORS[number])
        else:  # hues at steps of the golden ratio never repeat
            red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.65, 0.85 - 0.2 * (number % 3))
            chosen.append((round(255 * red), round(255 * green), round(255 * blue)))
    return chosen


def mask_png(mask: NDArray[np.uint8], colors: Sequence[Color]) -> bytes:
    """Return a mask (H, W) as the content of a PNG file, whose pixels are class numbers and whose palette has
    the colours of the classes."""
    picture = Image.fromarray(mask)
    picture.putpalette(np.array(colors, np.uint8).ravel().tolist())  # now it has the mode P
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def blended(pixels: NDArray[np.uint8], mask: NDArray[np.uint8], colors: Sequence[Color]) -> NDArray[np.uint8]:
    """Return an image in grey under the colours of its classes: (H, W, 3). The edges between classes are
    stronger; black classes are clear."""
    below = 255 * (0.25 + 0.75 * grey(pixels))[..., None]
    table = np.array(colors, float)
    edges = np.zeros(mask.shape, bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        different = mask[one] != mask[other]
        edges[one] |= different
        edges[other] |= different
    opacity = np.where(edges, _EDGE, _OPACITY)
    clear = np.all(table == 0, axis=1)
    opacity[clear.take(mask)] = 0.0
    over = table[mask]
    result: NDArray[np.uint8] = np.rint(below + opacity[..., None] * (over - below)).astype(np.uint8)
    return result


def legend_picture(
    pixels: NDArray[np.uint8], mask: NDArray[np.uint8], classes: Sequence[str], colors: Sequence[Color]
) -> Picture:
    """Draw an image, beside it the same under the colours of its classes, and a legend with the classes that
    it has and their shares of the pixels, the largest first."""
    shares = np.bincount(mask.ravel(), minlength=len(classes)) / mask.size
    there = [number for number in np.argsort(-shares, kind="stable").tolist() if shares[number] > 0]
    side = _SIDE / max(pixels.shape[:2])
    width, height = pixels.shape[1] * side, pixels.shape[0] * side
    figure = empty_figure(3)
    first, second, legend = figure.axes
    shown: Any = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    with without_glyph_warnings():
        first.imshow(shown, cmap="gray", vmin=0, vmax=255, aspect="auto")
        second.imshow(blended(pixels, mask, colors), aspect="auto", interpolation="nearest")
        rows = there[:_SHOWN]
        _draw_legend(
            legend,
            [classes[number] for number in rows],
            [colors[number] for number in rows],
            [float(shares[number]) for number in rows],
        )
        for axes in figure.axes:
            axes.set_axis_off()
        tall = _ROW * len(rows)
        fit(
            figure,
            {
                first: (0.0, 0.0, width, height),
                second: (width + 0.1, 0.0, width, height),
                legend: (2 * width + 0.25, height - tall, 1.0, tall),
            },
        )
    return figure


def _draw_legend(axes: Axes, names: Sequence[str], colors: Sequence[Color], shares: Sequence[float]) -> None:
    """Draw a row for each class, from the top, in inches."""
    axes.set_xlim(0, 1)
    axes.set_ylim(_ROW * len(names), 0)
    for row, (name, color, share) in enumerate(zip(names, colors, shares, strict=True)):
        middle = _ROW * (row + 0.5)
        clear = not any(color)  # as it is in the picture
        shade = "none" if clear else tuple(value / 255 for value in color)
        frame: dict[str, Any] = {"facecolor": shade, "edgecolor": PALE if clear else "none", "clip_on": False}
        axes.add_patch(Rectangle((0, middle - _MARK / 2), _MARK, _MARK, **frame))
        text = shortened(name)
        style = {**text_style(text), "size": 9, "va": "center"}
        label = axes.text(_MARK + 0.08, middle, text, **style)
        axes.annotate(
            f"{100 * share:.1f} %",
            (1, 0.5),
            (4, 0),
            xycoords=label,
            textcoords="offset points",
            **{**style, "size": 8, "color": PALE},
        )
