"""Images in strokes of a pen: how they are read and drawn, and how training draws them in another way."""

import gzip
import json
import os
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_images
import tiny_runs
from PIL import Image

import seq2attn
from seq2attn.data import DataError
from seq2attn.data.image_batches import ImageBatchLoader
from seq2attn.data.image_plan import BatchLimits
from seq2attn.data.images import ImageExamples, prepare_images
from seq2attn.images import ImageError, ImageReader
from seq2attn.images.redrawing import Redraw
from seq2attn.images.strokes import Drawing
from seq2attn.recipe import ImageDataRecipe, RecipeError, read
from seq2attn.text.word_vocabulary import Labels

DATA = os.environ.get("SEQ2ATTN_DATA")
STILL = {"rotate": 0, "slant": 0, "smallest": 1, "largest": 1, "stretch": 0, "jitter": 0, "thickness": 0}
CROSS = [[[0, 0], [20, 10]], [[0, 10], [10, 5], [20, 0]]]
BAR = [[[3, 4], [43, 4]]]


def drawing(strokes: list[Any] = CROSS, **options: Any) -> Drawing:
    points = np.array([point for stroke in strokes for point in stroke], np.float32)
    return Drawing(points, np.array(list(map(len, strokes)), np.int32), **options)


def ink(image: Drawing) -> np.ndarray:
    """How much of each pixel is covered, from 0 to 1."""
    values = np.asarray(image.draw(), float) / 255
    return 1 - values if image.dark else values


# ---- drawing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_bar_covers_its_length_times_the_width_of_the_pen_and_two_halves_of_a_circle(width: int) -> None:
    area = ink(drawing(BAR, width=width)).sum()
    assert area == pytest.approx(40 * width + np.pi * width**2 / 4, rel=0.08)


def test_the_image_ends_at_the_margin_around_the_points_wherever_they_are() -> None:
    covered = ink(drawing(BAR, width=2, margin=5))
    assert covered.shape == (10, 50)
    rows, columns = np.nonzero(covered > 0.4)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 5, 4, 45)
    assert (ink(drawing([[[1003, -96], [1043, -96]]], margin=5)) == covered).all()


def test_a_single_point_is_a_dot() -> None:
    assert ink(drawing([[[7, 7]]], width=4, margin=4)).sum() == pytest.approx(4 * np.pi, rel=0.1)


def test_ink_is_dark_or_light() -> None:
    light = np.asarray(drawing(dark=False).draw())
    assert 255 - light == pytest.approx(np.asarray(drawing().draw()), abs=1)  # a half is rounded up
    assert light[0, 0] == 0 and light.max() == 255


def test_a_file_of_strokes_is_read_like_any_image() -> None:
    content = drawing(width=1.5, margin=2, dark=False).content
    back = Drawing.of(content)
    assert back is not None and back.content == content and back[2:] == (1.5, 2, False)
    assert (ImageReader("grey").read(content)[:, :, 0] == np.asarray(back.draw())).all()
    assert ImageReader("rgb", (8, 8), "stretch").read(content).shape == (8, 8, 3)
    assert Drawing.of(b"\x89PNG") is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (drawing().content[:-4], "damaged image"),
        (drawing().content[:12], "damaged image"),
        (drawing([[[0, 0], [np.nan, 1]]]).content, "damaged image"),
        (drawing()._replace(lengths=np.array([6, -1], np.int32)).content, "damaged image"),
        (drawing([[[0, 0], [1e9, 1e9]]]).content, "too large image"),
    ],
)
def test_a_damaged_file_of_strokes_is_an_error(content: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as raised:
        ImageReader("grey").read(content)
    assert raised.value.reason == reason


# ---- drawing in another way ------------------------------------------------------------------------------


def test_without_any_range_nothing_changes() -> None:
    redrawn = Redraw(**STILL).apply(drawing(), np.random.default_rng(1))
    assert redrawn.content == drawing().content


def test_the_generator_determines_the_drawing() -> None:
    seeds = (*range(6), *range(6))
    contents = [Redraw().apply(drawing(), np.random.default_rng(seed)).content for seed in seeds]
    assert contents[:6] == contents[6:] and len(set(contents)) == 6


def moves(**options: Any) -> list[np.ndarray]:
    """The matrices (2, 2) by which the two arms of a corner move, with several generators."""
    corner = drawing([[[0, 0], [10, 0]], [[0, 0], [0, -10]]])
    change = Redraw(**{**STILL, **options})
    points = [change.apply(corner, np.random.default_rng(seed)).points for seed in range(30)]
    return [np.stack([(p[1] - p[0]) / 10, (p[2] - p[3]) / 10], 1).astype(float) for p in points]


def test_rotation_keeps_shapes_within_the_largest_angle() -> None:
    angles = []
    for matrix in moves(rotate=5):
        assert matrix.T @ matrix == pytest.approx(np.eye(2), abs=1e-5)
        angles.append(np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0])))
    assert 3 < max(angles) < 5 and -5 < min(angles) < -3


