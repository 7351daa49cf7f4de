"""Grids of small heat maps: one for each layer and head."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from seq2attn.views.heatmaps import NO_TEXTS, Texts, slant
from seq2attn.views.pictures import (
    DEFAULT_LOOK,
    PALE,
    Look,
    Picture,
    check_size,
    checked,
    draw_cells,
    draw_color_bar,
    empty_figure,
    fit,
    largest_weight,
    plain_axes,
    shortened,
    text_style,
    without_glyph_warnings,
)

_PANEL = 2.4  # inches of the longer side of a panel, unless its words need more
_NARROWEST, _WIDEST = 0.03, 0.24  # cells, in inches
_READABLE = 0.1  # inches of a cell, from which on its words are written
_BETWEEN = 0.22  # inches between panels


class Panel(NamedTuple):
    """A heat map of a grid."""

    name: str
    weights: ArrayLike  # (T, S)


def grid(
    panels: Sequence[Sequence[Panel]],
    source_words: Sequence[str],
    target_words: Sequence[str],
    texts: Texts = NO_TEXTS,
    look: Look = DEFAULT_LOOK,
) -> Picture:
    """Draw rows of heat maps of the same words with one scale. Rows may have different lengths.

    Words are written at the first column and above the first row, if the text is short enough. Raises
    PlotError as `heatmap`.
    """
    tables = [[checked(panel.weights, source_words, target_words) for panel in row] for row in panels]
    blocks = [table for row in tables for table in row]
    check_size(len(source_words), len(target_words), sum(block.size for block in blocks))
    columns, rows = ([shortened(word) for word in words] for words in (source_words, target_words))
    style = text_style("".join([*columns, *rows, *texts, *(panel.name for row in panels for panel in row)]))
    cell = float(np.clip(_PANEL / max(len(columns), len(rows)), _NARROWEST, _WIDEST))
    width, height, largest = len(columns) * cell, len(rows) * cell, largest_weight(blocks, look.scale)
    figure = empty_figure(1 + len(blocks))
    bar, *remaining = figure.axes
    pale: dict[str, Any] = {**style, "color": PALE, "size": 9}
    below: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", **pale}
    places, widest = dict[Axes, tuple[int, int]](), width
    with without_glyph_warnings():
        for y, row in enumerate(panels):
            for x, panel in enumerate(row):
                axes = remaining.pop(0)
                mesh = draw_cells(axes, np.arange(len(columns) + 1.0), tables[y][x], largest, grid=cell > 0.1)
                axes.set_xlim(*((len(columns), 0) if look.right_to_left else (0, len(columns))))
                _write_words(axes, columns if y == 0 else [], rows if x == 0 else [], cell, style)
                name = axes.annotate(panel.name, (0, 0), (0, -3), va="top", annotation_clip=False, **below)
                widest = max(widest, name.get_window_extent().width / figure.dpi)
                places[axes] = x, y
        boxes = {
            axes: (x * (widest + _BETWEEN), -y * (height + _BETWEEN), width, height)
            for axes, (x, y) in places.items()
        }
        top_left = next(iter(places))
        top_left.xaxis.set_label_position("top")
        top_left.set_xlabel(texts.columns, labelpad=6, **pale)
        top_left.set_ylabel(texts.rows, labelpad=6, **pale)
        draw_color_bar(bar, mesh, height)
        right = max(x for x, *_ in boxes.values()) + widest
        fit(figure, {**boxes, bar: (right + 0.15, 0.0, 0.09, height)})
    return figure


def _write_words(axes: Axes, columns: list[str], rows: list[str], cell: float, style: dict[str, Any]) -> None:
    """Write words at a panel, if its cells of a width in inches leave room for them."""
    size: dict[str, Any] = {**style, "size": min(9.0, cell * 50)}
    columns, rows = (words if cell >= _READABLE else [] for words in (columns, rows))
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns, **size)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows, **size)
    plain_axes(axes)
    slant(axes)
