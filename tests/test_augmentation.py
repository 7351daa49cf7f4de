"""Random changes of training images: what each does, and that its generator determines it."""

import numpy as np
import pytest

from seq2attn.images import AUGMENTATIONS, Augmentation, Geometric
from seq2attn.images.augmentation import (
    Affine,
    ColorJitter,
    Crop,
    Elastic,
    Erase,
    Flip,
    Mixup,
    RandomCrop,
    Scale,
    changed,
)
from seq2attn.images.geometry import between, warp

CHANGES = sorted(name for name, kind in AUGMENTATIONS.items() if issubclass(kind, Augmentation))
GEOMETRIC = sorted(name for name, kind in AUGMENTATIONS.items() if issubclass(kind, Geometric))


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return random(9).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 3), (7, 5, 1), (32, 32, 3)])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_keeps_the_size_and_the_original(name, shape):
    change = AUGMENTATIONS[name]()
    image = noise(*shape)
    image.flags.writeable = False  # as those of the store are
    before = image.copy()
    for seed in range(20):
        result = change.apply(image, random(seed))
        assert result.shape == shape or (name == "scale" and result.shape[2:] == shape[2:])
        assert result.dtype == np.uint8
    assert (image == before).all()


@pytest.mark.parametrize("name", CHANGES)
def test_the_generator_determines_a_change(name):
    image = noise(16, 12)
    options = {"size": 8} if name == "random_crop" else {}
    results = [
        AUGMENTATIONS[name](**options).apply(image, random(seed)).tobytes() for seed in (*range(8), *range(8))
    ]
    assert results[:8] == results[8:] and len(set(results)) > 1


def test_flip_mirrors():
    image = noise(5, 8)
    assert (Flip(probability=1.0).apply(image, random()) == image[:, ::-1]).all()
    assert (Flip(probability=1.0, direction="vertical").apply(image, random()) == image[::-1]).all()
    assert (Flip(probability=0.0).apply(image, random()) == image).all()
    flipped = [(Flip(probability=0.3).apply(image, random(seed)) != image).any() for seed in range(400)]
    assert 0.2 < np.mean(flipped) < 0.4


def test_crop_is_a_window_of_the_padded_image():
    image, fill = noise(6, 5), 77
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), constant_values=fill)
    windows = {
        padded[top : top + 6, left : left + 5].tobytes(): (top, left)
        for top in range(5) for left in range(5)
    }  # fmt: skip
    seen = {windows[Crop(padding=2, fill=fill).apply(image, random(seed)).tobytes()] for seed in range(300)}
    assert len(seen) == 25  # each of them occurs


def test_random_crop_is_a_window_and_leaves_small_sides_whole():
    image = noise(6, 9)
    windows = {image[top : top + 4, left : left + 4].tobytes() for top in range(3) for left in range(6)}
    seen = {RandomCrop(size=4).apply(image, random(seed)).tobytes() for seed in range(300)}
    assert seen == windows
    assert RandomCrop(size=8).apply(image, random()).shape == (6, 8, 3)


def test_scale_changes_the_size_of_the_image_and_what_follows_sees_the_new_one():
    image = np.repeat(np.repeat(noise(5, 4), 8, 0), 8, 1)  # 40 x 32, in squares of 8 x 8
    sizes = set()
    for seed in range(40):
        scaled = Scale(smallest=0.5, largest=2.0, stretch=0.2).apply(image, random(seed))
        rows, columns = scaled.shape[0] / 40, scaled.shape[1] / 32
        assert 0.45 < rows < 2.25 and 1 / 1.25 < rows / columns < 1.25
        middles = scaled[(np.arange(5) * 8 * rows + 4 * rows).astype(int)][
            :, (np.arange(4) * 8 * columns + 4 * columns).astype(int)
        ]
        assert np.abs(middles.astype(int) - image[4::8, 4::8]).max() <= 1
        sizes.add(scaled.shape)
        both = changed(image, [Scale(smallest=0.5, largest=0.5), RandomCrop(size=20)], random(seed))
        assert both.image.shape == (20, 16, 3)
    assert len(sizes) > 20


def test_affine_without_any_range_changes_nothing():
    image = noise(9, 11)
    assert (Affine(rotate=0, scale=0, translate=0).apply(image, random()) == image).all()


class Drawing(np.random.Generator):
    """Draws these numbers."""

    def __init__(self, *numbers: float) -> None:
        super().__init__(np.random.PCG64())
        self.numbers = np.array(numbers)

    def uniform(self, *arguments: object, **options: object) -> np.ndarray:
        return self.numbers


def test_affine_leans_upright_lines_about_the_centre():
    matrix = Affine(rotate=0, scale=0, translate=0, shear=30).matrix(10, 20, random(3))
    assert matrix[1] == pytest.approx([0, 1, 0]) and matrix[0, 0] == 1
    assert matrix @ [10, 5, 1] == pytest.approx([10, 5])
    leans = [Affine(shear=30, rotate=0, scale=0).matrix(10, 20, random(seed))[0, 1] for seed in range(50)]
    assert 0.4 < max(leans) < np.tan(np.pi / 6) and -np.tan(np.pi / 6) < min(leans) < -0.4


