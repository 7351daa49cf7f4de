"""Open the corpora of images with boxes of a recipe, whatever they are stored in."""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from seq2attn.data.box_formats import open_coco, open_voc, open_yolo
from seq2attn.data.box_rows import BoxForm, GivenBox, GivenBoxes
from seq2attn.data.corpora import SAMPLES, Role
from seq2attn.data.files import existing, file_state, items_at, json_rows
from seq2attn.data.hub import class_names, dataset_state, load, rows
from seq2attn.data.idx import idx_rows
from seq2attn.data.image_corpora import (
    ROWS,
    ImageRow,
    ImageSource,
    fields_of,
    file_content,
    is_path,
    label_name,
    loaded,
    resolved,
    shown_json,
    states_of,
    undecoded,
)
from seq2attn.data.image_files import ImageFiles, ImagePath
from seq2attn.data.report import DataError, Report
from seq2attn.data.scenes import make_scenes
from seq2attn.images.decoding import ImageError
from seq2attn.recipe.box_data import (
    AnyBoxes,
    BoxDataset,
    BoxSample,
    BoxTable,
    CocoCorpus,
    NpzCorpus,
    VocCorpus,
    YoloCorpus,
)

SCENES: dict[Role, int] = {"train": 1000, "dev": 100, "test": 100}  # of the sample, which are made when read


def open_boxes(corpus: AnyBoxes, role: Role, key: str) -> ImageSource:
    """Open a corpus of images with boxes.

    role: the split of a sample, if the corpus does not name one.
    key: the corpus's key in the recipe, for errors.

    Raises:
        DataError: it does not exist, or does not fit what the recipe says.
    """
    return BOX_OPENERS[type(corpus)](corpus, role, key)


def _open_table(corpus: BoxTable, role: Role, key: str) -> ImageSource:
    path = existing(corpus.table, f"{key}.table")
    archive = None if corpus.archive is None else existing(corpus.archive, f"{key}.archive")

    def located(report: Report) -> Iterator[tuple[ImagePath, GivenBoxes, str]]:
        for number, row in json_rows(path, report):
            where = f"{path}:{number}"
            if (image := fields_of(row, corpus.columns[:1], where, report)) is None:
                continue
            (name,) = image
            if is_path(name, corpus.columns[0], where, report):
                boxes = _given(row, corpus, None, PurePosixPath(name).stem, where, report)
                if boxes is not None:
                    yield resolved(corpus.path.replace("{}", name), path.parent, archive), boxes, where

    def read(report: Report) -> Iterator[ImageRow]:
        with ImageFiles() as files:
            for image, boxes, where in located(report):
                yield from loaded(files, image, [], where, report, boxes)

    return ImageSource(
        str(path), states_of(path, (image for image, _, _ in located(Report(stop=False)))), read
    )


def _open_dataset(corpus: BoxDataset, role: Role, key: str) -> ImageSource:
    columns = corpus.columns if corpus.label is None else corpus.columns[:2]
    corpus = corpus.model_copy(update={"columns": columns})
    loaded, commit = load(corpus, key)
    dataset = undecoded(loaded, corpus, key)
    names = None if corpus.label is not None else class_names(dataset, corpus.columns[2])
    name = f"{corpus.dataset}[{corpus.split}]"

    def read(report: Report) -> Iterator[ImageRow]:
        for number, row in enumerate(rows(dataset, corpus, key, ROWS)):
            where = f"{name}:{number}"
            image = fields_of(row, corpus.columns[:1], where, report)
            boxes = _given(row, corpus, names, number, where, report)
            if image is None or boxes is None:
                continue
            try:
                yield ImageRow(file_content(image[0]), [], where, where, boxes)
            except ImageError as error:
                report.bad(error.reason, where, f"{corpus.columns[0]}: {error}")

    return ImageSource(name, dataset_state(dataset, corpus, key, commit), read)


