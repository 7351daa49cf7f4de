"""Heat maps of attention: source words along the top, target words down the side.

Made of matplotlib's objects alone (never pyplot, no global state), so they need no display. Words of any
script are drawn literally, each character in a font that has it.
"""

import contextlib
import io
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from seq2attn.errors import Seq2attnError

FORMATS = (".png", ".svg", ".pdf")
END_OF_SENTENCE, COPIED = "</s>", "copied"
BASE_FAMILY = "DejaVu Sans"  # comes with matplotlib
# Lightness falls linearly (in OKLab) while the hue turns from cyan to navy: equal steps of weight look equal.
COLORS = LinearSegmentedColormap.from_list("ink", ["#eff5f8", "#7fceea", "#3093cf", "#23589a", "#1b2650"])
_DARK, _PALE = "#222b36", "#7a8794"
_GAP = 0.4  # columns between the source words and the end of sentence
_MARGIN = 0.12  # inches


class PlotError(Seq2attnError):
    """Weights that cannot be drawn or a file that cannot be written."""


def heatmap(
    weights: ArrayLike,
    source_words: Sequence[str],
    target_words: Sequence[str],
    title: str | None = None,
    extra_column: ArrayLike | None = None,
    copied: ArrayLike | None = None,
) -> Figure:
    """Draw weights (T, S) from 0 on; `extra_column` (T,) is set apart as the end of sentence, </s>, and so is
    `copied` (T,), how much of each target word was copied from the source.

    Colours end at 1, or at the largest weight where that is more: independent gates, summed over a word.
    The figure has the size that its words need. Warns when no installed font has some of the characters.
    Raises PlotError for weights that are empty, not finite or not of the words' shape.
    """
    table = _checked(weights, source_words, target_words)
    T, S = table.shape
    columns, rows = [_visible(word) for word in source_words], [_visible(word) for word in target_words]
    title = _visible(title or "")
    figure = Figure(facecolor="white", dpi=100)
    figure.set_layout_engine("none")
    FigureCanvasAgg(figure)
    axes, bar = figure.add_axes((0, 0, 1, 1)), figure.add_axes((0, 0, 1, 1))  # _fit sets their sizes
    centres, apart = np.arange(S) + 0.5, dict[str, NDArray[np.float64]]()
    for name, column in ((END_OF_SENTENCE, extra_column), (COPIED, copied)):
        if column is not None:
            apart[name] = _checked(np.asarray(column).reshape(-1, 1), [name], target_words)
    largest = max(float(part.max()) for part in (table, *apart.values()))
    largest = largest if largest > 1.001 else 1.0  # rounding is no news
    mesh = _cells(axes, np.arange(S + 1), table, largest)
    for name, cells in apart.items():
        columns, centres = [*columns, name], np.append(centres, centres[-1] + 1 + _GAP)
        _cells(axes, centres[-1] - 0.5 + np.arange(2), cells, largest)

    height = float(np.clip(12 / max(T, len(columns)), 0.2, 0.38))  # of a cell, in inches
    size = min(11.0, height * 36)  # of the letters, in points
    letters: dict[str, Any] = {"parse_math": False, "usetex": False, "color": _DARK}
    letters["family"] = font_families("".join([*columns, *rows, title]))
    axes.set_xticks(centres, columns, size=size, **letters)
    axes.set_yticks(np.arange(T) + 0.5, rows, size=size, **letters)
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
            axes.set_title(lines, loc="left", pad=10, size=12, **letters)
        scale = min(T * height, 3.0)
        _color_bar(figure, mesh, bar, scale)
        _fit(
            figure,
            {axes: (0.0, 0.0, width, T * height), bar: (width + 0.15, T * height - scale, 0.09, scale)},
        )
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure as .png, .svg or .pdf, by the path's suffix; raises PlotError for others."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise PlotError(f"expected a file name that ends in .png, .svg or .pdf, got {path.name!r}")
    if not path.parent.is_dir():
        raise PlotError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    content = drawn(figure, path.suffix[1:].lower())
    try:
        path.write_bytes(content)
    except OSError as error:
        raise PlotError(f"cannot write {path}: {error.strerror}") from error
    return path


