"""Heat maps of attention weights: source words along the top, target words down the side."""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure, SubFigure
from numpy.typing import ArrayLike

from seq2attn.errors import require_type
from seq2attn.views.pictures import (
    COLORS,
    DEFAULT_LOOK,
    PALE,
    Look,
    Numbers,
    PlotError,
    check_size,
    checked,
    draw_cells,
    draw_color_bar,
    empty_figure,
    fit,
    largest_weight,
    plain_axes,
    render,
    save,
    shortened,
    text_style,
    without_glyph_warnings,
)

__all__ = ["COLORS", "Look", "PlotError", "Texts", "heatmap", "render", "save"]

END_OF_SENTENCE, COPIED = "</s>", "copied"
_GAP = 0.4  # columns between the source words and each extra column
_MAX_TITLE = 400  # letters
_NARROWEST, _WIDEST = 0.2, 0.38  # cells of a picture, in inches


class Texts(NamedTuple):
    """What is written around a heat map; empty texts are left out."""

    columns: str = "source"  # titles of the axes
    rows: str = "target"
    caption: str = ""  # below it: the layer and the head, for example


NO_TEXTS = Texts("", "")


class _Content(NamedTuple):
    """What a heat map shows."""

    blocks: list[Numbers]  # (T, S), and (T, 1) for each extra column
    columns: list[str]
    rows: list[str]
    title: str
    texts: Texts
    look: Look

    @property
    def centres(self) -> list[float]:
        """The centres of the columns, in columns; those of extra columns are set apart."""
        words = self.blocks[0].shape[1]
        extra = range(1, len(self.blocks))
        return [*np.arange(words) + 0.5, *(words - 0.5 + number * (1 + _GAP) for number in extra)]

    @property
    def width(self) -> float:
        """The width of the heat map, in columns."""
        return self.centres[-1] + 0.5


def heatmap(
    weights: ArrayLike,
    source_words: Sequence[str],
    target_words: Sequence[str],
    title: str | None = None,
    extra_column: ArrayLike | None = None,
    copied: ArrayLike | None = None,
    *,
    texts: Texts = NO_TEXTS,
    look: Look = DEFAULT_LOOK,
    ax: Axes | None = None,
) -> Figure:
    """Draw weights (T, S) >= 0.

    `extra_column` (T,), the weights of the end of sentence </s>, and `copied` (T,), the copied share of each
    target word, are columns of their own to the right.

    ax: axes to draw into; without them the result is a figure of the size that the words need. Words of more
        than MAX_LETTERS letters are shortened.
    Warns if no installed font has a character. Raises PlotError for weights that are empty, not finite, not
    of the words' shape or too many, and for an unknown scale.
    """
    extra = {END_OF_SENTENCE: extra_column, COPIED: copied}
    tables = {name: np.asarray(column).reshape(-1, 1) for name, column in extra.items() if column is not None}
    blocks = [checked(weights, source_words, target_words)]
    blocks += [checked(column, [name], target_words) for name, column in tables.items()]
    check_size(len(source_words), len(target_words), sum(block.size for block in blocks))
    columns, rows = (
        [shortened(word) for word in words] for words in ([*source_words, *tables], target_words)
    )
    content = _Content(blocks, columns, rows, shortened(title or "", _MAX_TITLE), texts, look)
    with without_glyph_warnings():
        return _figure(content) if ax is None else _inside(content, ax)


def _figure(content: _Content) -> Figure:
    """Return a heat map as a figure of its own, of the size that its words need."""
    figure = empty_figure(2)
    axes, bar_axes = figure.axes
    height = float(np.clip(12 / max(len(content.rows), len(content.columns)), _NARROWEST, _WIDEST))
    mesh, style = _draw(axes, content, height)
    words = axes.get_xticklabels()
    column = max(height, max(map(_inches, words)) + 0.14)
    if column > 2.4 * height or column * len(words) > 9:
        column = height
        slant(axes)
    box = column * content.width, len(content.rows) * height
    _write_title(axes, content.title, box[0], style)
    bar_height = min(box[1], 3.0)
    draw_color_bar(bar_axes, mesh, bar_height)
    fit(figure, {axes: (0.0, 0.0, *box), bar_axes: (box[0] + 0.15, box[1] - bar_height, 0.09, bar_height)})
    return figure


def _inside(content: _Content, axes: Axes) -> Figure:
    """Draw a heat map in axes of a user's figure, with its scale beside it, and return the figure."""
    require_type(axes, Axes, "ax as the axes of a matplotlib figure")
    box = axes.get_window_extent()
    width, height = box.width / axes.figure.dpi, box.height / axes.figure.dpi
    column = width / content.width
    mesh, style = _draw(axes, content, min(_WIDEST, height / len(content.rows), column))
    if any(_inches(word) > column for word in axes.get_xticklabels()):
        slant(axes)
    _write_title(axes, content.title, width, style)
    draw_color_bar(axes.inset_axes((1.03, 0.0, 0.03, 1.0)), mesh, height)
    figure = axes.figure
    return figure.figure if isinstance(figure, SubFigure) else figure


def _draw(axes: Axes, content: _Content, height: float) -> tuple[QuadMesh, dict[str, Any]]:
    """Draw cells, words, titles of axes and caption, for rows of a height in inches.

    Returns the cells, for a color bar, and the style of texts.
    """
    texts, centres, words = content.texts, content.centres, content.blocks[0].shape[1]
    style = text_style("".join([*content.columns, *content.rows, content.title, *texts]))
    edges = [np.arange(words + 1.0), *(centre - 0.5 + np.arange(2.0) for centre in centres[words:])]
    largest = largest_weight(content.blocks, content.look.scale)
    meshes = [draw_cells(axes, *part, largest, grid=True) for part in zip(edges, content.blocks, strict=True)]
    size = min(11.0, height * 36)  # of the font, in points
    axes.set_xticks(centres, content.columns, size=size, **style)
    axes.set_yticks(np.arange(len(content.rows)) + 0.5, content.rows, size=size, **style)
    plain_axes(axes)
    limits = 0, content.width
    axes.set_xlim(*(reversed(limits) if content.look.right_to_left else limits))
    for label in axes.get_xticklabels()[words:]:
        label.set_color(PALE)
    pale: dict[str, Any] = {**style, "color": PALE, "size": 9}
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(texts.columns, labelpad=6, **pale)
    axes.set_ylabel(texts.rows, labelpad=6, **pale)
    if texts.caption:
        place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
        axes.annotate(texts.caption, (0, 0), (0, -6), va="top", annotation_clip=False, **place, **pale)
    return meshes[0], style


def _write_title(axes: Axes, title: str, width: float, style: dict[str, Any]) -> None:
    """Write a title in lines of a width in inches."""
    if title:
        lines = textwrap.fill(title, max(24, int(width * 11)))  # some 11 letters an inch
        axes.set_title(lines, loc="left", pad=10, size=12, **style)


def slant(axes: Axes) -> None:
    """Slant the words above columns, except single characters."""
    axes.tick_params(axis="x", pad=1)
    for word in axes.get_xticklabels():
        if len(word.get_text()) > 1:
            word.set(rotation=50, ha="left", va="bottom", rotation_mode="anchor")


def _inches(word: Any) -> float:
    """Return the width of a label in inches."""
    return float(word.get_window_extent().width / word.figure.dpi)