def test_affine_turns_clockwise_scales_and_shifts():
    image = noise(8, 8)
    turned = Affine(rotate=90, scale=0, translate=0).apply(image, Drawing(1, 0, 0, 0))
    assert np.abs(turned.astype(int) - np.rot90(image, -1)).max() <= 1
    shifted = Affine(rotate=0, scale=0, translate=0.25).apply(image, Drawing(0, 0, 1, -1))
    assert (shifted[:6, 2:] == image[2:, :6]).all() and not shifted[6:].any() and not shifted[:, :2].any()
    half = Affine(rotate=0, scale=0.5, translate=0).apply(
        np.full((8, 8, 1), 255, np.uint8), Drawing(0, -1, 0, 0)
    )
    assert (half[2:6, 2:6] == 255).all() and half.sum() == 16 * 255


@pytest.mark.parametrize("name", GEOMETRIC)
def test_a_point_moves_as_the_matrix_says(name):
    """So boxes and masks can move with the image."""
    slight = {"smallest": 0.8, "largest": 1.2} if name == "scale_jitter" else {}  # the dot stays in sight
    change = AUGMENTATIONS[name](**slight)
    for seed in range(12):
        image = np.zeros((40, 30, 1), np.uint8)
        image[17:20, 11:14] = 255  # its middle is at x 12.5, y 18.5
        matrix = change.matrix(40, 30, random(seed))
        moved = change.apply(image, random(seed))[:, :, 0].astype(float)
        rows, columns = np.indices(moved.shape)
        position = np.array([(moved * (columns + 0.5)).sum(), (moved * (rows + 0.5)).sum()]) / moved.sum()
        origin = position if matrix is None else matrix @ [*position, 1.0]
        assert np.abs(origin - [12.5, 18.5]).max() < 0.25


def test_what_comes_from_outside_is_filled():
    assert (warp(noise(4, 4), np.array([[1.0, 0, 9], [0, 1, 0]]), fill=50) == 50).all()
    assert (warp(noise(4, 4, 1), np.array([[1.0, 0, 0], [0, 1, -9]]), fill=50) == 50).all()


def test_elastic_bends_smoothly_and_takes_nothing_from_outside():
    columns = np.broadcast_to(np.arange(0, 240, 4, dtype=np.uint8), (40, 60))
    rows = np.broadcast_to(np.arange(0, 160, 4, dtype=np.uint8)[:, None], (40, 60))
    image = np.stack([columns, rows, np.full_like(rows, 90)], axis=2)
    change = Elastic(spacing=10.0, shift=1.5)
    shifts = []
    for seed in range(60):
        moved = change.apply(image, random(seed))
        assert (moved[..., 2] == 90).all()
        shift = (moved[8:-8, 8:-8, :2].astype(float) - image[8:-8, 8:-8, :2]) / 4  # where nothing is cut off
        slopes = [np.abs(np.diff(shift, axis=axis)) for axis in (0, 1)]
        assert max(slope.max() for slope in slopes) < 1.8 and max(slope.mean() for slope in slopes) < 0.3
        shifts.append(shift)
    assert 0.9 < np.std(shifts) < 1.5 and abs(np.mean(shifts)) < 0.1  # between its points less than 1.5
    seen = change.apply(noise(30, 20), random(3)), change.apply(noise(30, 20), random(3))
    assert (seen[0] == seen[1]).all()
    for size in ((1, 1), (1, 9), (9, 1)):
        assert Elastic(shift=40.0).apply(noise(*size), random()).shape == (*size, 3)


def test_pixels_between_four_are_their_bilinear_mean():
    image = noise(5, 7)
    rows, columns = np.indices((5, 7), dtype=np.float32)
    assert (between(image, rows, columns) == image).all()
    middle = between(image, np.array([[1.5]], np.float32), np.array([[2.25]], np.float32))[0, 0]
    four = image[1:3, 2:4].astype(float)
    assert (np.abs(middle - (four.mean(0) * [[0.75], [0.25]]).sum(0)) <= 0.5).all()


def test_color_jitter_is_bounded_by_its_factors():
    image = noise(12, 12)
    assert (ColorJitter(brightness=0, contrast=0, saturation=0).apply(image, random()) == image).all()
    bright = ColorJitter(brightness=0.5, contrast=0, saturation=0)
    ratios = [bright.apply(image // 2, random(seed)).mean() / (image // 2).mean() for seed in range(200)]
    assert 0.49 < min(ratios) < 0.55 and 1.45 < max(ratios) < 1.51
    grey = ColorJitter(brightness=0, contrast=0, saturation=1.0)
    spread = [np.ptp(grey.apply(image, random(seed)).astype(int), axis=2).mean() for seed in range(200)]
    assert min(spread) < 0.1 * np.ptp(image.astype(int), axis=2).mean()
    flat = np.full((6, 6, 3), 90, np.uint8)
    assert (ColorJitter(brightness=0, contrast=1, saturation=1).apply(flat, random()) == 90).all()


def test_erase_covers_a_rectangle_with_the_mean_colour():
    image = noise(40, 40)
    for seed in range(100):
        changed = Erase(probability=1.0, area=0.25).apply(image, random(seed))
        rows, columns = np.nonzero((changed != image).any(axis=2))
        patch = changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (patch == np.rint(image.mean((0, 1)))).mean() > 0.9  # some pixels have that colour anyway
        assert patch[:, :, 0].size <= 0.25 * 1600 * 1.15
    assert (Erase(probability=0.0).apply(image, random()) == image).all()


def test_mixup_draws_partners_and_shares():
    partners, shares = zip(*(Mixup(alpha=0.4).draw(7, random(seed)) for seed in range(500)), strict=True)
    assert set(partners) == set(range(7)) and min(shares) >= 0.5 and max(shares) <= 1
    beta = random(5).beta(0.4, 0.4, 20_000)
    assert np.mean(shares) == pytest.approx(np.maximum(beta, 1 - beta).mean(), abs=0.03)
