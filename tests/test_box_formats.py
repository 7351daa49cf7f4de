"""Images with boxes in every format that they come in: the same scenes give the same objects."""

import json
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image
from tiny_boxes import COLOURS, scene

from seq2attn.data.boxes import BoxExamples, prepare_boxes
from seq2attn.data.report import DataError
from seq2attn.recipe.box_data import DetectionDataRecipe

NAMES = [*COLOURS]
COUNT = 5


def examples(corpus: dict[str, Any], **options: Any) -> BoxExamples:
    data = DetectionDataRecipe.model_validate({"train": corpus, "dev": corpus, **options})
    return prepare_boxes(data.train, data, "train")


def scenes() -> list[tuple[Any, list[Any], list[str]]]:
    random = np.random.default_rng(7)
    return [scene(random) for _ in range(COUNT)]


def coco(folder: Path) -> dict[str, Any]:
    images, annotations = [], []
    for number, (pixels, boxes, labels) in enumerate(scenes()):
        Image.fromarray(pixels).save(folder / f"s{number}.png")
        images.append({"id": 100 + number, "file_name": f"s{number}.png", "height": 40, "width": 48})
        for (left, top, right, bottom), label in zip(boxes, labels, strict=True):
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": 100 + number,
                    "category_id": 10 * NAMES.index(label),
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 10 * number, "name": name} for number, name in enumerate(NAMES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return {"coco": str(folder / "instances.json")}


def voc(folder: Path) -> dict[str, Any]:
    (folder / "Annotations").mkdir()
    (folder / "JPEGImages").mkdir()
    for number, (pixels, boxes, labels) in enumerate(scenes()):
        Image.fromarray(pixels).save(folder / "JPEGImages" / f"s{number}.png")
        objects = "".join(
            f"<object>\n<name>{label}</name><difficult>0</difficult>"
            f"<part><name>x</name><bndbox><xmin>1</xmin></bndbox></part>"
            f"<bndbox><xmin>{box[0] + 1}</xmin><ymin>{box[1] + 1}</ymin>"
            f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>\n"
            for box, label in zip(boxes, labels, strict=True)
        )
        size = "<size><width>48</width><height>40</height><depth>3</depth></size>"
        xml = f"<annotation><filename>other.jpg</filename>{size}\n{objects}</annotation>"
        (folder / "Annotations" / f"s{number}.xml").write_text(xml)
    return {"voc": str(folder / "Annotations")}


def yolo(folder: Path) -> dict[str, Any]:
    for name in ("images/a", "labels/a"):
        (folder / name).mkdir(parents=True)
    for number, (pixels, boxes, labels) in enumerate(scenes()):
        Image.fromarray(pixels).save(folder / "images" / "a" / f"s{number}.png")
        lines = [
            f"{NAMES.index(label)} {(left + right) / 96} {(top + bottom) / 80} "
            f"{(right - left) / 48} {(bottom - top) / 40}\n"
            for (left, top, right, bottom), label in zip(boxes, labels, strict=True)
        ]
        (folder / "labels" / "a" / f"s{number}.txt").write_text("".join(lines))
    return {"yolo": str(folder / "images"), "classes": NAMES}


def npz(folder: Path) -> dict[str, Any]:
    made = scenes()
    rows = [
        [number, *box, NAMES.index(label)]
        for number, (_, boxes, labels) in enumerate(made)
        for box, label in zip(boxes, labels, strict=True)
    ]
    images = np.stack([pixels for pixels, _, _ in made])
    np.savez_compressed(folder / "scenes.npz", images=images, boxes=np.array(rows, np.int32))
    return {"npz": str(folder / "scenes.npz"), "classes": NAMES}


def dataset(folder: Path) -> dict[str, Any]:
    label = datasets.ClassLabel(names=NAMES)
    objects = {"bbox": datasets.Sequence(datasets.Sequence(datasets.Value("float32"))), "category": [label]}
    features = datasets.Features({"image": datasets.Image(), "objects": objects})
    rows = [
        {
            "image": Image.fromarray(pixels),
            "objects": {
                "bbox": [[left, top, right - left, bottom - top] for left, top, right, bottom in boxes],
                "category": labels,
            },
        }
        for pixels, boxes, labels in scenes()
    ]
    datasets.Dataset.from_list(rows, features=features).to_parquet(folder / "scenes.parquet")
    return {"dataset": "parquet", "data_files": str(folder / "scenes.parquet")}


FORMATS = {"coco": coco, "voc": voc, "yolo": yolo, "npz": npz, "dataset": dataset}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_gives_the_same_images_and_objects(tmp_path, name):
    read = examples(FORMATS[name](tmp_path))
    assert len(read) == COUNT
    for number, (pixels, boxes, labels) in enumerate(scenes()):
        assert (read.image(number) == pixels).all()
        assert read.boxes(number) == pytest.approx(np.array(boxes, float), abs=1e-4)
        assert read.labels_of(number) == labels and read.original_size(number) == (40, 48)
    identifiers = {"coco": [100, 101], "voc": ["s0", "s1"], "yolo": ["s0", "s1"]}.get(name, [0, 1])
    assert [read.image_id(number) for number in (0, 1)] == identifiers


def changed_json(corpus: dict[str, Any], change: Any) -> dict[str, Any]:
    path = Path(corpus["coco"])
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return corpus


def test_crowds_of_coco_are_not_learned_but_scored_and_areas_are_kept(tmp_path):
    def crowd(content: Any) -> None:
        content["annotations"][0] |= {"iscrowd": 1, "area": 7.5}

    read, plain = examples(changed_json(coco(tmp_path), crowd)), scenes()
    assert len(read.boxes(0)) == len(plain[0][1]) - 1 == len(read.labels_of(0))
    objects = read.objects(0)
    assert objects.crowds.tolist() == [True, *[False] * (len(objects.boxes) - 1)] and objects.areas[0] == 7.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][1].update(category_id=7), "annotation 1: there is no category 7"),
        (lambda c: c["annotations"][1].update(image_id=7), "annotation 1: there is no image 7"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2, 3]), "annotation 1: expected a box, four finite"),
        (lambda c: c["annotations"][1].pop("bbox"), "annotation 1: expected a box, four finite"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2, -3, 4]), "its width or height is negative"),
        (lambda c: c["images"][1].update(height=48, width=40), "40 x 48: it is turned by its EXIF"),
        (lambda c: c["images"][1].update(file_name="no.png"), "no.png: no such file"),
        (lambda c: c["images"].append({"id": 3}), "images 5: expected an image with id and file_name"),
    ],
)
def test_what_is_bad_in_coco_is_reported_and_may_be_left_out(tmp_path, change, message):
    corpus = changed_json(coco(tmp_path), change)
    with pytest.raises(DataError, match=re.escape(message)) as error:
        examples(corpus)
    assert "instances.json: " in str(error.value)
    assert examples(corpus, bad_lines="skip").report.kept >= COUNT - 1


