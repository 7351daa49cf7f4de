"""Pictures of the maps of images: weights of places over the image, weights of channels as bars."""

import textwrap
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from numpy.typing import ArrayLike, NDArray

from seq2attn.views.fonts import BASE_FAMILY
from seq2attn.views.pictures import (
    COLORS,
    DARK,
    PALE,
    Numbers,
    Picture,
    PlotError,
    empty_figure,
    fit,
    shortened,
    text_style,
    without_glyph_warnings,
)

Scale = Literal["fixed", "auto", "range"]

HEAT = LinearSegmentedColormap.from_list("heat", ["#1b1464", "#6a1b8f", "#c2306b", "#f5803a", "#fde25a"])
MAX_PANELS = 60
_SIDE = 1.9  # inches of the longer side of an image
_LEAST = 0.6  # inches of the shorter side
_ACROSS = 5  # panels beside each other, at most
_BETWEEN, _TITLE = 0.72, 0.68  # inches beside panels, for a scale, and above, for a title of three lines
_PIXELS = 256  # of the longer side of an enlarged map, at least
_OPACITY, _DARKEST, _MIDDLE = 0.66, 0.3, "#a6a6a6"  # of a map over its image; greys of the image below it
_BAR = 0.8  # share of a channel that its bars take
_LETTERS = 17  # an inch, of titles
_BRANCHES = ("#235797", "#e0703a", "#3f9b6c", "#8b5fb0", "#b8a12c", "#7a8794")


class Overlay(NamedTuple):
    """Weights of the places of an image, (rows, columns), enlarged to it. marked: with the query's mark."""

    name: str
    weights: ArrayLike
    scale: Scale
    marked: bool = False


class Bars(NamedTuple):
    """Weights (M, C) of channels: M bars for each."""

    name: str
    weights: ArrayLike
    scale: Scale


class Matrix(NamedTuple):
    """Weights (C, C) of channels (columns) for each channel (rows)."""

    name: str
    weights: ArrayLike
    scale: Scale


Panel = Overlay | Bars | Matrix


class Original(NamedTuple):
    """What is shown of an image that was resized to be read."""

    pixels: NDArray[np.uint8]  # (h, w, 1 or 3), of what was read, in any resolution
    columns: tuple[int, int]  # the first and the last of the original that were read
    rows: tuple[int, int]


def picture(
    pixels: NDArray[np.uint8],
    title: str,
    panels: Sequence[Panel],
    query: tuple[int, int] | None = None,
    original: Original | None = None,
) -> Picture:
    """Draw an image, and beside it panels with their names, the range of their weights and a scale.

    The colour scale begins at 0, or at the smallest weight if that is negative. It ends at 1, or at the
    largest weight if that is more (fixed), or always at the largest weight (auto). `range` is from the
    smallest to the largest weight, which shows what there is in a gate that is nearly constant.

    pixels: (H, W, 1 or 3); query: a pixel (x, y) of them to mark; original: what the image is shown as.
    PlotError for weights that are not finite, and for more than MAX_PANELS panels.
    """
    if len(panels) > MAX_PANELS:
        raise PlotError(
            f"a picture shows at most {MAX_PANELS} maps, got {len(panels)}: choose some by map or at"
        )
    side = _SIDE / max(pixels.shape[:2])
    width, height = (max(_LEAST, pixels.shape[axis] * side) for axis in (1, 0))
    figure = empty_figure(1 + 2 * len(panels))
    first, *remaining = figure.axes
    boxes = dict[Axes, tuple[float, float, float, float]]()
    with without_glyph_warnings():
        own = Original(pixels, (0, pixels.shape[1] - 1), (0, pixels.shape[0] - 1))
        _draw_image(first, pixels.shape[:2], original or own)
        _mark(first, query)
        _write_title(first, title, "", width)
        boxes[first] = 0.0, 0.0, width, height
        for number, panel in enumerate(panels, 1):
            axes, bar = remaining.pop(0), remaining.pop(0)
            left, bottom = number % _ACROSS * (width + _BETWEEN), -(number // _ACROSS) * (height + _TITLE)
            boxes[axes] = left, bottom, width, height
            weights = _checked(panel)
            _write_title(axes, panel.name, _range(weights), width)
            if isinstance(panel, Bars):
                _draw_bars(axes, weights, _limits(weights, panel.scale))
                bar.remove()
                continue
            if isinstance(panel, Overlay):
                mappable = _draw_overlay(axes, pixels, weights, _limits(weights, panel.scale))
                _mark(axes, query if panel.marked else None)
            else:
                mappable = _draw_matrix(axes, weights, _limits(weights, panel.scale))
            _draw_scale(bar, mappable)
            boxes[bar] = left + width + 0.06, bottom, 0.07, height
        fit(figure, boxes)
    return figure


def enlarged(weights: Numbers, size: tuple[int, int]) -> Numbers:
    """Return weights (rows, columns) in a size, bilinearly: the corners of both are the same, and not the
    centres of their corner cells (align_corners=False)."""
    for axis, length in enumerate(size):
        count = weights.shape[axis]
        centres = (np.arange(length) + 0.5) * count / length - 0.5
        lower = np.clip(np.floor(centres), 0, count - 1).astype(int)
        upper = np.minimum(lower + 1, count - 1)
        share = np.clip(centres - lower, 0, 1).reshape((-1, 1) if axis == 0 else (1, -1))
        weights = weights.take(lower, axis) * (1 - share) + weights.take(upper, axis) * share
    return weights


def grey(pixels: NDArray[np.uint8]) -> Numbers:
    """Return an image in grey, from 0 to 1."""
    values = pixels.astype(float) / 255
    return values[..., 0] if values.shape[2] == 1 else values @ [0.299, 0.587, 0.114]


def _checked(panel: Panel) -> Numbers:
    """Return the weights of a panel. PlotError if they cannot be drawn."""
    weights = np.asarray(panel.weights, dtype=float)
    if weights.ndim != 2 or not weights.size or not np.isfinite(weights).all():
        raise PlotError(f"{panel.name}: expected finite weights with two axes, got {weights.shape}")
    return weights


def _limits(weights: Numbers, scale: str) -> tuple[float, float]:
    """Return the weights at the ends of the scale."""
    if scale not in (known := get_args(Scale)):
        raise PlotError(f"expected one of the scales {', '.join(known)}; got {scale!r}")
    lowest, largest = float(weights.min()), float(weights.max())
    if scale != "range":
        lowest = min(0.0, lowest)
    if scale == "fixed":
        largest = largest if largest > 1.001 else 1.0  # more than a rounding error
    return lowest, largest if largest > lowest else lowest + 1.0


def _range(weights: Numbers) -> str:
    return f"{weights.min():.3g} to {weights.max():.3g}"


def _write_title(axes: Axes, name: str, below: str, width: float) -> None:
    lines = textwrap.wrap(shortened(name, 120), max(16, int(width * _LETTERS)))
    style: dict[str, Any] = {**text_style(name), "size": 7.5, "loc": "left"}
    axes.set_title("\n".join([*lines, below] if below else lines), pad=4, linespacing=1.25, **style)


def _draw_image(axes: Axes, size: tuple[int, ...], image: Original) -> None:
    """Draw an image as it is, in axes of a size, with the numbers of its pixels at two sides."""
    height, width = size
    shown: Any = image.pixels[..., 0] if image.pixels.shape[2] == 1 else image.pixels
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), aspect="auto")
    _plain(axes)
    axes.set_xticks([0.5, width - 0.5], [str(number) for number in image.columns])
    axes.set_yticks([0.5, height - 0.5], [str(number) for number in image.rows])


