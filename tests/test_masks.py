"""Masks: read in every form, stored with their images, moved as they are; what cannot be used is reported."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from seq2attn.data.image_plan import BatchLimits
from seq2attn.data.mask_batches import MaskBatchLoader
from seq2attn.data.masks import MaskExamples, prepare_masks
from seq2attn.data.report import DataError
from seq2attn.images.decoding import ImageError
from seq2attn.images.masks import IGNORED, MaskReader, moved, packed, packed_size, unpacked
from seq2attn.recipe.mask_data import SegmentationDataRecipe

CLASSES = ["sky", "road", "car"]
COLORS = {"sky": [128, 128, 128], "road": [128, 64, 128], "car": [64, 0, 128], "ignore": [0, 0, 0]}
NUMBERS = np.array([[0, 1, 2], [2, 11, 0]], np.uint8)
LABELS = np.where(NUMBERS == 11, IGNORED, NUMBERS)


def picture(pixels: Any, kind: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.convert(kind or image.mode).save(buffer, "PNG")
    return buffer.getvalue()


def with_palette(numbers: np.ndarray) -> Image.Image:
    """A picture with a palette, which has the colours of the classes."""
    image = Image.fromarray(numbers)
    image.putpalette(colored(np.arange(256)).ravel().tolist())
    return image


def colored(numbers: np.ndarray) -> np.ndarray:
    table = np.zeros((256, 3), np.uint8)
    table[:3] = [COLORS[name] for name in CLASSES]
    return table[numbers]


# ---- reading ---------------------------------------------------------------------------------------------


def test_masks_have_numbers_in_grey_in_a_palette_or_in_colours() -> None:
    reader = MaskReader(3, [11])
    for content in (picture(NUMBERS), picture(with_palette(NUMBERS)), picture(NUMBERS.astype(np.uint16))):
        assert np.array_equal(reader.read(content), LABELS)
    colors = {tuple(COLORS[name]): number for number, name in enumerate(CLASSES)} | {(0, 0, 0): None}
    for content in (
        picture(colored(NUMBERS)),
        picture(colored(NUMBERS), "RGBA"),
        picture(with_palette(NUMBERS)),
    ):
        assert np.array_equal(MaskReader(3, (), colors).read(content), LABELS)
    assert np.array_equal(MaskReader(2).read(picture(Image.fromarray(NUMBERS > 1))), NUMBERS > 1)
    assert np.array_equal(unpacked(packed(LABELS)), LABELS) and packed_size(packed(LABELS)) == LABELS.shape


def test_numbers_of_objects_become_two_classes() -> None:
    numbers = np.array([[0, 1, 255], [256, 65535, 0]], np.uint16)
    assert np.array_equal(MaskReader(2, instances=True).read(picture(numbers)), numbers > 0)


@pytest.mark.parametrize(
    ("reader", "content", "message"),
    [
        (MaskReader(3), picture(NUMBERS), r"the mask has 11: expected class numbers from 0 to 2: give"),
        (MaskReader(3, [7]), picture(NUMBERS), r"from 0 to 2, or 7, which data.ignore has"),
        (MaskReader(2), picture(NUMBERS), r"the mask has 2, 11: .*numbers of objects, set data.instances"),
        (MaskReader(3), picture(colored(NUMBERS)), r"got one in RGB: say in data.colors which colour"),
        (
            MaskReader(1, (), {(128, 128, 128): 0}),
            picture(colored(NUMBERS)),
            r"has the colours \[0, 0, 0\], \[64, 0, 128\], \[128, 64, 128\], which data.colors does not",
        ),
        (MaskReader(3), b"a text", "expected a mask as an image"),
        (
            MaskReader(3),
            picture(np.random.default_rng(1).integers(3, size=(60, 60), dtype=np.uint8))[:200],
            "the mask is damaged",
        ),
        (MaskReader(3), Image.new("I", (2, 2), 70_000), "expected numbers from 0 to 65535"),
    ],
)
def test_what_is_no_mask_of_these_classes_is_refused(reader: MaskReader, content: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        reader.read(content)


# ---- corpora ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose red channel shows their class, and their masks, in all forms of a corpus."""
    folder, random = tmp_path_factory.mktemp("masks"), np.random.default_rng(6)
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    rows, contents = [], []
    for number in range(9):
        height, width = random.integers(8, 15, size=2).tolist()
        numbers = np.repeat(random.integers(3, size=(height, 1)), width, axis=1).astype(np.uint8)
        numbers[:, width // 2 :] = number % 3
        image, mask = (f"{kind}/{number:02d}.png" for kind in ("images", "masks"))
        shades = np.stack([numbers * 100, numbers, numbers], -1)
        Image.fromarray(shades).save(folder / image)
        numbers[0, 0] = 11
        Image.fromarray(numbers).save(folder / mask)
        rows.append({"image": image, "mask": mask})
        contents.append([{"bytes": (folder / name).read_bytes(), "path": None} for name in (image, mask)])
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with tarfile.open(folder / "all.tar", "w") as tar:
        for row in rows:
            for name in row.values():
                tar.add(folder / name, name)
    features = datasets.Features({"pixel": datasets.Image(), "label": datasets.Image()})
    columns = {name: [pair[side] for pair in contents] for side, name in enumerate(features)}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / "pairs.parquet")
    return folder