@pytest.mark.parametrize("content", ["{", "[]", '{"images": []}', '{"images": [], "annotations": 3}'])
def test_a_file_that_is_no_coco_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a\.json: expected"):
        examples({"coco": str(tmp_path / "a.json")})


def test_voc_reads_names_of_a_list_and_takes_difficult_objects_for_crowds(tmp_path):
    corpus = voc(tmp_path)
    (tmp_path / "train.txt").write_text("s3\ns1\n")
    path = tmp_path / "Annotations" / "s3.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1", 1))
    read = examples(corpus | {"names": str(tmp_path / "train.txt")})
    assert [read.image_id(number) for number in range(2)] == ["s3", "s1"] and len(read) == 2
    assert read.objects(0).crowds[0] and len(read.boxes(0)) == len(read.objects(0).boxes) - 1
    plain = examples(corpus | {"inclusive": False}, bad_lines="skip")
    assert (plain.objects(1).boxes[:, :2] == np.array(scenes()[1][1])[:, :2] + 1).all()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</annotation>", "", "s1.xml: expected XML"),
        ("<xmin>", "<xmin>a", "s1.xml:2: expected a box, four finite numbers"),
        ("<name>", "<name> </name><name>", "s1.xml:2: expected an object with a name"),
        ("<width>48", "<width>40", "s1.xml: the image is 48 x 40 where the data say 40 x 40"),
        ("<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>', "it declares entities"),
    ],
)
def test_what_is_bad_in_voc_is_reported_with_its_line(tmp_path, old, new, message):
    corpus = voc(tmp_path)
    path = tmp_path / "Annotations" / "s1.xml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=re.escape(message)):
        examples(corpus)
    assert examples(corpus, bad_lines="skip").report.kept >= COUNT - 1