def test_a_slant_keeps_heights_and_moves_the_top_to_the_right_or_left() -> None:
    slants = []
    for matrix in moves(slant=0.3):
        assert matrix[[0, 1, 1], [0, 0, 1]] == pytest.approx([1, 0, 1], abs=1e-5)
        slants.append(-matrix[0, 1])
    assert 0.2 < max(slants) < 0.3 and -0.3 < min(slants) < -0.2


def test_sizes_are_those_of_scale() -> None:
    sides = np.array([np.diag(matrix) for matrix in moves(smallest=0.5, largest=2, stretch=0.2)])
    sizes, ratios = np.sqrt(sides.prod(1)), sides[:, 0] / sides[:, 1]
    assert 0.5 < sizes.min() < 0.7 and 1.5 < sizes.max() < 2
    assert 1 / 1.2 < ratios.min() < 0.9 and 1.1 < ratios.max() < 1.2


def test_strokes_move_by_themselves_and_stay_close() -> None:
    """Each by a matrix of its own, about its middle: what was straight stays so."""
    shifts = []
    for seed in range(30):
        redrawn = Redraw(**{**STILL, "jitter": 0.1}).apply(drawing(), np.random.default_rng(seed))
        first, second = redrawn.points[:2], redrawn.points[2:]
        assert second[1] == pytest.approx((second[0] + second[2]) / 2, abs=1e-4)
        shifts += [first.mean(0) - [10, 5], second[1] - [10, 5]]
    largest = np.abs(shifts).max()
    assert 1.5 < largest <= 2.0  # a tenth of the usual size, 20
    assert not np.allclose(shifts[0], shifts[1])


def test_the_ends_of_a_long_stroke_move_no_further_than_those_of_others() -> None:
    strokes = drawing([*CROSS, [[0, 30], [400, 30]]])
    change = Redraw(**{**STILL, "jitter": 0.1})
    moved = [change.apply(strokes, np.random.default_rng(seed)).points[-2:] for seed in range(30)]
    assert 2 < max(np.abs(points - strokes.points[-2:]).max() for points in moved) < 4


def test_the_pen_is_between_its_thinnest_and_thickest() -> None:
    change = Redraw(**{**STILL, "thickness": 1})
    widths = [change.apply(drawing(width=3), np.random.default_rng(seed)).width for seed in range(40)]
    assert 1.5 < min(widths) < 2 and 5 < max(widths) < 6


# ---- tables of strokes -----------------------------------------------------------------------------------


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


ROWS = [
    {"strokes": CROSS, "label": "cross"},
    {"strokes": [[3, 4, 43, 4]], "label": "bar"},
]


def prepared(path: Path, **options: Any) -> ImageExamples:
    data = section(path, **options)
    return prepare_images(data.train, data, "train")


def section(path: Path, augment: Any = (), **options: Any) -> ImageDataRecipe:
    corpus = {"strokes": str(path), **options}
    sections = {"train": corpus, "dev": corpus, "channels": "grey", "augment": list(augment)}
    return ImageDataRecipe.model_validate({**sections, "normalize": {"mean": [0.5], "std": [0.5]}})


def test_points_are_pairs_or_follow_each_other(tmp_path: Path) -> None:
    examples = prepared(table(tmp_path / "train.jsonl", ROWS), scale=0.5, pen=3, margin=4, ink="white")
    assert examples.targets == ["cross", "bar"]
    expected = drawing([[[1.5, 2], [21.5, 2]]], width=3, margin=4, dark=False)
    assert (examples.image(1)[:, :, 0] == np.asarray(expected.draw())).all()
    kept = examples.drawing(0)  # though its pixels are few
    assert kept is not None and kept.points.tolist() == (drawing().points / 2).tolist()
    assert kept.lengths.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("strokes", "reason"),
    [
        (None, "no strokes"),
        ([], "no strokes"),
        ([[]], "no strokes"),
        ([[1, 2, 3]], "no strokes"),
        ([[[1, 2, 3]]], "no strokes"),
        ([[[1, 2], [3]]], "no strokes"),
        ([["1", "2"]], "no strokes"),
        ([[True, False]], "no strokes"),
        ([[1e39, 0]], "no strokes"),
        ([[10**400, 0]], "no strokes"),
        ([[0, 0, 1e8, 1e8]], "too large image"),
    ],
)
def test_what_is_no_stroke_is_a_bad_row(tmp_path: Path, strokes: Any, reason: str) -> None:
    path = table(tmp_path / "train.jsonl", [ROWS[0], {"strokes": strokes, "label": "bar"}, ROWS[1]])
    with pytest.raises(DataError, match=f"{path}:2: "):
        prepared(path)
    data = section(path).model_copy(update={"bad_lines": "skip"})
    examples = prepare_images(data.train, data, "train")
    assert len(examples) == 2 and examples.report.reasons[reason].count == 1


