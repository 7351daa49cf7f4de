"""Images given in Python train as the same images in files do, and are the same corpus whenever they are given."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import tiny_runs
from PIL import Image

import seq2attn
from seq2attn.data import DataError
from seq2attn.data.boxes import BoxExamples, prepare_boxes
from seq2attn.data.images import ImageExamples, prepare_images
from seq2attn.data.masks import prepare_masks
from seq2attn.recipe import AnyRecipe
from seq2attn.runs.recipe_argument import recipe_of

pytestmark = pytest.mark.usefixtures("own_cache")

RANDOM = np.random.default_rng(7)
PIXELS = [RANDOM.integers(0, 256, (5, 6 + number, 3), dtype=np.uint8) for number in range(4)]
LABELS = ["cat", "dog", "cat", "owl"]
NETWORK = {"kind": "convolutional", "sizes": [4, 4]}
STEPS = {"max_steps": 2, "validate_every": 2, "batch_images": 2}
TASKS: dict[str, dict[str, Any]] = {  # without corpora
    "image_classification": {"model": {"backbone": NETWORK}, "training": STEPS},
    "image_to_text": {
        "model": {"encoder": {"backbone": NETWORK}, "decoder": {"kind": "recurrent", "order": "cho"}},
        "training": STEPS,
    },
    "detection": {"model": {"backbone": NETWORK}, "training": STEPS},
    "segmentation": {"data": {"classes": ["ground", "thing"]}, "training": STEPS},
    "image_generation": {"data": {"size": 28}, "training": STEPS},
}


def recipe(task: str, rows: Any) -> AnyRecipe:
    rows = list(rows) if isinstance(rows, zip) else rows
    return recipe_of({"task": task, **TASKS[task]}, data={"train": rows, "dev": rows})


def png(pixels: np.ndarray) -> bytes:
    Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def labelled(rows: Any) -> ImageExamples:
    data = recipe("image_classification", rows).data
    return prepare_images(data.train, data, "train")


def dataset(**columns: Any) -> datasets.Dataset:
    features = {"label": datasets.ClassLabel(names=["owl", "dog", "cat"]), "image": datasets.Image()}
    numbers = [features["label"].str2int(label) for label in LABELS]
    chosen = datasets.Features({**features, **columns})
    return datasets.Dataset.from_dict({"image": list(map(Image.fromarray, PIXELS)), "label": numbers}, chosen)


FORMS: dict[str, Callable[[], Any]] = {
    "arrays": lambda: zip(PIXELS, LABELS, strict=True),
    "pillow": lambda: [
        (Image.fromarray(pixels), label) for pixels, label in zip(PIXELS, LABELS, strict=True)
    ],
    "contents": lambda: [[png(pixels), label] for pixels, label in zip(PIXELS, LABELS, strict=True)],
    "whole numbers": lambda: zip([pixels.astype(int) for pixels in PIXELS], LABELS, strict=True),
    "dicts": lambda: [{"img": p, "label": name, "x": 1} for p, name in zip(PIXELS, LABELS, strict=True)],
    "dataset": dataset,
    "stream": lambda: dataset().to_iterable_dataset(),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_the_same_images(form: str) -> None:
    examples = labelled(FORMS[form]())
    assert examples.targets == LABELS
    for number, pixels in enumerate(PIXELS):
        assert (examples.image(number) == pixels).all()


def test_files_are_copied_as_they_are(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jpg" for number in range(4)]
    for path, pixels in zip(paths, PIXELS, strict=True):
        Image.fromarray(pixels).save(path)
    contents = [path.read_bytes() for path in paths]
    (corpus,) = recipe("image_classification", zip(map(str, paths), LABELS, strict=True)).data.train
    with tarfile.open(corpus.archive) as archive:
        assert [archive.extractfile(member).read() for member in archive] == contents  # type: ignore[union-attr]
    for path in paths:
        path.unlink()
    assert len(labelled(zip(contents, LABELS, strict=True))) == 4


def test_the_same_rows_are_the_same_files(own_cache: Path) -> None:
    first, again = (recipe("image_classification", FORMS["arrays"]()).data for _ in range(2))
    assert first == again and len(list(own_cache.glob("given/*"))) == 2
    recipe("image_classification", zip(PIXELS[::-1], LABELS, strict=True))
    assert len(list(own_cache.glob("given/*"))) == 3  # another archive, with the same labels


def test_images_are_turned_upright_before_they_are_saved() -> None:
    turned = Image.fromarray(PIXELS[0])
    turned.getexif()[0x0112] = 6  # the camera was held upright
    examples = labelled([(turned, "a"), (PIXELS[1], "b")])
    assert (examples.image(0) == np.rot90(PIXELS[0], -1)).all()


def test_texts_of_images_are_one_or_several() -> None:
    rows = [(PIXELS[0], "a cat"), (PIXELS[1], ["a dog", "an animal"])]
    data = recipe("image_to_text", rows).data
    examples = prepare_images(data.train, data, "train")
    assert [examples.references(row) for row in range(2)] == [["a cat"], ["a dog", "an animal"]]


def test_masks_are_numbers_up_to_65535() -> None:
    masks = [np.zeros(pixels.shape[:2], int) for pixels in PIXELS]
    masks[0][1:3] = 1
    given = [masks[0] > 0, Image.fromarray(masks[1].astype(np.uint8)), *masks[2:]]
    data = recipe("segmentation", zip(PIXELS, given, strict=True)).data
    examples = prepare_masks(data.train, data, "train")
    assert all((examples.labels(row) == mask).all() for row, mask in enumerate(masks))
    instances = [1000 * mask for mask in masks]
    sections = {"task": "segmentation", "data": {"classes": ["ground", "thing"], "instances": True}}
    rows = list(zip(PIXELS, instances, strict=True))
    data = recipe_of({**sections, "training": STEPS}, data={"train": rows, "dev": rows}).data
    examples = prepare_masks(data.train, data, "train")
    assert all((examples.labels(row) == mask).all() for row, mask in enumerate(masks))


def boxed(rows: Any) -> BoxExamples:
    data = recipe("detection", rows).data
    return prepare_boxes(data.train, data, "train")


def test_boxes_are_corners_in_tuples_and_have_widths_in_the_objects_of_datasets() -> None:
    tuples = boxed([(PIXELS[0], np.array([[1, 1, 4, 5]]), ["cat"]), (PIXELS[1], [], [])])
    category = datasets.ClassLabel(names=["dog", "cat"])
    objects = datasets.List({"bbox": datasets.List(datasets.Value("float32")), "category": category})
    rows = {
        "image": list(map(Image.fromarray, PIXELS[:2])),
        "objects": [[{"bbox": [1, 1, 3, 4], "category": 1}], []],
    }
    features = datasets.Features({"image": datasets.Image(), "objects": objects})
    for examples in (tuples, boxed(datasets.Dataset.from_dict(rows, features))):
        there = examples.objects(0)
        assert there.boxes.tolist() == [[1, 1, 4, 5]] and list(there.labels) == ["cat"]
        assert len(examples.objects(1).boxes) == 0


def test_a_run_trains_resumes_and_scores(tmp_path: Path) -> None:
    sections = {"task": "image_classification", **TASKS["image_classification"]}
    data = {"train": iter([*FORMS["arrays"]()]), "dev": dataset(), "test": FORMS["pillow"]()}

    def train(**options: Any) -> Any:
        return seq2attn.train(sections, tmp_path / "run", device="cpu", display=tiny_runs.silent(), **options)

    trained = train(data=data)
    assert trained.progress.step == 2 and [score.name for score in trained.scores][:1] == ["top-1"]
    again = train(
        data={**data, "train": FORMS["whole numbers"]()}, resume=True, overrides=["training.max_steps=3"]
    )
    assert again.progress.step == 3
    assert json.loads((tmp_path / "run" / "version.json").read_text())


FAULTS: list[tuple[str, Any, str]] = [
    ("image_classification", [(PIXELS[0], "a"), (PIXELS[1], None)], r'data\["train"\]:1: label is null'),
    (
        "image_classification",
        [(PIXELS[0], "a", 3)],
        r":0: expected a tuple \(image, label\), or a dict, got 3",
    ),
    ("image_classification", [(3, "a")], r":0: image: expected an image of Pillow, .*; got int"),
    ("image_classification", [("none.png", "a")], r":0: image: the image cannot be read: .*none.png"),
    ("image_classification", [(PIXELS[0] / 255, "a")], r":0: image: expected whole numbers .*got float64"),
    ("image_classification", [(PIXELS[0].astype(int) - 256, "a")], r":0: image: expected whole numbers"),
    (
        "image_classification",
        [{"picture": PIXELS[0], "label": "a"}],
        r"expected rows with image and label, or",
    ),
    (
        "image_classification",
        [{"image": PIXELS[0], "label": "a"}, {"image": PIXELS[0]}],
        r":1: no column 'label'",
    ),
    ("image_classification", [], r'data\["train"\] is empty'),
    ("image_to_text", [(PIXELS[0], [])], r":0: text is \[\] where a text or a list of texts"),
    (
        "detection",
        [(PIXELS[0], [[0, 0, 1, 1]], ["a"]), (PIXELS[0], [])],
        r":1: expected a tuple .*got 2 values",
    ),
    ("segmentation", [(PIXELS[0], None)], r":0: mask: expected an image of Pillow, .*; got NoneType"),
]


@pytest.mark.parametrize(("task", "rows", "message"), FAULTS, ids=[message for *_, message in FAULTS])
def test_faults_name_the_row(task: str, rows: Any, message: str, own_cache: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        recipe(task, rows)
    assert "bad_lines" not in str(caught.value)  # which is for files
    assert not list(own_cache.glob("given/*"))