def drawn(figure: Figure, form: str = "png") -> bytes:
    """The figure as the content of a png, svg or pdf file."""
    buffer = io.BytesIO()
    with _without_glyph_warnings():
        figure.savefig(buffer, format=form, dpi=200, facecolor="auto", edgecolor="auto")
    return buffer.getvalue()


def _checked(
    weights: ArrayLike, source_words: Sequence[str], target_words: Sequence[str]
) -> NDArray[np.float64]:
    """The weights as an array, if they can be drawn beside these words."""
    table = np.asarray(weights, dtype=float)
    expected = (len(target_words), len(source_words))
    if table.shape != expected:
        raise PlotError(
            f"expected weights of {expected[0]} target by {expected[1]} source words, got shape {table.shape}"
        )
    if not table.size:
        raise PlotError("nothing to draw: a heat map needs at least one source and one target word")
    if not np.isfinite(table).all():
        raise PlotError("expected finite weights, got nan or infinity; look at the attention that made them")
    return table


def _cells(axes: Axes, edges: NDArray[np.number], table: NDArray[np.float64], largest: float) -> QuadMesh:
    """Colour the cells of the columns between the edges, with a light grid."""
    rows = np.arange(len(table) + 1)
    colours: dict[str, Any] = {"cmap": COLORS, "vmin": 0, "vmax": largest}
    return axes.pcolormesh(edges, rows, table, **colours, edgecolors="white", linewidth=1.2)


def _place_source_words(axes: Axes, height: float) -> float:
    """Set the words above their columns, slanted if they would touch; returns a column's width in inches."""
    words = axes.get_xticklabels()
    needed = max(word.get_window_extent().width for word in words) / axes.figure.dpi + 0.14
    width = max(height, needed)
    if width <= 2.4 * height and width * len(words) <= 9:
        return width
    axes.tick_params(axis="x", pad=1)
    for word in words:
        word.set(rotation=50, ha="left", va="bottom", rotation_mode="anchor")
    return height


def _color_bar(figure: Figure, mesh: QuadMesh, axes: Axes, height: float) -> None:
    """A slim scale from 0 to where the colours end."""
    largest = mesh.get_clim()[1] or 1.0
    ticks = [0, largest / 2, largest] if height > 0.7 else [0, largest]
    bar = figure.colorbar(mesh, cax=axes, ticks=ticks)
    bar.outline.set_visible(False)
    axes.grid(False)
    axes.minorticks_off()
    axes.set_yticklabels([f"{tick:.2g}" for tick in ticks], family=BASE_FAMILY, usetex=False)
    axes.tick_params(length=0, pad=4, labelsize=8, labelcolor=_PALE)


def _fit(figure: Figure, boxes: dict[Axes, tuple[float, float, float, float]]) -> None:
    """Give the axes their boxes (left, bottom, width, height in inches), the figure the size of its ink."""

    def place(left: float, bottom: float) -> None:
        total = figure.get_size_inches()
        for axes, (x, y, width, height) in boxes.items():
            axes.set_position(
                ((x + left) / total[0], (y + bottom) / total[1], width / total[0], height / total[1])
            )

    place(0.0, 0.0)
    ink = figure.get_tightbbox()
    figure.set_size_inches(ink.width + 2 * _MARGIN, ink.height + 2 * _MARGIN)
    place(_MARGIN - ink.x0, _MARGIN - ink.y0)


def _visible(word: str) -> str:
    """The word with control characters and lone surrogates, which no font draws, written as escapes."""
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in {"Cc", "Cs"} else char
        for char in word
    )


class Script(NamedTuple):
    """A writing system, a font family that shows it and the Debian package of that font."""

    name: str
    family: str
    package: str


_CJK = "fonts-noto-cjk"
_SYMBOLS = Script("symbol", "Symbola", "fonts-symbola")
# By the first word of the characters' Unicode names. Kana and Hangul stand before Han: the languages that use
# them write some Han characters in their own way.
_SCRIPTS = {
    "HIRAGANA": Script("kana", "Noto Sans CJK JP", _CJK),
    "KATAKANA": Script("kana", "Noto Sans CJK JP", _CJK),
    "KATAKANA-HIRAGANA": Script("kana", "Noto Sans CJK JP", _CJK),
    "HANGUL": Script("Hangul", "Noto Sans CJK KR", _CJK),
    "BOPOMOFO": Script("Bopomofo", "Noto Sans CJK TC", _CJK),
    "CJK": Script("Han", "Noto Sans CJK SC", _CJK),
    "IDEOGRAPHIC": Script("Han", "Noto Sans CJK SC", _CJK),
    "FULLWIDTH": Script("full-width", "Noto Sans CJK SC", _CJK),
    "HALFWIDTH": Script("half-width", "Noto Sans CJK SC", _CJK),
}


