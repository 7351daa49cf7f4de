"""Pictures of weights: figures that notebooks show, the files that they make, and what is drawn alike in all.

They are made with matplotlib's objects only (no pyplot, no global state), so they need no display. Words of
any script are drawn literally, each character in a font that has it.
"""

import contextlib
import io
import json
import os
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from seq2attn.errors import Seq2attnError, require_type
from seq2attn.views.fonts import BASE_FAMILY, font_families

FORMATS = (".png", ".svg", ".pdf")
# Lightness falls linearly (in OKLab) while the hue turns from cyan to navy: equal steps of weight look equal.
# White, which is set apart, is exactly 0.
COLORS = LinearSegmentedColormap.from_list(
    "ink", ["#dfeef4", "#7cc8e6", "#318fcb", "#235797", "#1b2650"]
).with_extremes(bad="white")
MAX_WORDS = 1000  # of a side; beyond it no word could be read
MAX_CELLS = 1_000_000  # of a picture
MAX_PIXELS = 40_000_000  # of a picture, some 200 MB in memory; where it would have more, it has fewer an inch
MAX_LETTERS = 40  # of a word in a picture
DARK, PALE, _GRID = "#222b36", "#7a8794", "#e9edf1"
_MARGIN = 0.12  # inches
_RASTERIZED = 20_000  # cells: in SVG and PDF, more are an image

Numbers = NDArray[np.floating[Any]]


class PlotError(Seq2attnError):
    """Weights cannot be drawn, or a file cannot be written."""


class Picture(Figure):
    """A figure that notebooks show, also without `%matplotlib inline`."""

    def _repr_png_(self) -> bytes:
        return render(self)


class Look(NamedTuple):
    """How a heat map is drawn.

    scale: the weight of the darkest colour: 1, or the largest weight if that is more (fixed), or always the
        largest weight (auto). Exactly 0 is white.
    right_to_left: draw the source words from right to left.
    """

    scale: Literal["fixed", "auto"] = "fixed"
    right_to_left: bool = False