def section(corpus: dict[str, Any], **options: Any) -> SegmentationDataRecipe:
    normalize = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    data = {
        "train": corpus,
        "dev": corpus,
        "classes": CLASSES,
        "ignore": 11,
        "normalize": normalize,
        **options,
    }
    return SegmentationDataRecipe.model_validate(data)


def prepared(corpus: dict[str, Any], **options: Any) -> MaskExamples:
    data = section(corpus, **options)
    return prepare_masks(data.train, data, "train")


def corpora(files: Path) -> dict[str, dict[str, Any]]:
    return {
        "table": {"table": str(files / "pairs.jsonl")},
        "table of an archive": {"table": str(files / "pairs.jsonl"), "archive": str(files / "all.tar")},
        "folders": {"images": str(files / "images"), "masks": str(files / "masks")},
        "folders of an archive": {"images": "images", "masks": "masks", "archive": str(files / "all.tar")},
        "dataset": {
            "dataset": "parquet", "data_files": str(files / "pairs.parquet"), "columns": ["pixel", "label"]
        },
    }  # fmt: skip


def test_all_forms_of_a_corpus_have_the_same_images_and_masks(files: Path, own_cache: Path) -> None:
    stores = {name: prepared(corpus) for name, corpus in corpora(files).items()}
    assert {store.fingerprint for store in stores.values()} == {stores["table"].fingerprint}
    for store in stores.values():
        assert len(store) == 9
        for number in range(9):
            expected = np.asarray(Image.open(files / f"masks/{number:02d}.png"))
            labels = store.labels(number)
            assert np.array_equal(labels, np.where(expected == 11, IGNORED, expected))
            assert np.array_equal(store.image(number)[..., 0][labels < 3], 100 * labels[labels < 3])
    counts = np.bincount(np.concatenate([stores["table"].labels(n).ravel() for n in range(9)]))
    assert np.array_equal(stores["table"].counts, counts[:3])