def test_an_image_is_redrawn_by_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    path = table(tmp_path / "train.jsonl", ROWS * 4)

    def loader(seed: int = 5, augment: Any = ("redraw",)) -> ImageBatchLoader:
        data = section(path, augment)
        examples = prepare_images(data.train, data, "train")
        return ImageBatchLoader(examples, Labels(["bar", "cross"]), data, BatchLimits(8), seed)

    images = loader()
    seen = [images.image(row, epoch).tobytes() for epoch in (1, 2) for row in range(8)]
    assert len(set(seen)) == 16
    assert [loader().image(row, epoch).tobytes() for epoch in (1, 2) for row in range(8)] == seen
    assert images.image(0, None).tobytes() == loader(augment=()).image(0, 1).tobytes()  # as it is in the data
    assert loader(seed=6).image(0, 1).tobytes() != seen[0]


@pytest.mark.parametrize(
    ("augment", "words"),
    [(["flip", "redraw"], "redraw comes first"), (["redraw", "redraw"], "redraw comes first, and once")],
)
def test_redrawing_comes_first(tmp_path: Path, augment: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        section(table(tmp_path / "train.jsonl", ROWS), augment)


def test_redrawing_without_strokes_is_a_fault() -> None:
    with pytest.raises(RecipeError, match="redraw draws strokes, and no corpus of train has any"):
        read("digits", ["data.augment=redraw"])


def test_formulas_are_written_from_strokes_and_training_resumes_exactly(tmp_path: Path) -> None:
    rows = [{"ink": [CROSS[number % 2]], "text": ["down", "up"][number % 2]} for number in range(8)]
    path = table(tmp_path / "train.jsonl", rows)
    corpus = {"strokes": str(path), "columns": ["ink", "text"], "scale": 0.5, "margin": 2}
    data = dict.fromkeys(("train", "dev", "test"), corpus)
    sections = tiny_images.recipe(tmp_path, **data, channels="grey", augment=["redraw"])
    sections["training"] |= {"max_epochs": 2, "batch_images": 4, "validate_every": 2}

    def train(run: Path, **options: Any) -> str:
        seq2attn.train(sections, run, display=tiny_runs.silent(), device="cpu", **options)
        return tiny_runs.weights_hash(run)

    whole = train(tmp_path / "whole")
    train(tmp_path / "part", overrides=["training.max_steps=2"])
    assert train(tmp_path / "part", resume=True) == whole


@pytest.mark.skipif(not DATA, reason="needs image corpora in $SEQ2ATTN_DATA")
def test_formulas_of_crohme_look_as_their_images() -> None:
    """Which somebody else has drawn, with 16 shades."""
    folder = Path(str(DATA)) / "crohme"
    with gzip.open(folder / "test2014.jsonl.gz", "rt") as lines:
        rows = [json.loads(next(lines)) for _ in range(20)]
    with tarfile.open(folder / "test2014.images.tar.xz") as tar:
        files = {row["id"]: tar.extractfile(f"test2014/{row['id']}.png").read() for row in rows}  # type: ignore[union-attr]
    different = total = 0.0
    for row in rows:
        theirs = np.asarray(Image.open(BytesIO(files[row["id"]])).convert("L"), float)
        strokes = [np.array(stroke).reshape(-1, 2) / 4 for stroke in row["strokes"]]
        ours = np.asarray(drawing(strokes, dark=False).draw(), float)
        assert np.abs(np.subtract(ours.shape, theirs.shape)).max() <= 3  # who has left out points
        height, width = np.minimum(ours.shape, theirs.shape)
        different += np.abs(ours[:height, :width] - theirs[:height, :width]).sum()
        total += theirs.sum()
    assert different / total < 0.2
