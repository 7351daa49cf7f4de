"""Labelled images from folders, tables, archives, datasets and idx files; what cannot be read is reported."""

import gzip
import json
import os
import struct
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from seq2attn.data import DataError
from seq2attn.data.images import ImageExamples, learn_labels, prepare_images
from seq2attn.recipe import ImageDataRecipe
from seq2attn.text.word_vocabulary import WordVocabularyError

DATA = os.environ.get("SEQ2ATTN_DATA")
NEEDS_DATA = pytest.mark.skipif(not DATA, reason="needs image corpora in $SEQ2ATTN_DATA")
COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def png(color: str, height: int = 6, width: int = 8) -> bytes:
    file = BytesIO()
    Image.new("RGB", (width, height), COLORS[color]).save(file, "PNG")
    return file.getvalue()


IMAGES = {f"{color}/{number}.png": png(color, 6 + number) for color in COLORS for number in range(2)}


def folder(path: Path, files: Mapping[str, bytes] = IMAGES) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def archive(path: Path, files: Mapping[str, bytes] = IMAGES, prefix: str = "", mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    return path


def table(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def idx(path: Path, array: np.ndarray, kind: int = 8) -> Path:
    content = struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read(corpus: Mapping[str, object], **options: object) -> ImageExamples:
    data = ImageDataRecipe.model_validate({"train": corpus, "dev": {"sample": "digits"}, **options})
    return prepare_images(data.train, data, "train")


def found(examples: ImageExamples) -> list[tuple[str, tuple[int, ...], list[int]]]:
    """The label, the size and the first pixel of each image."""
    images = [examples.image(number) for number in range(len(examples))]
    return [
        (examples.target_text(number), image.shape[:2], image[0, 0].tolist())
        for number, image in enumerate(images)
    ]


EXPECTED = [
    (color, (6 + number, 8), list(COLORS[color])) for number in range(2) for color in ("blue", "green", "red")
]


def test_a_folder_has_a_sub_folder_for_each_class(tmp_path):
    examples = read({"folder": str(folder(tmp_path))})
    assert found(examples) == EXPECTED  # the first of each class, then the second
    assert examples.name(0) == str(tmp_path / "blue" / "0.png")
    assert examples.heights.tolist() == [6, 6, 6, 7, 7, 7] and examples.widths.tolist() == [8] * 6


@pytest.mark.parametrize("name", ["images.tar", "images.tar.gz", "images.tar.xz"])
def test_a_folder_may_lie_in_an_archive(tmp_path, name):
    path = archive(tmp_path / name, prefix="./data/train/", mode=f"w:{name.partition('.tar')[2][1:]}")
    for inside in ("data/train", "./data/train/"):
        examples = read({"folder": inside, "archive": str(path)})
        assert found(examples) == EXPECTED
        assert examples.name(0) == f"{path}::data/train/blue/0.png"


def test_links_in_an_archive_are_no_images(tmp_path):
    path = archive(tmp_path / "images.tar")
    with tarfile.open(path, "a") as tar:
        for kind, target in ((tarfile.SYMTYPE, "/etc/hostname"), (tarfile.LNKTYPE, "red/0.png")):
            link = tarfile.TarInfo(f"red/link{kind.decode()}.png")
            link.type, link.linkname = kind, target
            tar.addfile(link)
    assert len(read({"folder": ".", "archive": str(path)})) == 6


def test_a_limit_leaves_all_classes(tmp_path):
    assert [label for label, _, _ in found(read({"folder": str(folder(tmp_path)), "limit": 3}))] == [
        "blue", "green", "red",
    ]  # fmt: skip


ROWS = [{"image": name, "label": name.split("/")[0]} for name in IMAGES]


def test_a_table_names_images_and_labels(tmp_path):
    folder(tmp_path)
    examples = read({"table": str(table(tmp_path / "train.jsonl", ROWS))})
    assert sorted(found(examples)) == sorted(EXPECTED)
    renamed = [{"file": {"path": row["image"]}, "kind": [row["label"]]} for row in ROWS]
    corpus = {"table": str(table(tmp_path / "other.jsonl", renamed)), "columns": ["file.path", "kind"]}
    assert found(read(corpus)) == found(examples)


def test_a_table_names_images_in_archives(tmp_path):
    archive(tmp_path / "images.tar")
    within = [{**row, "image": f"images.tar::{row['image']}"} for row in ROWS]
    for rows, more in ((ROWS, {"archive": str(tmp_path / "images.tar")}), (within, {})):
        examples = read({"table": str(table(tmp_path / "train.jsonl", rows)), **more})
        assert sorted(found(examples)) == sorted(EXPECTED)
        assert examples.name(0) == f"{tmp_path / 'images.tar'}::red/0.png"


@pytest.mark.parametrize("label", [7, True, "a b", ["one"]])
def test_a_label_may_be_a_number_or_a_text(tmp_path, label):
    folder(tmp_path)
    examples = read({"table": str(table(tmp_path / "t.jsonl", [{"image": "red/0.png", "label": label}]))})
    assert examples.targets == [
        {7: "7", True: "true", "a b": "a b"}.get(label if not isinstance(label, list) else 0, "one")
    ]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_dataset_has_images_and_class_labels(tmp_path, own_cache, streaming):
    features = datasets.Features(
        {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["red", "green", "blue"])}
    )
    rows = {
        "picture": [{"bytes": content, "path": None} for content in IMAGES.values()],
        "kind": [name.split("/")[0] for name in IMAGES],
    }
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    corpus = {"dataset": "parquet", "data_files": str(tmp_path / "train.parquet"), "streaming": streaming}
    assert sorted(found(read({**corpus, "columns": ["picture", "kind"]}))) == sorted(EXPECTED)
    with pytest.raises(DataError, match=r"data\.train\.0\.columns: expected images in kind, got ClassLabel"):
        read({**corpus, "columns": ["kind", "kind"]})


def test_minus_one_stands_for_no_label(tmp_path, own_cache):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [{"bytes": png("red"), "path": None}] * 2, "label": [0, -1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    corpus = {"dataset": "parquet", "data_files": str(tmp_path / "train.parquet")}
    with pytest.raises(DataError, match=r"parquet\[train\]:1: label is -1, which stands for no label"):
        read(corpus)
    assert read(corpus, bad_lines="skip").targets == ["a"]


def test_a_folder_of_images_is_a_dataset_too(tmp_path, own_cache):
    corpus = {"dataset": str(folder(tmp_path / "data")), "columns": ["image", "label"]}
    assert sorted(found(read(corpus))) == sorted(EXPECTED)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_those_of_mnist(tmp_path, suffix):
    pixels = np.random.default_rng(1).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    files = [
        str(idx(tmp_path / f"images{suffix}", pixels)),
        str(idx(tmp_path / f"labels{suffix}", np.array([2, 0, 1], np.uint8))),
    ]
    examples = read({"idx": files}, channels="grey")
    assert examples.targets == ["2", "0", "1"]
    assert all((examples.image(number)[:, :, 0] == pixels[number]).all() for number in range(3))
    assert read({"idx": files, "classes": ["shirt", "coat", "bag"]}).targets == ["bag", "shirt", "coat"]


def test_damaged_idx_files_are_errors(tmp_path):
    images, labels = np.zeros((3, 4, 5), np.uint8), np.zeros(3, np.uint8)
    good, four = idx(tmp_path / "good", images), idx(tmp_path / "four", np.zeros(4, np.uint8))
    (tmp_path / "cut").write_bytes(good.read_bytes()[:-3])
    (tmp_path / "long").write_bytes(good.read_bytes() + b"\0")
    (tmp_path / "text").write_bytes(b"not an idx file")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(good.read_bytes())[:-9])
    (tmp_path / "wide").write_bytes(struct.pack(">HBB3I", 0, 8, 3, 3, 2**31, 2**31))
    three = idx(tmp_path / "three", labels)
    for first, second, message in (
        ("cut", three, "cut: ends early"), ("long", three, "long: longer than"),
        ("text", three, "text: expected an idx file"), ("cut.gz", three, "cut.gz: damaged"),
        ("good", four, "four: 4 labels where 3 were expected"), ("good", good, "good: expected an idx file"),
        ("wide", three, "wide: expected images of at most"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            read({"idx": [str(tmp_path / first), str(second)]})


BAD_ROWS = {
    "missing column": {"image": "red/0.png"},
    "not a label": {"image": "red/0.png", "label": None},
    "several labels": {"image": "red/0.png", "label": ["a", "b"]},
    "no label": {"image": "red/0.png", "label": " "},
    "broken UTF-16": {"image": "red/0.png", "label": "\ud800"},
    "not a path": {"image": 3, "label": "red"},
    "missing image": {"image": "red/9.png", "label": "red"},
    "damaged image": {"image": "cut.png", "label": "red"},
    "not an image": {"image": "notes.txt", "label": "red"},
}


@pytest.mark.parametrize("reason", BAD_ROWS)
def test_a_bad_row_stops_or_is_skipped(tmp_path, reason):
    folder(tmp_path, {**IMAGES, "cut.png": png("red")[:50], "notes.txt": b"Notes."})
    path = table(tmp_path / "train.jsonl", [ROWS[0], BAD_ROWS[reason], *ROWS[1:]])
    with pytest.raises(DataError, match=rf"{path}:2: .*; fix it, or set data.bad_lines: skip"):
        read({"table": str(path)})
    examples = read({"table": str(path)}, bad_lines="skip")
    assert sorted(found(examples)) == sorted(EXPECTED)
    assert examples.report.kept == 6 and examples.report.reasons[reason].count == 1
    assert examples.report.reasons[reason].examples[0].startswith(f"{path}:2: ")


def test_an_unknown_class_label_is_a_bad_row(tmp_path):
    files = [
        str(idx(tmp_path / "images", np.zeros((3, 4, 5), np.uint8))),
        str(idx(tmp_path / "labels", np.array([0, 2, 1], np.uint8))),
    ]
    with pytest.raises(DataError, match="labels:1: the label is 2, which has no name: expected 0 to 1"):
        read({"idx": files, "classes": ["a", "b"]})
    examples = read({"idx": files, "classes": ["a", "b"]}, bad_lines="skip")
    assert examples.targets == ["a", "b"] and examples.report.reasons["unknown label"].count == 1


def test_a_bad_image_of_a_dataset_is_named_by_its_row(tmp_path, own_cache):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    rows = {
        "image": [{"bytes": png("red"), "path": None}, {"bytes": b"no", "path": None}, None],
        "label": ["a", "b", "c"],
    }
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    corpus = {"dataset": "parquet", "data_files": str(tmp_path / "train.parquet")}
    with pytest.raises(DataError, match=r"parquet\[train\]:1: expected an image"):
        read(corpus)
    reasons = read(corpus, bad_lines="skip").report.reasons
    assert {reason: entry.count for reason, entry in reasons.items()} == {
        "not an image": 1,
        "missing image": 1,
    }


def test_what_is_no_image_by_its_name_is_noted(tmp_path):
    folder(tmp_path, {**IMAGES, "README.md": b"", "red/.hidden.png": b"", "red/Thumbs.db": b""})
    report = read({"folder": str(tmp_path)}).report
    assert report.kept == 6 and report.reasons["no image by its name"].count == 3


def test_an_image_outside_of_the_classes_is_bad(tmp_path):
    folder(tmp_path, {**IMAGES, "stray.png": png("red")})
    with pytest.raises(DataError, match=r"stray.png: expected it in a sub-folder"):
        read({"folder": str(tmp_path)})
    assert read({"folder": str(tmp_path)}, bad_lines="skip").report.reasons["no class"].count == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    path = table(tmp_path / "train.jsonl", [{"image": "pipe.png", "label": "a"}])
    with pytest.raises(DataError, match=r"train.jsonl:1: .*pipe.png: cannot be read: is a pipe or a device"):
        read({"table": str(path)})


def test_missing_corpora_are_errors_with_their_key(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.tar").write_bytes(b"no archive")
    (tmp_path / "cut.tar.gz").write_bytes(archive(tmp_path / "whole.tar.gz", mode="w:gz").read_bytes()[:200])
    tables = table(tmp_path / "t.jsonl", ROWS)
    for corpus, message in (
        ({"folder": str(tmp_path / "gone")}, r"data\.train\.0\.folder: no such folder"),
        ({"folder": str(tmp_path / "empty")}, r"data\.train\.0\.folder: expected sub-folders with images"),
        ({"folder": ".", "archive": str(tmp_path / "gone.tar")}, r"data\.train\.0\.archive: no such file"),
        ({"folder": ".", "archive": str(tmp_path / "no.tar")}, "no.tar: expected a .tar archive"),
        ({"folder": ".", "archive": str(tmp_path / "cut.tar.gz")}, "cut.tar.gz: expected a .tar archive"),
        ({"folder": "x", "archive": str(archive(tmp_path / "a.tar"))}, "expected sub-folders with images in .*a.tar::x"),
        ({"table": str(tmp_path / "gone.jsonl")}, r"data\.train\.0\.table: no such file"),
        ({"table": str(tables), "archive": str(archive(tmp_path / "b.tar", {}))}, "red/0.png: no such file"),
        ({"idx": [str(tmp_path / "gone"), str(tables)]}, r"data\.train\.0\.idx\.0: no such file"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            read(corpus)


def test_the_sample_of_digits(stores):
    data = ImageDataRecipe.model_validate(
        {role: {"sample": "digits"} for role in ("train", "dev", "test")} | {"channels": "grey"}
    )
    counts = {"train": 2000, "dev": 250, "test": 250}
    for role, count in counts.items():
        examples = prepare_images([data.dev], data, role)
        assert len(examples) == count and {*map(examples.targets.count, "0123456789")} == {count // 10}
        assert examples.image(0).shape == (28, 28, 1)
    assert learn_labels(data).names == list("0123456789")


def test_one_class_is_an_error(tmp_path):
    path = folder(tmp_path, {"red/0.png": png("red")})
    data = ImageDataRecipe.model_validate({"train": {"folder": str(path)}, "dev": {"folder": str(path)}})
    with pytest.raises(WordVocabularyError, match="expected at least two labels, got red"):
        learn_labels(data)


@NEEDS_DATA
def test_the_sample_is_made_again_byte_for_byte():
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("make_digits", Path(__file__).parents[1] / "scripts" / "make_digits.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    images, digits = module.choose(Path(DATA) / "mnist", "test")
    examples = read({"sample": "digits", "split": "test"}, channels="grey")
    assert examples.targets == [str(digit) for digit in digits]
    assert all((examples.image(row)[:, :, 0] == image).all() for row, image in enumerate(images))


@NEEDS_DATA
def test_real_corpora_are_read():
    mnist, bees = Path(DATA) / "mnist", Path(DATA) / "hymenoptera"
    files = [str(mnist / f"t10k-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1")]
    examples = read({"idx": files, "limit": 1000}, channels="grey")
    assert len(examples) == 1000 and examples.targets[:5] == ["7", "2", "1", "0", "4"]
    corpus = {"table": str(bees / "val.jsonl"), "archive": str(bees / "images.tar"), "limit": 20}
    assert {read(corpus, size=64).image(number).shape for number in range(20)} == {(64, 64, 3)}