def script(char: str) -> Script:
    """The script of a character, by its Unicode name."""
    word = unicodedata.name(char, "UNNAMED").split()[0]
    if word in _SCRIPTS:
        return _SCRIPTS[word]
    if unicodedata.category(char).startswith("S"):
        return _SYMBOLS
    return Script(word.capitalize(), f"Noto Sans {word.capitalize()}", "fonts-noto-core")


def font_families(text: str) -> list[str]:
    """DejaVu Sans and families that have the characters it lacks; warns where no installed font has them."""
    lacking = frozenset(filter(_needs_glyph, text)) - _characters(BASE_FAMILY)
    if not lacking:
        return [BASE_FAMILY]
    found, missing = _fallback(lacking, len(font_manager.fontManager.ttflist))
    if missing:
        _add_new_fonts()
        found, missing = _fallback(lacking, len(font_manager.fontManager.ttflist))
    unseen = [char for char in dict.fromkeys(text) if char in missing]
    for kind in dict.fromkeys(map(script, unseen)):
        shown = "".join(char for char in unseen if script(char) == kind)[:8]
        warnings.warn(
            f"no installed font shows {kind.name} characters ({shown}): "
            f"install for example {kind.family} (Debian: {kind.package})",
            stacklevel=3,
        )
    return [BASE_FAMILY, *found]


@lru_cache(maxsize=64)
def _fallback(lacking: frozenset[str], installed: int) -> tuple[list[str], frozenset[str]]:
    """Families that have the lacking characters, and the characters that none has.

    Reading all installed fonts takes seconds on some machines, so the fonts of the scripts at hand come first
    and the answer is kept until the number of `installed` fonts changes.
    """
    scripts = set(map(script, lacking))
    wanted = [kind.family for kind in [*_SCRIPTS.values(), *scripts] if kind in scripts]

    def rank(family: str) -> tuple[int, bool, bool, str]:
        place = wanted.index(family) if family in wanted else len(wanted)
        return place, not family.startswith("Noto Sans"), "Sans" not in family, family

    fonts = font_manager.fontManager.ttflist
    families = {font.name for font in fonts if font.style == "normal" and font.weight in (400, "normal")}
    found: list[str] = []
    for family in sorted(families, key=rank):
        if not lacking:
            break
        # Last Resort has a box for every character; colour fonts have pictures that matplotlib cannot draw
        if "Last Resort" in family or "Color" in family:
            continue
        covered = lacking & _characters(family)
        if covered:
            found.append(family)
            lacking -= covered
    return found, lacking


def _characters(family: str) -> frozenset[str]:
    """Every character that a family's upright face has a glyph for."""
    predictor = font_manager.get_font(font_manager.findfont(font_manager.FontProperties(family=[family])))
    return frozenset(map(chr, predictor.get_charmap()))


def _add_new_fonts() -> None:
    """Tell matplotlib of fonts installed since it wrote its list of fonts: it does not look again."""
    known = {str(entry.fname) for entry in font_manager.fontManager.ttflist}
    for path in set(font_manager.findSystemFonts()) - known:
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # a damaged font is no font
            font_manager.fontManager.addfont(path)


def _needs_glyph(char: str) -> bool:
    """Whether a character leaves ink: not spaces, controls, joiners and variation selectors."""
    if unicodedata.category(char) in {"Cc", "Cf", "Zs", "Zl", "Zp"}:
        return False
    return not unicodedata.name(char, "").startswith("VARIATION SELECTOR")


@contextlib.contextmanager
def _without_glyph_warnings() -> Iterator[None]:
    """font_families has said it once; matplotlib would say it for every character, each time it draws."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")  # before 3.11
        yield