def _given(
    row: Any,
    corpus: BoxTable | BoxDataset,
    names: Sequence[str] | None,
    image_id: int | str,
    where: str,
    report: Report,
) -> GivenBoxes | None:
    """Return the boxes of a row; None, and a bad line, if it has not a list of boxes and of their labels.

    names: the names of labels that are numbers, by number.
    """
    lists = []
    for key in corpus.columns[1:] if corpus.label is None else corpus.columns[1:2]:
        try:
            values = items_at(row, key)
        except LookupError:
            report.bad("missing column", where, f"no column {key}")
            return None
        if not isinstance(values, list):
            report.bad("not a list", where, f"{key} is {shown_json(values)} where a list was expected")
            return None
        lists.append(values)
    boxes, *labels = lists
    if labels and len(labels[0]) != len(boxes):
        report.bad("unequal lists", where, f"{len(boxes)} boxes, and {len(labels[0])} labels")
        return None
    form, given = BoxForm(corpus.format, corpus.inclusive), []
    for number, numbers in enumerate(boxes):
        at_box = f"{where}: box {number}"
        label = corpus.label
        if label is None:
            label = label_name(labels[0][number], corpus.columns[2], names, at_box, report)
        if label is not None:
            given.append(GivenBox(numbers, label, at_box))
    return GivenBoxes(given, form, image_id)


def _open_npz(corpus: NpzCorpus, role: Role, key: str) -> ImageSource:
    path = existing(corpus.npz, f"{key}.npz")

    def read(report: Report) -> Iterator[ImageRow]:
        images, boxes = _arrays(path)
        by_image: list[list[GivenBox]] = [[] for _ in images]
        for number, (image, *numbers, code) in enumerate(boxes.tolist()):
            where = f"{path}: boxes {number}"
            if not 0 <= image < len(images):
                report.bad("no image", where, f"it is of image {image}: expected 0 to {len(images) - 1}")
                continue
            whole = int(code) if float(code).is_integer() else code
            label = label_name(whole, "the class", corpus.classes, where, report)
            if label is not None:
                by_image[int(image)].append(GivenBox(numbers, label, where))
        for number, (pixels, given) in enumerate(zip(images, by_image, strict=True)):
            where = f"{path}: images {number}"
            yield ImageRow(pixels, [], where, where, GivenBoxes(given, BoxForm(), number))

    return ImageSource(str(path), [file_state(path)], read)


def _open_sample(corpus: BoxSample, role: Role, key: str) -> ImageSource:
    split = corpus.split or role
    stem = SAMPLES / "digits" / split
    files = Path(f"{stem}.images.idx.xz"), Path(f"{stem}.labels.idx.xz")

    def read(report: Report) -> Iterator[ImageRow]:
        images, labels = zip(*idx_rows(*files), strict=True)
        for number, scene in enumerate(make_scenes(images, labels, SCENES[split], seed=0)):
            where = f"{corpus.sample}:{number}"
            boxes = [
                GivenBox(box, str(label), f"{where}: box {place}")
                for place, (box, label) in enumerate(zip(scene.boxes, scene.labels, strict=True))
            ]
            yield ImageRow(scene.pixels, [], where, where, GivenBoxes(boxes, BoxForm(), number))

    return ImageSource(corpus.sample, [file_state(file) for file in files], read)


def _arrays(path: Path) -> tuple[Any, Any]:
    """Return the images and the boxes of a .npz file. DataError if it has not both, as NpzCorpus says."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, boxes = arrays["images"], arrays["boxes"]
    except KeyError as error:
        raise DataError(f"{path}: expected the arrays images and boxes: {error.args[0]}") from error
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: expected a .npz file of NumPy: {error}") from error
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        shape = f"{images.dtype} {images.shape}"
        raise DataError(f"{path}: expected images of bytes, (N, H, W) or (N, H, W, 3); got {shape}")
    if boxes.ndim != 2 or boxes.shape[1] != 6 or boxes.dtype.kind not in "iuf":
        expected = "boxes (M, 6): image, left, top, right, bottom, class"
        raise DataError(f"{path}: expected {expected}; got {boxes.dtype} {boxes.shape}")
    return images, boxes


BOX_OPENERS: dict[type, Callable[[Any, Role, str], ImageSource]] = {
    CocoCorpus: open_coco,
    VocCorpus: open_voc,
    YoloCorpus: open_yolo,
    NpzCorpus: _open_npz,
    BoxSample: _open_sample,
    BoxTable: _open_table,
    BoxDataset: _open_dataset,
}
