"""Heat maps: every cell has its weight's colour, every word is readable, whatever its script."""

import io
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTCollection, TTFont
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.typing import NDArray

from seq2attn.views import fonts
from seq2attn.views.fonts import font_families
from seq2attn.views.heatmaps import COLORS, PlotError, heatmap, render, save

SOURCE, TARGET = ["Ich", "habe", "heute", "Hunger", "."], ["I", "am", "hungry"]
LONG = ["Verantwortungsbewusstsein", "außergewöhnlichen", "Wissenschaftlerinnen", "und", "Eigenschaften"]


def weights_of(rows: int, columns: int) -> NDArray[np.float64]:
    """A softmax-like table."""
    table: NDArray[np.float64] = np.random.default_rng(0).random((rows, columns)) ** 3
    return np.asarray(table / table.sum(1, keepdims=True))


def colors(figure: Figure, places: list[tuple[float, float]]) -> NDArray[np.float64]:
    """The colours of the picture at places of the heat map's axes."""
    picture = imread(io.BytesIO(render(figure)))
    x, y = (figure.axes[0].transData.transform(places) * 200 / figure.dpi).T
    return picture[len(picture) - 1 - y.astype(int), x.astype(int), :3]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with no fonts but those that come with matplotlib, whatever machine this is."""
    own = [f for f in font_manager.fontManager.ttflist if str(f.fname).startswith(matplotlib.get_data_path())]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    fonts._fallback.cache_clear()
    yield
    fonts._fallback.cache_clear()


def make_font(path: Path, family: str, characters: str) -> Path:
    """Write a font, .ttf or .ttc, that shows a square for each of the characters."""
    pen = TTGlyphPen(None)
    pen.moveTo((-50, 0))
    for corner in ((-50, 1000), (1050, 1000), (1050, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(char): "square" for char in characters})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(path)
    if path.suffix == ".ttc":
        collection = TTCollection()
        collection.fonts = [TTFont(path)]
        collection.save(path)
    return path


def test_the_colour_of_a_cell_is_its_weight() -> None:
    table, end = weights_of(3, 5), np.array([0.0, 0.4, 1.0])
    figure = heatmap(table, SOURCE, TARGET, extra_column=end)
    words = colors(figure, [(s + 0.5, t + 0.5) for t in range(3) for s in range(5)])
    np.testing.assert_allclose(words, COLORS(table.flatten())[:, :3], atol=0.01)
    place = figure.axes[0].get_xticks()[-1]
    expected = [[1.0, 1.0, 1.0], *COLORS(end[1:])[:, :3]]  # exactly 0 is white
    np.testing.assert_allclose(colors(figure, [(place, t + 0.5) for t in range(3)]), expected, atol=0.01)


def test_only_exact_zeros_are_white() -> None:
    cells = colors(heatmap([[0.0, 1e-9, 1e-3]], ["a", "b", "c"], ["x"]), [(0.5, 0.5), (1.5, 0.5), (2.5, 0.5)])
    assert cells[0].tolist() == [1, 1, 1] and (cells[1:, 0] < 0.9).all()


def test_the_end_of_sentence_is_set_apart() -> None:
    axes = heatmap(weights_of(3, 5), SOURCE, TARGET, extra_column=np.ones(3)).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [*SOURCE, "</s>"]
    assert [label.get_text() for label in axes.get_yticklabels()] == TARGET
    *between, last = [after - before for before, after in pairwise(axes.get_xticks())]
    assert set(between) == {1.0} and last > 1.2
    assert axes.yaxis_inverted()  # the first target word stands at the top
    assert heatmap(weights_of(3, 5), SOURCE, TARGET).axes[0].get_xlim() == (0, 5)


def test_equal_steps_of_weight_look_equal() -> None:
    """Lightness in OKLab (Ottosson 2020) falls along a straight line."""
    srgb = COLORS(np.linspace(0, 1, 33))[:, :3]
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_cones = [[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]]
    lightness = np.cbrt(linear @ np.transpose(to_cones)) @ [0.21045, 0.79362, -0.00407]
    assert (np.diff(lightness) < 0).all() and lightness[0] - lightness[-1] > 0.65
    np.testing.assert_allclose(lightness, np.linspace(lightness[0], lightness[-1], 33), atol=0.03)


def rotations(words: list[str]) -> set[float]:
    labels = heatmap(weights_of(3, len(words)), words, TARGET).axes[0].get_xticklabels()
    return {label.get_rotation() for label in labels}


def test_words_are_slanted_only_when_they_would_touch() -> None:
    labels = heatmap(weights_of(3, 5), SOURCE, TARGET).axes[0].get_xticklabels()
    boxes = [label.get_window_extent() for label in labels]
    assert all(before.x1 < after.x0 for before, after in pairwise(boxes))
    assert rotations(SOURCE) == {0.0}
    assert rotations(LONG) == rotations(LONG[:2]) == {50.0}
    labels = heatmap(weights_of(3, 25), SOURCE * 5, TARGET).axes[0].get_xticklabels()
    assert {label.get_text(): label.get_rotation() for label in labels} == {
        **dict.fromkeys(SOURCE, 50.0),
        ".": 0.0,  # a single character is read as it is
    }
    assert rotations(list("abcdefghij") * 5) == {0.0}


@pytest.mark.parametrize("rows, columns", [(1, 1), (3, 5), (1, 59), (59, 2), (61, 59)])
def test_the_figure_holds_all_ink_and_little_more(rows: int, columns: int) -> None:
    figure = heatmap(
        weights_of(rows, columns), (LONG * columns)[:columns], (LONG * rows)[:rows], "Title", np.zeros(rows)
    )
    width, height = figure.get_size_inches()
    ink = figure.get_tightbbox()
    for margin in (ink.x0, ink.y0, width - ink.x1, height - ink.y1):
        assert 0.05 < margin < 0.25
    assert width < 18 and height < 18
    assert all(float(label.get_fontsize()) >= 7 for label in figure.axes[0].get_yticklabels())


def test_a_long_title_is_wrapped() -> None:
    plain, long = (heatmap(weights_of(3, 5), SOURCE, TARGET, "word " * n) for n in (1, 60))
    assert long.get_size_inches()[0] < plain.get_size_inches()[0] + 1
    assert long.axes[0].get_title(loc="left").count("\n") >= 3


def test_words_are_drawn_literally() -> None:
    words = [r"$\frac$", "$x$", "a_b^c", r"\alpha", "100%", "&amp;"]  # the first is no valid formula
    figure = heatmap(weights_of(6, 6), words, words, "$ _ \\frac")
    labels = [*figure.axes[0].get_xticklabels(), *figure.axes[0].get_yticklabels()]
    assert [label.get_text() for label in labels] == words * 2
    assert render(figure)


def test_odd_words_do_no_harm() -> None:
    words = ["שלום", "مرحبا", "", " ", "\n", "a\x00b", "\ud800", "e\u0301", "\u200d", "x\U000e0100", "\u3000"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = heatmap(weights_of(len(words), len(words)), words, words)
        assert render(figure) and render(figure, "svg") and render(figure, "pdf")
    shown = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert shown[4:7] == [r"\n", r"a\x00b", r"\ud800"]


def test_a_missing_font_is_named_once_and_the_rest_is_drawn(bare: None) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure = heatmap(weights_of(3, 3), ["日本", "です", "日"], ["नमस्ते", "x", "🙂"])
        assert render(figure)
    assert [str(warning.message) for warning in caught] == [
        "no installed font shows Han characters (日本): install for example Noto Sans CJK SC (Debian: fonts-noto-cjk)",
        "no installed font shows kana characters (です): install for example Noto Sans CJK JP (Debian: fonts-noto-cjk)",
        "no installed font shows Devanagari characters (नमस्ते): install for example Noto Sans Devanagari (Debian: fonts-noto-core)",
        "no installed font shows symbol characters (🙂): install for example Symbola (Debian: fonts-symbola)",
    ]


@pytest.mark.parametrize("suffix", [".ttf", ".ttc"])
def test_a_font_that_has_the_characters_is_used(bare: None, tmp_path: Path, suffix: str) -> None:
    path = make_font(tmp_path / f"han{suffix}", f"Squares {suffix[1:]}", "日本")
    font_manager.fontManager.addfont(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = heatmap([[0.0]], ["日本日本"], ["x"])
        label = figure.axes[0].get_xticklabels()[0]
        assert label.get_fontfamily() == ["DejaVu Sans", f"Squares {suffix[1:]}"]
        assert render(figure, "svg") and render(figure, "pdf")
    # four squares that touch: a dark line longer than any letter
    dark = imread(io.BytesIO(render(figure)))[:, :, :3].mean(2) < 0.25
    longest = max(len(run) for row in dark for run in "".join(" #"[int(pixel)] for pixel in row).split())
    assert longest == pytest.approx(4 * float(label.get_fontsize()) * 200 / 72, abs=5)


def test_a_font_installed_since_matplotlib_looked_is_found(
    bare: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_font(tmp_path / "new.ttf", "New Squares", "字")
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(tmp_path / "broken.ttf"), str(path)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert font_families("字 a") == ["DejaVu Sans", "New Squares"]


def test_fonts_of_the_script_come_first(bare: None, tmp_path: Path) -> None:
    for family in ("Aaa", "Noto Sans CJK SC", "Noto Sans CJK JP"):
        font_manager.fontManager.addfont(make_font(tmp_path / f"{family}.ttf", family, "日の"))
    assert font_families("日") == ["DejaVu Sans", "Noto Sans CJK SC"]
    assert font_families("日の") == ["DejaVu Sans", "Noto Sans CJK JP"]  # kana: Han as Japanese writes them
    assert font_families("plain, с кириллицей") == ["DejaVu Sans"]


def test_fonts_that_come_with_matplotlib_help_out(bare: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert font_families("𝓐") == ["DejaVu Sans", "STIXGeneral"]


@pytest.mark.parametrize(
    "suffix, start", [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")]
)
def test_the_suffix_decides_the_format(tmp_path: Path, suffix: str, start: bytes) -> None:
    path = tmp_path / f"map{suffix}"
    assert save(heatmap(weights_of(3, 5), SOURCE, TARGET), str(path)) == path
    assert path.read_bytes().startswith(start)


def test_the_users_style_changes_nothing() -> None:
    def picture() -> bytes:
        return render(heatmap(weights_of(3, 5), SOURCE, TARGET, "Title", np.zeros(3)))

    style: dict[Any, Any] = {
        "text.usetex": True,
        "axes.grid": True,
        "xtick.minor.visible": True,
        "figure.constrained_layout.use": True,
        "figure.dpi": 37,
        "savefig.facecolor": "black",
        "figure.facecolor": "black",
        "axes.facecolor": "black",
        "text.color": "white",
    }
    plain = picture()
    with matplotlib.rc_context(style):
        assert picture() == plain


def test_no_display_and_no_pyplot() -> None:
    program = (
        "import sys; from seq2attn.views.heatmaps import *; render(heatmap([[1.0]], ['a'], ['b'])); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "DISPLAY"} | {"MPLBACKEND": "TkAgg"}
    subprocess.run(
        [sys.executable, "-c", program], check=True, env=environment, cwd=Path(__file__).parents[1]
    )


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: heatmap(np.zeros((0, 3)), ["a", "b", "c"], []), "nothing to draw: .* at least one source and one target"),
        (lambda: heatmap(np.zeros((2, 0)), [], ["a", "b"]), "nothing to draw"),
        (lambda: heatmap(weights_of(3, 5), TARGET, SOURCE), r"5 target by 3 source words, got shape \(3, 5\)"),
        (lambda: heatmap([[np.nan]], ["a"], ["b"]), "finite weights, got nan or infinity"),
        (lambda: heatmap([[1.0]], ["a"], ["b"], extra_column=[0.1, 0.2]), r"1 target by 1 .* got shape \(2, 1\)"),
        (lambda: save(heatmap([[1.0]], ["a"], ["b"]), "map.jpg"), "ends in .png, .svg or .pdf, got 'map.jpg'"),
        (lambda: save(heatmap([[1.0]], ["a"], ["b"]), "map"), "ends in .png, .svg or .pdf, got 'map'"),
        (lambda: save(heatmap([[1.0]], ["a"], ["b"]), "no/where/map.png"), "there is no folder no/where; make it first"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(call: Callable[[], object], message: str) -> None:
    with pytest.raises(PlotError, match=message):
        call()


@pytest.mark.parametrize(("largest", "ends"), [(0.4, "1"), (1.0000001, "1"), (2.0, "2"), (1.5, "1.5")])
def test_colours_end_at_one_or_at_the_largest_weight(largest, ends):
    figure = heatmap([[largest, 0.0]], ["a", "b"], ["c"], extra_column=[0.1])
    labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert labels[0] == "0" and labels[-1] == ends
    meshes = figure.axes[0].collections
    assert len(meshes) == 2 and {mesh.get_clim() for mesh in meshes} == {(0, float(ends))}
