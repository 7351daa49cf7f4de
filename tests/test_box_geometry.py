"""Boxes move with the pixels that they are drawn around, and back."""

import numpy as np
import pytest

from seq2attn.images import AUGMENTATIONS, Geometric, ImageReader, Mosaic
from seq2attn.images.augmentation import Affine, ColorJitter, Crop, Flip, ScaleJitter, changed
from seq2attn.images.geometry import clipped, composed, identity, inverse, moved

GEOMETRIC = sorted(name for name, kind in AUGMENTATIONS.items() if issubclass(kind, Geometric))
BOX = np.array([[14.0, 9.0, 31.0, 22.0]])
LARGE = (0.0, 0.0, 48.0, 40.0)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(box: np.ndarray = BOX, height: int = 40, width: int = 48) -> np.ndarray:
    """A white rectangle on black."""
    image = np.zeros((height, width, 1), np.uint8)
    left, top, right, bottom = box[0].astype(int)
    image[top:bottom, left:right] = 255
    return image


def seen(image: np.ndarray) -> np.ndarray:
    """The box around the pixels that are more white than black."""
    rows, columns = np.nonzero(image[:, :, 0] > 127)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def test_matrices_compose_and_have_inverses():
    first, second = (np.array([[1.5, 0.2, 3], [-0.3, 0.8, -4]]), np.array([[0.5, -0.4, 9], [0.1, 2.0, 1]]))
    point = np.array([3.0, -7.0, 1.0])
    assert composed(first, second) @ point == pytest.approx(first @ [*(second @ point), 1.0])
    for matrix in (first, second):
        assert composed(matrix, inverse(matrix)) == pytest.approx(identity(), abs=1e-12)


@pytest.mark.parametrize("name", GEOMETRIC)
def test_a_box_that_is_moved_and_moved_back_is_the_same(name):
    for seed in range(30):
        options = {"rotate": 0} if name == "affine" else {}
        _, matrix = changed(drawn(), [AUGMENTATIONS[name](**options)], random(seed))
        assert moved(moved(BOX, inverse(matrix)), matrix) == pytest.approx(BOX, abs=1e-9)


def test_a_turned_box_is_the_hull_of_its_corners_and_contains_what_it_contained():
    matrix = Affine(rotate=90, scale=0, translate=0).matrix(40, 48, random(3))
    turned = moved(BOX, inverse(matrix))
    back = moved(turned, matrix)
    assert (back[:, :2] <= BOX[:, :2] + 1e-9).all() and (back[:, 2:] >= BOX[:, 2:] - 1e-9).all()
    corners = (
        np.array([[14, 9], [31, 9], [31, 22], [14, 22]]) @ inverse(matrix)[:, :2].T + inverse(matrix)[:, 2]
    )
    assert turned[0] == pytest.approx([*corners.min(0), *corners.max(0)])


@pytest.mark.parametrize("name", GEOMETRIC)
def test_the_rectangle_that_is_drawn_and_its_box_stay_together(name):
    compared = 0
    for seed in range(40):
        options = {"rotate": 0} if name == "affine" else {}
        image, matrix = changed(drawn(), [AUGMENTATIONS[name](**options)], random(seed))
        boxes, left = clipped(moved(BOX, inverse(matrix)), LARGE)
        if left.all():
            compared += 1
            assert np.abs(seen(image) - boxes[0]).max() <= 1
    assert compared >= 20


def test_changes_one_after_the_other_have_the_composed_matrix():
    changes = [
        Affine(rotate=0, scale=0.3, translate=0.7),
        ColorJitter(),
        Flip(probability=1.0),
        ScaleJitter(),
    ]
    lost = 0
    for seed in range(60):
        image, matrix = changed(drawn(), changes, random(seed))
        boxes, left = clipped(moved(BOX, inverse(matrix)), LARGE)
        if left.all() and (image > 127).any():
            assert np.abs(seen(image) - boxes[0]).max() <= 1  # also of what was outside between two changes
        first, generator = changed(drawn(), changes[:1], random(seed)), random(seed)
        lost += bool((first.image > 127).sum() < 100)
        step = [change.matrix(40, 48, generator) for change in changes if isinstance(change, Geometric)]
        assert matrix == pytest.approx(composed(composed(step[0], step[1]), step[2]))
    assert lost > 5