def test_yolo_reads_names_from_files_and_images_without_boxes(tmp_path):
    corpus = yolo(tmp_path)
    (tmp_path / "labels" / "a" / "s2.txt").unlink()
    (tmp_path / "names.txt").write_text("".join(f"{name}\n" for name in NAMES))
    (tmp_path / "data.yaml").write_text("names: {0: blue, 1: green, 2: red}\nnc: 3\n")
    for file in ("names.txt", "data.yaml"):
        read = examples(corpus | {"classes": str(tmp_path / file)})
        assert [read.labels_of(number) for number in (0, 1)] == [labels for *_, labels in scenes()[:2]]
        assert read.boxes(2).shape == (0, 4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2", "expected class, centre and size, 5 numbers; got 4"),
        ("9 0.5 0.5 0.2 0.2", "the class is 9: expected one of 3"),
        ("0 0.5 0.5 0 0.2", "the box has no area"),
        ("0 0.9 0.5 0.6 0.2", "not within its image"),
        ("0 24 20 10 10", "not within its image"),
        ("0 0.5 x 0.2 0.2", "four finite numbers"),
    ],
)
def test_what_is_bad_in_yolo_is_reported_with_its_line(tmp_path, line, message):
    corpus = yolo(tmp_path)
    path = tmp_path / "labels" / "a" / "s1.txt"
    path.write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(DataError, match=message) as error:
        examples(corpus)
    assert f"{path}:2: " in str(error.value)
    read = examples(corpus, bad_lines="skip")
    assert len(read) == COUNT and len(read.boxes(1)) == 1


def test_what_is_missing_is_named_with_its_key(tmp_path):
    (tmp_path / "empty").mkdir()
    empty = str(tmp_path / "empty")
    for corpus, message in (
        ({"coco": str(tmp_path / "no.json")}, "data.train.0.coco: no such file"),
        ({"voc": empty}, "data.train.0.voc: expected .xml files"),
        ({"voc": str(tmp_path / "no")}, "data.train.0.voc: no such folder"),
        ({"yolo": empty, "classes": ["a"]}, "data.train.0.yolo: expected images"),
        ({"npz": str(tmp_path / "no.npz")}, "data.train.0.npz: no such file"),
    ):
        with pytest.raises(DataError, match=re.escape(message)):
            examples(corpus)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 4, 4), np.uint8)}, "expected the arrays images and boxes"),
        ({"images": np.zeros((2, 4, 4)), "boxes": np.zeros((0, 6))}, "expected images of bytes"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "boxes": np.zeros((3, 5))}, "expected boxes"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "boxes": np.array([[2, 0, 0, 2, 2, 1]])}, "image 2"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        examples({"npz": str(tmp_path / "a.npz")})
    (tmp_path / "b.npz").write_bytes(b"PK no arrays")
    with pytest.raises(DataError, match=r"expected a \.npz file"):
        examples({"npz": str(tmp_path / "b.npz")})