def test_masks_that_are_read_in_another_way_are_another_store(files: Path) -> None:
    corpus = corpora(files)["table"]
    names = ["background", "object"]
    assert prepared(corpus).counts.tolist() != prepared(corpus, classes=names, instances=True).counts.tolist()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((3, 4), np.uint8), "the mask is 4 x 3, and its image 5 x 3"),
        (np.zeros((5, 3), np.uint8), "its image 5 x 3: the image is turned by its EXIF data"),
        (np.full((3, 5), 7, np.uint8), "the mask has 7: expected class numbers from 0 to 2, or 11"),
        (np.full((3, 5), 11, np.uint8), "no pixel of the mask has a class"),
        (None, "no such file"),
    ],
)
def test_a_bad_mask_is_a_bad_line_with_file_and_line(tmp_path: Path, mask: Any, message: str) -> None:
    for name, numbers in (("good", np.zeros((3, 5), np.uint8)), ("bad", mask)):
        Image.fromarray(np.zeros((3, 5, 3), np.uint8)).save(tmp_path / f"{name}.png")
        if numbers is not None:
            Image.fromarray(numbers).save(tmp_path / f"{name}_mask.png")
    rows = [{"image": f"{name}.png", "mask": f"{name}_mask.png"} for name in ("good", "bad")]
    table = tmp_path / "pairs.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError) as caught:
        prepared({"table": str(table)})
    assert f"{table}:2: {tmp_path / 'bad_mask.png'}: " in str(caught.value) and message in str(caught.value)
    skipped = prepared({"table": str(table)}, bad_lines="skip")
    assert len(skipped) == 1 and f"{table}:2" in str(skipped.report)


