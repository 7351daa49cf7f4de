"""Heat maps of attention weights: source words along the top, target words down the side.

They are made with matplotlib's objects only (no pyplot, no global state), so they need no display. Words of
any script are drawn literally, each character in a font that has it.
"""

import contextlib
import io
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from seq2attn.errors import Seq2attnError
from seq2attn.views.fonts import BASE_FAMILY, font_families

FORMATS = (".png", ".svg", ".pdf")
END_OF_SENTENCE, COPIED = "</s>", "copied"
# Lightness falls linearly (in OKLab) while the hue turns from cyan to navy: equal steps of weight look equal.
COLORS = LinearSegmentedColormap.from_list("ink", ["#eff5f8", "#7fceea", "#3093cf", "#23589a", "#1b2650"])
_DARK, _PALE = "#222b36", "#7a8794"
_GAP = 0.4  # columns between the source words and each extra column
_MARGIN = 0.12  # inches


class PlotError(Seq2attnError):
    """Weights cannot be drawn, or a file cannot be written."""


def heatmap(
    weights: ArrayLike,
    source_words: Sequence[str],
    target_words: Sequence[str],
    title: str | None = None,
    extra_column: ArrayLike | None = None,
    copied: ArrayLike | None = None,
) -> Figure:
    """Draw weights (T, S) >= 0.

    `extra_column` (T,), the weights of the end of sentence </s>, and `copied` (T,), the copied share of each
    target word, are columns of their own to the right.

    Colours end at 1, or at the largest weight if that is more: independent gates, summed over a word.
    The figure has the size that its words need. Warns if no installed font has a character.
    Raises PlotError for weights that are empty, not finite or not of the words' shape.
    """
    table = _checked(weights, source_words, target_words)
    T, S = table.shape
    columns, rows = [_visible(word) for word in source_words], [_visible(word) for word in target_words]
    title = _visible(title or "")
    figure = Figure(facecolor="white", dpi=100)
    figure.set_layout_engine("none")
    FigureCanvasAgg(figure)
    axes, color_bar = figure.add_axes((0, 0, 1, 1)), figure.add_axes((0, 0, 1, 1))  # _fit sets their sizes
    centres, extra = np.arange(S) + 0.5, dict[str, NDArray[np.float64]]()
    for name, column in ((END_OF_SENTENCE, extra_column), (COPIED, copied)):
        if column is not None:
            extra[name] = _checked(np.asarray(column).reshape(-1, 1), [name], target_words)
    largest = max(float(cells.max()) for cells in (table, *extra.values()))
    largest = largest if largest > 1.001 else 1.0  # more than a rounding error
    mesh = _draw_cells(axes, np.arange(S + 1), table, largest)
    for name, cells in extra.items():
        columns, centres = [*columns, name], np.append(centres, centres[-1] + 1 + _GAP)
        _draw_cells(axes, centres[-1] - 0.5 + np.arange(2), cells, largest)

    height = float(np.clip(12 / max(T, len(columns)), 0.2, 0.38))  # of a cell, in inches
    size = min(11.0, height * 36)  # of the font, in points
    style: dict[str, Any] = {"parse_math": False, "usetex": False, "color": _DARK}
    style["family"] = font_families("".join([*columns, *rows, title]))
    axes.set_xticks(centres, columns, size=size, **style)
    axes.set_yticks(np.arange(T) + 0.5, rows, size=size, **style)
    axes.tick_params(length=0, pad=3, bottom=False, labelbottom=False, labeltop=True)
    axes.set(xlim=(0, centres[-1] + 0.5), ylim=(T, 0), facecolor="white")
    axes.minorticks_off()
    axes.grid(False)
    axes.spines[:].set_visible(False)
    for label in axes.get_xticklabels()[S:]:
        label.set_color(_PALE)

    with _without_glyph_warnings():
        width = _place_source_words(axes, height) * axes.get_xlim()[1]
        if title:
            lines = textwrap.fill(title, max(24, int(width * 11)))  # some 11 letters an inch
            axes.set_title(lines, loc="left", pad=10, size=12, **style)
        bar_height = min(T * height, 3.0)
        _draw_color_bar(figure, mesh, color_bar, bar_height)
        bar_box = (width + 0.15, T * height - bar_height, 0.09, bar_height)
        _fit(figure, {axes: (0.0, 0.0, width, T * height), color_bar: bar_box})
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as .png, .svg or .pdf, by the path's suffix. PlotError for any other suffix."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise PlotError(f"expected a file name that ends in .png, .svg or .pdf, got {path.name!r}")
    if not path.parent.is_dir():
        raise PlotError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    content = render(figure, path.suffix[1:].lower())
    try:
        path.write_bytes(content)
    except OSError as error:
        raise PlotError(f"cannot write {path}: {error.strerror}") from error
    return path


