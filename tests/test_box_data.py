"""Images with boxes: what is a bad box, where boxes lie after resizing and changes, and their batches."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_boxes import COLOURS, seen_box, write_scenes

from seq2attn.data.box_batches import BoxBatchLoader
from seq2attn.data.boxes import BoxExamples, learn_box_labels, prepare_boxes
from seq2attn.data.image_batches import beside_training
from seq2attn.data.image_plan import BatchLimits
from seq2attn.data.report import DataError
from seq2attn.images.geometry import moved
from seq2attn.recipe import RecipeError
from seq2attn.recipe.box_data import DetectionDataRecipe
from seq2attn.text.word_vocabulary import Labels

NORMALIZE = {"mean": [0.0] * 3, "std": [1 / 255] * 3}  # so that batches have the pixels themselves
CHANGES = ["mosaic", "flip", {"name": "affine", "rotate": 0}, "scale_jitter", {"name": "crop", "padding": 6}]
LABELS = Labels([*COLOURS])


def section(corpus: dict[str, Any], **options: Any) -> DetectionDataRecipe:
    settings = {"normalize": NORMALIZE, "workers": 0} | options
    return DetectionDataRecipe.model_validate({"train": corpus, "dev": corpus, **settings})


def examples(corpus: dict[str, Any], **options: Any) -> BoxExamples:
    data = section(corpus, **options)
    return prepare_boxes(data.train, data, "train")


def table(folder: Path, *rows: dict[str, Any], size: tuple[int, int] = (40, 60)) -> dict[str, Any]:
    """Write rows for one grey image of this width and height, and return the corpus."""
    Image.new("L", size, 90).save(folder / "grey.png")
    lines = [json.dumps({"image": "grey.png", "labels": ["a"] * len(row["boxes"]), **row}) for row in rows]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return {"table": str(folder / "rows.jsonl")}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, {"train": 24, "dev": 6})
    return folder


# ---- reading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "box"),
    [
        ({}, [4, 6, 20, 30]),
        ({"format": "xywh"}, [4, 6, 16, 24]),
        ({"format": "cxcywh"}, [12, 18, 16, 24]),
        ({"inclusive": True}, [5, 7, 20, 30]),
        ({"format": "xywh", "inclusive": True}, [5, 7, 16, 24]),
    ],
)
def test_every_format_says_the_same_box(tmp_path, options, box):
    read = examples(table(tmp_path, {"boxes": [box]}) | options)
    assert read.boxes(0).tolist() == [[4, 6, 20, 30]] and read.boxes(0).dtype == np.float32
    assert read.labels_of(0) == ["a"] and read.objects(0).areas.tolist() == [384.0]


BAD = [
    ([5, 5, 5, 9], "empty box", "the box has no area"),
    ([5, 5, 9, 5], "empty box", "the box has no area"),
    ([9, 5, 5, 9], "reversed box", "right is left of left"),
    ([5, 9, 9, 5], "reversed box", "bottom above top"),
    ([30, 5, 42, 9], "box outside", "not within its image, 40 x 60"),
    ([-2, 5, 9, 9], "box outside", "not within its image"),
    ([5, 50, 9, 62], "box outside", "not within its image"),
    ([40, 5, 41, 9], "box outside", "outside of its image"),
    ([5, 5, 9], "not a box", "four finite numbers"),
    ([5, 5, 9, "9"], "not a box", "four finite numbers"),
    ([5, 5, 9, True], "not a box", "four finite numbers"),
    ([5, 5, 9, 10**400], "not a box", "four finite numbers"),
    ([5, 5, 9, float("nan")], "not a box", "four finite numbers"),
    (None, "not a box", "four finite numbers"),
]


@pytest.mark.parametrize(("box", "reason", "message"), BAD)
def test_a_bad_box_stops_with_file_and_line_or_is_left_out_alone(tmp_path, box, reason, message):
    corpus = table(tmp_path, {"boxes": [[1, 2, 3, 4]]}, {"boxes": [[0, 0, 8, 8], box]})
    with pytest.raises(DataError, match=message) as error:
        examples(corpus)
    assert f"{tmp_path}/rows.jsonl:2: box 1: " in str(error.value)
    read = examples(corpus, bad_lines="skip")
    assert len(read) == 2 and read.boxes(1).tolist() == [[0, 0, 8, 8]] and read.labels_of(1) == ["a"]
    assert read.report.reasons[reason].count == 1 and read.report.kept == 2


def test_an_image_keeps_its_place_without_any_good_box(tmp_path):
    read = examples(table(tmp_path, {"boxes": [[5, 5, 5, 5]]}, {"boxes": []}), bad_lines="skip")
    assert len(read) == 2 and read.boxes(0).shape == read.boxes(1).shape == (0, 4)
    assert read.objects(0).boxes.shape == (0, 4) and read.labels_of(1) == []


def test_a_box_may_stick_out_by_a_pixel_and_is_cut_off(tmp_path):
    read = examples(table(tmp_path, {"boxes": [[-1, 3, 41, 61]]}))
    assert read.boxes(0).tolist() == [[0, 3, 40, 60]]


def test_a_click_is_an_empty_box_where_right_and_bottom_are_the_last_pixels(tmp_path):
    corpus = table(tmp_path, {"boxes": [[5, 5, 5, 9]]}) | {"inclusive": True}
    with pytest.raises(DataError, match="the box has no area"):
        examples(corpus)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"boxes": [[0, 0, 8, 8]], "labels": []}, "1 boxes, and 0 labels"),
        ({"boxes": 7, "labels": ["a"]}, "boxes is 7 where a list was expected"),
        ({"boxes": [[0, 0, 8, 8]], "labels": [""]}, "box 0: expected a label"),
        ({"boxes": [], "image": 3}, "where the path of an image was expected"),
        ({"boxes": [], "image": "no.png"}, "no such file"),
    ],
)
def test_a_bad_row_is_a_bad_line(tmp_path, row, message):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "grey.png", "labels": [], **row}))
    Image.new("L", (9, 9)).save(tmp_path / "grey.png")
    with pytest.raises(DataError, match=message) as error:
        examples({"table": str(tmp_path / "rows.jsonl")})
    assert "rows.jsonl:1: " in str(error.value)


def test_objects_in_a_list_and_one_label_for_all(tmp_path):
    Image.new("L", (40, 60)).save(tmp_path / "g.png")
    objects = [{"box": [1, 2, 9, 9], "class": 4}, {"box": [3, 3, 8, 8], "class": "b"}]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"file": "g", "objects": objects}))
    corpus = {"table": str(tmp_path / "rows.jsonl"), "path": "{}.png"}
    columns = {"columns": ["file", "objects.box", "objects.class"]}
    assert examples(corpus | columns).labels_of(0) == ["4", "b"]
    one = examples(corpus | columns | {"label": "cell"})
    assert one.labels_of(0) == ["cell"] * 2 and one.boxes(0).tolist() == [[1, 2, 9, 9], [3, 3, 8, 8]]
    with pytest.raises(DataError, match=r"no column objects\.kind"):
        examples(corpus | {"columns": ["file", "objects.box", "objects.kind"]})


def test_labels_are_learned_from_boxes_and_may_be_one(tmp_path, scenes):
    data = section({"table": str(scenes / "train.jsonl")})
    assert learn_box_labels(data).names == [*COLOURS]
    assert learn_box_labels(section(table(tmp_path, {"boxes": [[0, 0, 5, 5]]}))).names == ["a"]
    with pytest.raises(DataError, match="expected boxes, and no image has one"):
        learn_box_labels(section(table(tmp_path, {"boxes": []})))


# ---- resizing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["fit", "stretch", "shrink"])
def test_boxes_follow_a_resized_image_and_go_back_to_the_original(scenes, how):
    corpus = {"table": str(scenes / "train.jsonl")}
    read, plain = examples(corpus, size=[60, 100], resize=how), examples(corpus)
    for number in range(6):
        boxes = read.boxes(number)
        for box, label in zip(boxes, read.labels_of(number), strict=True):
            if read.labels_of(number).count(label) == 1:
                assert np.abs(np.array(seen_box(read.image(number), COLOURS[label])) - box).max() <= 1
        assert read.original_size(number) == (40, 48)
        assert moved(boxes.astype(float), read.to_original(number)) == pytest.approx(
            plain.boxes(number), abs=1e-4
        )
        assert (read.objects(number).boxes == plain.objects(number).boxes).all()


def test_a_cut_image_has_the_boxes_that_are_left(tmp_path):
    boxes = [[0, 0, 9, 12], [4, 8, 20, 20], [10, 30, 20, 40]]
    read = examples(table(tmp_path, {"boxes": boxes}), size=40, resize="crop")  # rows 10 to 50 of 60
    assert read.boxes(0).tolist() == [[4, 0, 20, 10], [10, 20, 20, 30]] and len(read.labels_of(0)) == 2
    assert len(read.objects(0).boxes) == 3


def test_boxes_refer_to_the_upright_image(tmp_path):
    pixels = np.full((20, 30, 3), 90, np.uint8)
    pixels[2:9, 4:14] = COLOURS["red"]
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "turned.png", exif=turned)
    (tmp_path / "t.jsonl").write_text('{"image": "turned.png", "boxes": [[4, 2, 14, 9]], "labels": ["red"]}')
    read = examples({"table": str(tmp_path / "t.jsonl")})
    assert seen_box(read.image(0), COLOURS["red"]) == read.boxes(0)[0].tolist() == [4, 2, 14, 9]


# ---- batches ---------------------------------------------------------------------------------------------


def loader(scenes: Path, labels: Labels = LABELS, name: str = "train", **options: Any) -> BoxBatchLoader:
    data = section({"table": str(scenes / f"{name}.jsonl")}, **options)
    return BoxBatchLoader(prepare_boxes(data.train, data, "train"), labels, data, BatchLimits(8), seed=3)


def test_a_batch_has_the_boxes_of_its_images_and_marks_none_with_minus_1(scenes):
    made = loader(scenes)
    rows = np.array([3, 0, 7])
    batch = made.batch(rows)
    assert batch.boxes.dtype == torch.float32 and batch.labels.dtype == torch.long
    assert batch.boxes.shape == (*batch.labels.shape, 4) and "boxes each" in batch.shape
    for number, row in enumerate(rows):
        count = len(made.examples.labels_of(row))
        assert (batch.boxes[number, :count].numpy() == made.examples.boxes(row)).all()
        names = [LABELS.names[label] for label in batch.labels[number, :count]]
        assert names == made.examples.labels_of(row)
        assert (batch.labels[number, count:] == -1).all() and not batch.boxes[number, count:].any()
    assert batch.num_targets == sum(len(made.examples.labels_of(row)) for row in rows)
    assert batch.to(torch.device("cpu")).labels.equal(batch.labels)


def test_images_and_batches_without_boxes(tmp_path):
    corpus = table(tmp_path, {"boxes": []}, {"boxes": [[0, 0, 5, 5]]})
    data = section(corpus, augment=CHANGES)
    made = BoxBatchLoader(prepare_boxes(data.train, data, "train"), Labels(["a"]), data, BatchLimits(4))
    empty, both = made.batch(np.array([0])), made.batch(np.array([0, 1]))
    assert empty.boxes.shape == (1, 0, 4) and empty.labels.shape == (1, 0) and empty.num_targets == 0
    assert both.labels.tolist() == [[-1], [0]]
    for epoch in range(8):
        assert made.batch(np.array([0, 1]), epoch).images.isfinite().all()


def test_boxes_with_labels_that_were_never_learned_are_left_out(scenes):
    everything, fewer = loader(scenes), loader(scenes, Labels(["blue", "red"]))
    rows = np.arange(24)
    batch, other = everything.batch(rows), fewer.batch(rows)
    greens = (batch.labels == 1).sum()
    assert greens > 0 and other.num_targets == batch.num_targets - greens


def test_boxes_stay_with_their_objects_through_all_changes(scenes):
    """Most of a box has the colour of its label."""
    made, boxes = loader(scenes, augment=CHANGES), 0
    for epoch in range(4):
        for row in range(24):
            image, corners, labels = made.boxed(row, epoch)
            for (left, top, right, bottom), label in zip(corners, labels, strict=True):
                window = np.s_[int(np.ceil(top)) : int(bottom), int(np.ceil(left)) : int(right)]
                off = np.abs(image[window].astype(int) - COLOURS[LABELS.names[label]]).max(axis=2)
                if off.size >= 9:
                    boxes += 1
                    assert np.median(off) < 60
            assert (corners[:, 2:] > corners[:, :2]).all() and corners.min(initial=0) >= 0
            assert corners[:, 2].max(initial=0) <= 48 and corners[:, 3].max(initial=0) <= 40
    assert boxes > 150


def test_an_image_depends_on_seed_epoch_and_index_alone(scenes):
    made = loader(scenes, augment=CHANGES)
    together = made.batch(np.array([3, 11, 20]), epoch=2)
    for number, row in enumerate((3, 11, 20)):
        alone = made.batch(np.array([row]), epoch=2)
        count = alone.labels.shape[1]
        assert alone.images[0].equal(together.images[number])
        assert alone.boxes[0].equal(together.boxes[number, :count])
    assert not made.batch(np.array([3, 11, 20]), epoch=3).images.equal(together.images)
    drawn = [made.boxed(row, 0).image.tobytes() for row in range(24)]
    same = loader(scenes, augment=["mosaic"])
    points = [np.argwhere((same.boxed(row, 0).image == 114).all(axis=2)).tolist() for row in range(24)]
    assert len({*drawn}) == 24 and len({str(places) for places in points}) > 5  # each has a mosaic of its own
    assert made.batch(np.array([3])).images.equal(loader(scenes).batch(np.array([3])).images)
    ahead = beside_training(loader(scenes, augment=CHANGES), 2)
    plan = made.epoch(1)
    for indices in plan:
        mine, theirs = made.batch(indices, 1), ahead.batch(indices, 1)
        assert mine.images.equal(theirs.images) and mine.boxes.equal(theirs.boxes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment": ["mixup"]}, "mixup mixes labels"),
        ({"augment": ["elastic"]}, "elastic bends images, and boxes and masks do not"),
        ({"augment": ["flip", "mosaic"]}, "mosaic comes first"),
        ({"train": {"coco": "a.json", "voc": "b"}}, "coco and voc together"),
    ],
)
def test_what_does_not_fit_is_a_fault(scenes, options, message):
    with pytest.raises((ValueError, RecipeError), match=message):
        section({"table": str(scenes / "train.jsonl")}, **options) if "train" not in options else (
            DetectionDataRecipe.model_validate({"dev": options["train"], **options})
        )