def test_images_without_a_mask_and_masks_without_an_image_are_reported(tmp_path: Path) -> None:
    for folder, names in (("images", "ab"), ("masks", "bc")):
        (tmp_path / folder).mkdir()
        for name in names:
            kind = (3, 5, 3) if folder == "images" else (3, 5)
            Image.fromarray(np.zeros(kind, np.uint8)).save(tmp_path / folder / f"{name}.png")
    corpus = {side: str(tmp_path / side) for side in ("images", "masks")}
    with pytest.raises(DataError, match=rf"a.png: no mask a\.\* in {tmp_path}/masks"):
        prepared(corpus)
    skipped = prepared(corpus, bad_lines="skip")
    assert len(skipped) == 1 and "a mask without an image" in str(skipped.report)
    with pytest.raises(DataError, match=r"data.train.0.masks: no such folder"):
        prepared({**corpus, "masks": str(tmp_path / "nowhere")})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["sky", "sky", "car"]}, "sky occurs twice"),
        ({"ignore": [2]}, "2 is the number of the class car"),
        ({"instances": True}, "instances are of two classes"),
        ({"colors": {"sky": [1, 2, 3]}}, "has no colour of the class road"),
        ({"colors": {**COLORS, "boat": [9, 9, 9]}}, "expected one of data.classes, or ignore"),
        ({"colors": {**COLORS, "car": [0, 0, 0]}}, "is the colour of car, too"),
        ({"augment": "mixup"}, "mixup mixes labels"),
        ({"colors": {**COLORS, "car": [0, 0, 300]}}, "255"),
    ],
)
def test_classes_that_do_not_fit_are_found(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        section({"table": "pairs.jsonl"}, **options)


# ---- moving ----------------------------------------------------------------------------------------------

FLIP, CROP = {"name": "flip", "probability": 1.0}, {"name": "random_crop", "size": 6}


def loader(files: Path, augment: list[Any], **options: Any) -> MaskBatchLoader:
    data = section(corpora(files)["table"], augment=augment, **options)
    return MaskBatchLoader(prepare_masks(data.train, data, "train"), data, BatchLimits(4), seed=5)


@pytest.mark.parametrize("augment", [[], [FLIP], [CROP], [CROP, FLIP], [FLIP, "crop", CROP]])
def test_a_mask_moves_with_its_image(files: Path, augment: list[Any]) -> None:
    """The red channel of an image is a hundred times its class; pixels from outside do not count."""
    made = loader(files, augment)
    for epoch in range(3):
        batch = made.batch(np.arange(9), epoch)
        shades = (255 * batch.images[:, 0]).round()
        assert batch.counted.sum() > 150
        assert (shades[batch.counted] == 100 * batch.labels[batch.counted]).all()
        if batch.mask is not None:
            assert not batch.counted[~batch.mask[:, 0]].any()


def test_a_turned_mask_lies_on_its_turned_image(files: Path) -> None:
    """But for pixels at edges, where the image is a mean of several."""
    batch = loader(files, [{"name": "affine", "rotate": 20.0, "scale": 0.2}]).batch(np.arange(9), 0)
    shades = 255 * batch.images[:, 0][batch.counted]
    pure = (shades - 100 * (shades / 100).round()).abs() < 1
    assert pure.float().mean() > 0.6
    right = (shades / 100).round() == batch.labels[batch.counted]
    assert right[pure].float().mean() > 0.97


def test_a_random_crop_has_its_size_and_depends_on_seed_epoch_and_index_alone(files: Path) -> None:
    made = loader(files, [CROP])
    whole = made.batch(np.arange(9), 2)
    assert whole.images.shape == (9, 3, 6, 6) and whole.mask is None
    for row in range(9):
        alone = made.batch(np.array([row]), 2)
        assert np.array_equal(alone.images[0], whole.images[row])
        assert np.array_equal(alone.labels[0], whole.labels[row])
    assert not np.array_equal(whole.images, made.batch(np.arange(9), 3).images)
    assert made.batch(np.arange(9)).images.shape[2] > 6  # not for validation
    larger = loader(files, [{"name": "random_crop", "size": 10}]).batch(np.arange(9), 0)
    assert (
        max(larger.images.shape) == 10 and larger.mask is not None
    )  # an image that is smaller keeps its size


def test_outside_of_a_mask_nothing_counts_and_the_inverse_brings_it_back() -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    right = np.array([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    there = moved(labels, right, (3, 4))
    assert (there[:, 0] == IGNORED).all() and np.array_equal(there[:, 1:], labels[:, :3])
    back = moved(there, np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]), (3, 4))
    assert np.array_equal(back[:, :3], labels[:, :3])
    assert np.array_equal(
        moved(labels, np.array([[0.5, 0, 0], [0, 0.5, 0]]), (6, 8)), labels.repeat(2, 0).repeat(2, 1)
    )


@pytest.mark.parametrize(("resize", "shape"), [("stretch", (4, 4)), ("crop", (4, 4)), ("fit", (2, 4))])
def test_masks_are_resized_by_the_nearest_pixel(tmp_path: Path, resize: str, shape: tuple[int, int]) -> None:
    numbers = np.zeros((4, 8), np.uint8)
    numbers[:, :2], numbers[:, 6:] = 1, 2
    Image.fromarray(numbers * 100).convert("RGB").save(tmp_path / "a.png")
    Image.fromarray(numbers).save(tmp_path / "b.png")
    (tmp_path / "t.jsonl").write_text('{"image": "a.png", "mask": "b.png"}\n')
    examples = prepared({"table": str(tmp_path / "t.jsonl")}, size=4, resize=resize)
    labels = examples.resized_labels(0)
    assert labels.shape == examples.image(0).shape[:2] == shape
    expected = [0, 0, 0, 0] if resize == "crop" else [1, 0, 0, 2]
    assert (labels == expected).all()
    assert np.array_equal(examples.labels(0), numbers)  # for scores, as it was


def test_a_mask_is_first_resized_and_then_changed_as_its_image(tmp_path: Path) -> None:
    numbers = np.random.default_rng(2).integers(3, size=(8, 12), dtype=np.uint8)
    Image.fromarray(np.stack([numbers * 100] * 3, -1)).save(tmp_path / "a.png")
    Image.fromarray(numbers).save(tmp_path / "b.png")
    (tmp_path / "t.jsonl").write_text('{"image": "a.png", "mask": "b.png"}\n')
    data = section(
        {"table": str(tmp_path / "t.jsonl")}, size=8, augment=[FLIP, CROP]
    )  # 2 columns cut at each side
    batch = MaskBatchLoader(prepare_masks(data.train, data, "train"), data, BatchLimits(4)).batch(
        np.arange(1), 0
    )
    assert batch.counted.all() and batch.labels.shape == (1, 6, 6)
    assert ((255 * batch.images[:, 0]).round() == 100 * batch.labels).all()