def render(figure: Figure, form: str = "png") -> bytes:
    """Return the content of a png, svg or pdf file of a figure."""
    buffer = io.BytesIO()
    with _without_glyph_warnings():
        figure.savefig(buffer, format=form, dpi=200, facecolor="auto", edgecolor="auto")
    return buffer.getvalue()


def _checked(
    weights: ArrayLike, source_words: Sequence[str], target_words: Sequence[str]
) -> NDArray[np.float64]:
    """Return weights as an array. PlotError if they are empty, not finite or not of the words' shape."""
    table = np.asarray(weights, dtype=float)
    expected = (len(target_words), len(source_words))
    if table.shape != expected:
        raise PlotError(
            f"expected weights of {expected[0]} target by {expected[1]} source words, got shape {table.shape}"
        )
    if not table.size:
        raise PlotError("nothing to draw: a heat map needs at least one source and one target word")
    if not np.isfinite(table).all():
        raise PlotError("expected finite weights, got nan or infinity; check the attention that made them")
    return table


def _draw_cells(
    axes: Axes, edges: NDArray[np.number], table: NDArray[np.float64], largest: float
) -> QuadMesh:
    """Draw the cells of columns, whose left and right `edges` are given, with a light grid."""
    rows = np.arange(len(table) + 1)
    colours: dict[str, Any] = {"cmap": COLORS, "vmin": 0, "vmax": largest}
    return axes.pcolormesh(edges, rows, table, **colours, edgecolors="white", linewidth=1.2)


def _place_source_words(axes: Axes, height: float) -> float:
    """Put the words above their columns, slanted if they would touch; return a column's width in inches."""
    words = axes.get_xticklabels()
    needed = max(word.get_window_extent().width for word in words) / axes.figure.dpi + 0.14
    width = max(height, needed)
    if width <= 2.4 * height and width * len(words) <= 9:
        return width
    axes.tick_params(axis="x", pad=1)
    for word in words:
        word.set(rotation=50, ha="left", va="bottom", rotation_mode="anchor")
    return height


def _draw_color_bar(figure: Figure, mesh: QuadMesh, axes: Axes, height: float) -> None:
    """Draw the scale of the colours, from 0 to the largest weight that has one."""
    largest = mesh.get_clim()[1] or 1.0
    ticks = [0, largest / 2, largest] if height > 0.7 else [0, largest]
    bar = figure.colorbar(mesh, cax=axes, ticks=ticks)
    bar.outline.set_visible(False)
    axes.grid(False)
    axes.minorticks_off()
    axes.set_yticklabels([f"{tick:.2g}" for tick in ticks], family=BASE_FAMILY, usetex=False)
    axes.tick_params(length=0, pad=4, labelsize=8, labelcolor=_PALE)


def _fit(figure: Figure, boxes: dict[Axes, tuple[float, float, float, float]]) -> None:
    """Give axes their boxes (left, bottom, width, height in inches), and fit the figure to its content."""

    def set_positions(left: float, bottom: float) -> None:
        total = figure.get_size_inches()
        for axes, (x, y, width, height) in boxes.items():
            axes.set_position(
                ((x + left) / total[0], (y + bottom) / total[1], width / total[0], height / total[1])
            )

    set_positions(0.0, 0.0)
    content = figure.get_tightbbox()
    figure.set_size_inches(content.width + 2 * _MARGIN, content.height + 2 * _MARGIN)
    set_positions(_MARGIN - content.x0, _MARGIN - content.y0)


def _visible(word: str) -> str:
    """Write control characters and lone surrogates, which no font has, as escapes."""
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in {"Cc", "Cs"} else char
        for char in word
    )


@contextlib.contextmanager
def _without_glyph_warnings() -> Iterator[None]:
    """Suppress matplotlib's warnings of missing glyphs: `font_families` has warned once for each script."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")  # before 3.11
        yield