DEFAULT_LOOK = Look()


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as .png, .svg or .pdf, by the path's suffix. PlotError for any other suffix.

    The same figure gives the same bytes, and text in SVG is text.
    """
    require_type(path, (str, os.PathLike), "the path of a picture: .png, .svg or .pdf")
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise PlotError(f"expected a file name that ends in .png, .svg or .pdf, got {path.name!r}")
    return write(path, lambda: render(figure, path.suffix[1:].lower()))


def save_or_json(path: str | Path, figure: Callable[[], Figure], content: Callable[[], Any]) -> Path:
    """Write a figure as `save`; or, if the path ends in .json, a value for json.dumps in its place."""
    if Path(path).suffix.lower() != ".json":
        return save(figure(), path)
    value = content()
    return write(Path(path), lambda: json.dumps(value, ensure_ascii=False).encode())


def write(path: Path, content: Callable[[], bytes]) -> Path:
    """Write a file. PlotError if it cannot be written; without a folder, before there is any content."""
    if not path.parent.is_dir():
        raise PlotError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    try:
        path.write_bytes(content())
    except OSError as error:
        raise PlotError(f"cannot write {path}: {error.strerror}") from error
    return path


def write_png(path: str | Path, content: Callable[[], bytes]) -> Path:
    """Write a PNG file. PlotError as `write`, and for another suffix than .png."""
    require_type(path, (str, os.PathLike), "the path of a picture: .png")
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise PlotError(f"expected a file name that ends in .png, got {path.name!r}")
    return write(path, content)


def render(figure: Figure, form: str = "png") -> bytes:
    """Return the content of a png, svg or pdf file of a figure. Large figures have fewer pixels an inch."""
    buffer, (width, height) = io.BytesIO(), figure.get_size_inches()
    pixels = (
        MAX_PIXELS if form == "png" else MAX_PIXELS / 8
    )  # in SVG and PDF, an image of cells without words
    dpi = min(200.0, (pixels / (width * height)) ** 0.5)
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with without_glyph_warnings(), rc_context({"svg.fonttype": "none", "svg.hashsalt": "seq2attn"}):
        figure.savefig(
            buffer, format=form, dpi=dpi, facecolor="auto", edgecolor="auto", metadata=dates.get(form)
        )
    return buffer.getvalue()


def checked(weights: ArrayLike, source_words: Sequence[str], target_words: Sequence[str]) -> Numbers:
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


def check_size(columns: int, rows: int, cells: int) -> None:
    """Raise PlotError for more words or cells than a picture can show."""
    if max(columns, rows) > MAX_WORDS:
        raise PlotError(
            f"a heat map shows at most {MAX_WORDS:,} words on a side, got {columns:,} source and {rows:,} "
            "target words: give a shorter text"
        )
    if cells > MAX_CELLS:
        raise PlotError(
            f"a picture shows at most {MAX_CELLS:,} weights, got {cells:,}: give a shorter text, or choose "
            "one layer or head"
        )


def largest_weight(blocks: Sequence[Numbers], scale: str) -> float:
    """Return the weight of the darkest colour, see `Look`."""
    if scale not in ("fixed", "auto"):
        raise PlotError(f"expected the scale fixed or auto, got {scale!r}")
    largest = max(float(block.max()) for block in blocks)
    if scale == "auto":
        return largest if largest > 0 else 1.0
    return largest if largest > 1.001 else 1.0  # more than a rounding error


def text_style(text: str) -> dict[str, Any]:
    """Return the options of texts with these characters, which are drawn literally."""
    return {"parse_math": False, "usetex": False, "color": DARK, "family": font_families(text)}


def shortened(word: str, letters: int = MAX_LETTERS) -> str:
    """Return a word as it is drawn: of at most so many letters, control characters and lone surrogates, which
    no font has, as escapes."""
    word = word if len(word) <= letters else word[: letters - 1] + "…"
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in {"Cc", "Cs"} else char
        for char in word
    )


def draw_cells(axes: Axes, edges: Numbers, table: Numbers, largest: float, grid: bool = True) -> QuadMesh:
    """Draw the cells of columns, whose left and right `edges` are given, with a light grid."""
    rows, cells = np.arange(len(table) + 1), np.ma.masked_equal(table, 0)
    colours: dict[str, Any] = {"cmap": COLORS, "vmin": 0, "vmax": largest}
    lines: dict[str, Any] = {"edgecolors": _GRID, "linewidth": 0.8} if grid else {}
    mesh = axes.pcolormesh(edges, rows, cells, **colours, **lines, rasterized=table.size > _RASTERIZED)
    axes.set_ylim(len(table), 0)
    return mesh


def plain_axes(axes: Axes) -> None:
    """Leave only cells and words of axes, with the words of columns above."""
    axes.tick_params(length=0, pad=3, bottom=False, top=False, labelbottom=False, labeltop=True)
    axes.set_facecolor("white")
    axes.minorticks_off()
    axes.grid(False)
    axes.spines[:].set_visible(False)


def draw_color_bar(axes: Axes, mesh: QuadMesh, height: float) -> None:
    """Draw the scale of the colours, from 0 to the largest weight that has one."""
    largest = mesh.get_clim()[1] or 1.0
    ticks = [0, largest / 2, largest] if height > 0.7 else [0, largest]
    bar = cast(Figure, axes.figure).colorbar(mesh, cax=axes, ticks=ticks)
    bar.outline.set_visible(False)
    axes.grid(False)
    axes.minorticks_off()
    axes.set_yticklabels([f"{tick:.2g}" for tick in ticks], family=BASE_FAMILY, usetex=False)
    axes.tick_params(length=0, pad=4, labelsize=8, labelcolor=PALE)
    axes.set_ylabel("weight", size=8, color=PALE, family=BASE_FAMILY, usetex=False)


def fit(figure: Figure, boxes: dict[Axes, tuple[float, float, float, float]]) -> None:
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


def empty_figure(axes: int) -> Picture:
    """Return a figure with axes whose sizes `fit` sets."""
    figure = Picture(facecolor="white", dpi=100)
    figure.set_layout_engine("none")
    FigureCanvasAgg(figure)
    for _ in range(axes):
        figure.add_axes((0, 0, 1, 1))
    return figure


@contextlib.contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """Suppress matplotlib's warnings of missing glyphs: `font_families` has warned once for each script."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")  # before 3.11
        yield