def _draw_overlay(
    axes: Axes, pixels: NDArray[np.uint8], weights: Numbers, limits: tuple[float, float]
) -> Any:
    """Draw weights over the image in grey, and return what a scale is made of."""
    height, width = pixels.shape[:2]
    factor = -(-_PIXELS // max(height, width))
    size: dict[str, Any] = {"extent": (0, width, height, 0), "aspect": "auto", "interpolation": "nearest"}
    below = _DARKEST + (1 - _DARKEST) * grey(pixels)  # on black, the colours of a map could not be told apart
    axes.imshow(below, cmap="gray", vmin=0, vmax=1, **size)
    larger = enlarged(weights, (height * factor, width * factor))
    colours = Normalize(*limits)
    mappable = axes.imshow(larger, cmap=HEAT, norm=colours, alpha=_OPACITY, **size)
    _plain(axes)
    return mappable


def _draw_matrix(axes: Axes, weights: Numbers, limits: tuple[float, float]) -> Any:
    mappable = axes.imshow(
        weights, cmap=COLORS, norm=Normalize(*limits), aspect="auto", interpolation="nearest"
    )
    _plain(axes)
    axes.set_xticks([0, weights.shape[1] - 1])
    axes.set_yticks([0, weights.shape[0] - 1])
    return mappable


def _draw_bars(axes: Axes, weights: Numbers, limits: tuple[float, float]) -> None:
    """Draw M bars for each of C channels."""
    branches, channels = weights.shape
    slots = [*np.linspace(0, _BAR, branches + 1)]  # the last slot of a channel, up to 1, is empty
    edges = np.append(np.add.outer(np.arange(channels), slots).ravel(), channels)
    for branch, row in enumerate(weights):
        heights = np.zeros((channels, branches + 1))
        heights[:, branch] = row
        axes.stairs(heights.ravel(), edges, fill=True, color=_BRANCHES[branch % len(_BRANCHES)])
    _plain(axes)
    low, high = limits
    axes.set_xlim(0, channels)
    axes.set_ylim(low, high)
    axes.set_xticks([_BAR / 2, channels - 1 + _BAR / 2], ["0", str(channels - 1)])
    axes.set_yticks([low, high], [f"{low:.2g}", f"{high:.2g}"])
    axes.spines["bottom"].set(visible=True, color=PALE, position=("data", 0))


def _draw_scale(axes: Axes, mappable: Any) -> None:
    """Draw the colours from the one end of a scale to the other."""
    low, high = mappable.get_clim()
    axes.set_facecolor(_MIDDLE)  # as maps are transparent
    axes.figure.colorbar(mappable, cax=axes, ticks=[low, high]).outline.set_visible(False)
    axes.set_yticklabels([f"{low:.2g}", f"{high:.2g}"], family=BASE_FAMILY, usetex=False)
    axes.tick_params(length=0, pad=3, labelsize=7, labelcolor=PALE)


def _mark(axes: Axes, query: tuple[int, int] | None) -> None:
    """Mark the middle of a pixel."""
    if query is not None:
        x, y = query[0] + 0.5, query[1] + 0.5
        axes.plot([x], [y], marker="s", markersize=6, markerfacecolor="none", markeredgecolor="white")
        axes.plot([x], [y], marker="s", markersize=7.5, markerfacecolor="none", markeredgecolor=DARK)


def _plain(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0, pad=2, labelsize=6.5, labelcolor=PALE)
    axes.minorticks_off()
    axes.grid(False)
    axes.spines[:].set_visible(False)
