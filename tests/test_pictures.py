"""Pictures of weights: their scale and texts, their bounds, their files, grids, and axes of the user's."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from seq2attn.views import pictures
from seq2attn.views.grids import Panel, grid
from seq2attn.views.heatmaps import Look, PlotError, Texts, heatmap, render, save

WORDS = ["Ich", "habe", "Hunger", "."]
TABLE = np.array([[0.5, 0.25, 0.25, 0.0], [0.0, 0.1, 0.1, 0.0], [0.0, 0.0, 0.4, 0.2]])
ROWS = ["I", "am", "hungry"]


def words(figure: Figure, number: int = 0) -> list[str]:
    return [label.get_text() for label in figure.axes[number].get_xticklabels()]


@pytest.mark.parametrize(
    ("weights", "scale", "largest"), [(TABLE, "fixed", 1), (TABLE, "auto", 0.5), (TABLE * 4, "fixed", 2), (TABLE * 0, "auto", 1)]
)  # fmt: skip
def test_the_scale_is_fixed_or_follows_the_weights(weights: np.ndarray, scale: str, largest: float) -> None:
    figure = heatmap(weights, WORDS, ROWS, look=Look(scale=scale))  # type: ignore[arg-type]
    assert figure.axes[0].collections[0].get_clim() == (0, largest)
    assert figure.axes[1].get_ylabel() == "weight" and words(figure) == WORDS
    tall = heatmap(np.full((9, 1), 0.1), ["a"], ["b"] * 9).axes[1]
    assert tall.get_ylabel() == "weight"


def test_axes_have_titles_and_the_picture_a_caption() -> None:
    axes = heatmap(TABLE, WORDS, ROWS, texts=Texts("source", "target", "layer 4")).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("source", "target")
    assert [text.get_text() for text in axes.texts] == ["layer 4"]
    figure = heatmap(TABLE, WORDS, ROWS, "A title", texts=Texts("source", "target", "layer 4"))
    boxes = [
        figure.axes[0].title,
        figure.axes[0]._left_title,
        figure.axes[0].xaxis.label,
        *figure.axes[0].texts,
    ]  # type: ignore[attr-defined]
    extents = [box.get_window_extent() for box in boxes if box.get_text()]
    assert not any(one.overlaps(other) for one in extents for other in extents if one is not other)


def test_source_words_from_right_to_left() -> None:
    figure = heatmap(TABLE, WORDS, ROWS, extra_column=[0.1, 0.2, 0.3], look=Look(right_to_left=True))
    places = [label.get_window_extent().x0 for label in figure.axes[0].get_xticklabels()]
    assert places == sorted(places, reverse=True) and words(figure)[-1] == "</s>"


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_the_same_weights_give_the_same_file(tmp_path: Path, form: str) -> None:
    files = [
        save(heatmap(TABLE, WORDS, ROWS, "Title"), tmp_path / f"{n}.{form}").read_bytes() for n in range(2)
    ]
    assert files[0] == files[1]
    assert not re.search(rb"CreationDate|<dc:date>", files[0])


def test_text_in_svg_is_text() -> None:
    svg = render(heatmap(TABLE, WORDS, ROWS, "A title"), "svg").decode()
    assert all(f">{word}</text>" in svg for word in [*WORDS, *ROWS, "A title"])


def test_notebooks_show_the_figure_itself() -> None:
    figure = heatmap(TABLE, WORDS, ROWS)
    assert figure._repr_png_() == render(figure)  # type: ignore[attr-defined]


def test_axes_of_ones_own() -> None:
    figure = Figure(figsize=(9, 4))
    left, right = figure.subplots(1, 2)
    assert heatmap(TABLE, WORDS, ROWS, "left", ax=left) is figure
    heatmap(np.repeat(TABLE, 9, 1), WORDS * 9, ROWS, ax=right)
    assert words(figure) == WORDS and len(figure.axes) == 2
    assert left.get_xticklabels()[0].get_rotation() == 0 and right.get_xticklabels()[0].get_rotation() == 50
    assert tuple(figure.get_size_inches()) == (9, 4) and render(figure).startswith(b"\x89PNG")


# ---- bounds ------------------------------------------------------------------------------------------


def test_long_words_are_shortened() -> None:
    figure = heatmap([[1.0]], ["x" * 1500], ["y" * 1500], "z" * 100_000)
    width, height = figure.get_size_inches()
    assert width < 8 and height < 8
    assert words(figure) == ["x" * 39 + "…"]


def test_a_large_picture_has_fewer_pixels_an_inch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 100_000)
    picture = imread(io.BytesIO(render(heatmap(np.ones((30, 60)), ["word"] * 60, ["word"] * 30))))
    assert 80_000 < picture.shape[0] * picture.shape[1] <= 101_000


def test_more_cells_than_a_vector_file_should_have_are_an_image() -> None:
    large, small = (heatmap(np.ones((n, n)), ["w"] * n, ["w"] * n) for n in (150, 2))
    # the color bar is an image in both
    assert [render(figure, "svg").count(b"<image") for figure in (large, small)] == [2, 1]


def test_more_words_than_a_picture_can_show_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        PlotError, match=r"at most 1,000 words on a side, got 1,001 source and 1 target words"
    ):
        heatmap(np.ones((1, 1001)), ["w"] * 1001, ["w"])
    monkeypatch.setattr(pictures, "MAX_CELLS", 20)
    with pytest.raises(
        PlotError, match=r"at most 20 weights, got 24: give a shorter text, or choose one layer"
    ):
        grid([[Panel("a", TABLE), Panel("b", TABLE)]], WORDS, ROWS)
    with pytest.raises(PlotError, match="expected the scale fixed or auto, got 'big'"):
        heatmap(TABLE, WORDS, ROWS, look=Look(scale="big"))  # type: ignore[arg-type]


# ---- grids -------------------------------------------------------------------------------------------


def test_a_grid_has_a_map_for_each_layer_and_head() -> None:
    maps = [
        [Panel(f"layer {row}, head {n}", TABLE / (1 + row + n)) for n in range(3 - row)] for row in range(2)
    ]
    figure = grid(maps, WORDS, ROWS, Texts("source", "target"), Look(scale="auto"))
    bar, *panels = figure.axes
    assert [text.get_text() for axes in panels for text in axes.texts] == [
        *["layer 0, head 0", "layer 0, head 1", "layer 0, head 2"],
        *["layer 1, head 0", "layer 1, head 1"],
    ]
    for axes, panel in zip(panels, [panel for row in maps for panel in row], strict=True):
        np.testing.assert_array_equal(np.asarray(axes.collections[0].get_array()), panel.weights)
        assert axes.collections[0].get_clim() == (0, 0.5)  # one scale for all
    assert bar.get_ylabel() and words(figure, 1) == WORDS and words(figure, 4) == []
    boxes = [axes.get_window_extent() for axes in panels]
    assert not any(one.overlaps(other) for one in boxes for other in boxes if one is not other)
    assert render(figure) == render(grid(maps, WORDS, ROWS, Texts("source", "target"), Look(scale="auto")))


def test_a_grid_of_long_texts_has_no_words() -> None:
    figure = grid([[Panel("a", np.ones((60, 60)))]], ["word"] * 60, ["word"] * 60)
    assert words(figure, 1) == [] and max(figure.get_size_inches()) < 4