def test_what_a_change_fills_stays_filled_after_a_flip():
    image = changed(drawn(), [Crop(padding=9, fill=77), Flip(probability=1.0)], random(1)).image
    assert (image == 77).any() and {*np.unique(image)} <= {0, 77, 255}


def test_scale_jitter_is_within_its_factors_and_stretches():
    factors = []
    for seed in range(300):
        matrix = ScaleJitter(smallest=0.25, largest=4.0, stretch=0.44).matrix(40, 48, random(seed))
        factors.append(1 / np.diag(matrix[:, :2]))
        size = 1 / np.sqrt(np.prod(np.diag(matrix[:, :2])))
        assert 0.25 <= size <= 4.0
        corners = moved(np.array([[0.0, 0.0, 48.0, 40.0]]), inverse(matrix))[0]
        inside = (
            corners[:2] >= -1e-9 if size < 0.8 else corners[:2] <= 1e-9 if size > 1.25 else np.array([True])
        )
        assert inside.all()
    across, down = np.array(factors).T
    assert 1.4 < (across / down).max() <= 1.44 + 1e-9 and 1.4 < (down / across).max() <= 1.44 + 1e-9
    assert 0.4 < np.mean(np.sqrt(across * down) < 1) < 0.6  # as likely smaller as larger


def test_boxes_are_cut_off_and_dropped_below_a_fifth():
    boxes = np.array([[-8.0, 0, 2, 10], [-8.1, 0, 2, 10], [46, 38, 50, 42], [60, 0, 70, 10], [5, 5, 9, 9]])
    inside, left = clipped(boxes, LARGE)
    assert left.tolist() == [True, False, True, False, True]
    assert inside[left].tolist() == [[0, 0, 2, 10], [46, 38, 48, 40], [5, 5, 9, 9]]
    nothing, none_left = clipped(np.zeros((0, 4)), LARGE)
    assert nothing.shape == (0, 4) and none_left.shape == (0,)


@pytest.mark.parametrize("size", [(20, 24), (17, 31), (64, 64), (40, 48)])
@pytest.mark.parametrize("how", ["fit", "stretch", "crop", "shrink"])
def test_resizing_moves_boxes_as_the_reader_says(how, size):
    reader = ImageReader("grey", size, how)
    image = reader.read(drawn())
    matrix, result = reader.geometry(40, 48)
    assert image.shape[:2] == result
    box = clipped(moved(BOX, inverse(matrix)), (0.0, 0.0, result[1], result[0]))[0][0]
    assert np.abs(seen(image) - box).max() <= 1
    assert moved(moved(BOX, inverse(matrix)), matrix) == pytest.approx(BOX)


def test_without_a_size_nothing_moves():
    matrix, size = ImageReader("grey").geometry(7, 5)
    assert (matrix == identity()).all() and size == (7, 5)


def test_a_mosaic_has_four_images_whose_boxes_stay_with_them():
    sizes = [(40, 48), (20, 24), (60, 48), (40, 90)]
    images = [drawn(BOX if number != 1 else BOX / 2, *size) for number, size in enumerate(sizes)]
    seen_tiles = 0
    for seed in range(30):
        mosaic, tiles = Mosaic(fill=0).apply(images, (40, 48), random(seed))
        assert mosaic.shape == (40, 48, 1)
        covered = np.zeros((40, 48), int)
        for number, tile in enumerate(tiles):
            left, top, right, bottom = tile.window
            covered[top:bottom, left:right] += 1
            whole = np.floor(BOX / 2) if number == 1 else BOX
            boxes, kept = clipped(moved(whole, inverse(tile.matrix)), tile.window)
            part = np.zeros_like(mosaic)
            part[top:bottom, left:right] = mosaic[top:bottom, left:right]
            if kept.all() and (part > 127).any():
                seen_tiles += 1
                assert np.abs(seen(part) - boxes[0]).max() <= 1.01
        assert (covered == 1).all()
    assert seen_tiles >= 40


def test_a_mosaic_is_drawn_with_its_probability_and_has_the_image_in_any_corner():
    rows = [Mosaic().draw(5, 100, random(seed)) for seed in range(200)]
    assert all(5 in four and len(four) == 4 for four in rows)
    assert {four.index(5) for four in rows} == {0, 1, 2, 3}
    alone = [Mosaic(probability=0.3).draw(5, 100, random(seed)) == [5] for seed in range(400)]
    assert 0.6 < np.mean(alone) < 0.8
