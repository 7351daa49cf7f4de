"""Open the corpora of images of a recipe, with labels or texts, whatever they are stored in."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from seq2attn.data.corpora import SAMPLES, Role
from seq2attn.data.files import at, existing, file_state, halved, json_rows
from seq2attn.data.files import names as column_names
from seq2attn.data.hub import class_names, dataset_state, load, rows
from seq2attn.data.idx import idx_rows
from seq2attn.data.image_files import ImageFiles, ImagePath, classes
from seq2attn.data.report import DataError, Report
from seq2attn.images.decoding import ImageError, Pixels
from seq2attn.images.strokes import Drawing
from seq2attn.recipe import AnyImages, FolderCorpus, IdxCorpus, ImageDataset, ImageSample, ImageTable
from seq2attn.recipe.image_data import (
    AnyImageTexts,
    ImageTextDataset,
    ImageTextTable,
    StrokeTable,
    StrokeTextTable,
)

ROWS = 16  # of a dataset, read at a time


class Annotation(Protocol):
    """What the data say about an image beside labels and texts, as boxes."""

    def columns(self, height: int, width: int, where: str, report: Report) -> dict[str, list[Any]] | None:
        """Return what the store keeps, by column; None, and a bad line, if the image cannot be used.

        Args:
            height, width: of the image, upright, before it is resized.
            where: file and line of the image, for messages.
            report: of reading.
        """


class ImageRow(NamedTuple):
    """An image with its label or its texts, as it is in the data."""

    image: bytes | Pixels  # the content of its file, or its pixels
    targets: list[str]  # its label, or its texts
    name: str  # its file, its file in an archive, or its row
    where: str  # file and line, to which messages refer
    annotation: Annotation | None = None


class ImageSource(NamedTuple):
    """An open corpus, which can be read any number of times."""

    name: str  # of the file, folder or dataset
    state: Any  # JSON; changes when the data change
    read: Callable[[Report], Iterator[ImageRow]]


def open_images(corpus: AnyImages | AnyImageTexts, role: Role, key: str) -> ImageSource:
    """Open a corpus by the opener of its class, or of the nearest base class that has one.

    role: the split of a sample, if the corpus does not name one.
    key: the corpus's key in the recipe, for errors.

    Raises:
        DataError: it does not exist, or does not fit what the recipe says.
    """
    opener = next(IMAGE_OPENERS[kind] for kind in type(corpus).__mro__ if kind in IMAGE_OPENERS)
    return opener(corpus, role, key)


def _open_folder(corpus: FolderCorpus, role: Role, key: str) -> ImageSource:
    archive = None if corpus.archive is None else existing(corpus.archive, f"{key}.archive")
    if archive is not None:  # is listed only when it is read: a compressed one has to be unpacked
        name, state = f"{archive}::{corpus.folder}", [file_state(archive)]
    else:
        images = classes(corpus.folder, None, key, Report(stop=False))
        name, state = corpus.folder, [[label, *file_state(Path(path.name))] for label, path in images]

    def read(report: Report) -> Iterator[ImageRow]:
        with ImageFiles() as files:
            for label, path in classes(corpus.folder, archive, key, report):
                if not halved([label], "the name of the folder", str(path), report):
                    yield from loaded(files, path, [label], str(path), report)

    return ImageSource(name, state, read)


def _open_table(corpus: ImageTable, role: Role, key: str) -> ImageSource:
    path = existing(corpus.table, f"{key}.table")
    archive = None if corpus.archive is None else existing(corpus.archive, f"{key}.archive")

    def located(report: Report) -> Iterator[tuple[ImagePath, list[str], str]]:
        for image, targets, where in _rows(corpus, path, report):
            if is_path(image, corpus.columns[0], where, report):
                yield resolved(corpus.path.replace("{}", image), path.parent, archive), targets, where

    def read(report: Report) -> Iterator[ImageRow]:
        with ImageFiles() as files:
            for image, targets, where in located(report):
                yield from loaded(files, image, targets, where, report)

    return ImageSource(
        str(path), states_of(path, (image for image, _, _ in located(Report(stop=False)))), read
    )


def _rows(
    corpus: ImageTable | StrokeTable, path: Path, report: Report
) -> Iterator[tuple[Any, list[str], str]]:
    """Yield what a JSONL file has as image, the targets, and the place of each row that has both."""
    for number, row in json_rows(path, report):
        where = f"{path}:{number}"
        fields = fields_of(row, corpus.columns, where, report)
        targets = None if fields is None else _targets(fields[1], corpus, None, where, report)
        if fields is not None and targets is not None:
            yield fields[0], targets, where


def _open_strokes(corpus: StrokeTable, role: Role, key: str) -> ImageSource:
    path = existing(corpus.strokes, f"{key}.strokes")

    def read(report: Report) -> Iterator[ImageRow]:
        for strokes, targets, where in _rows(corpus, path, report):
            try:
                yield ImageRow(_drawing(strokes, corpus).content, targets, where, where)
            except ValueError as error:
                report.bad("no strokes", where, f"{corpus.columns[0]}: {error}")

    return ImageSource(str(path), [file_state(path)], read)


def _drawing(value: Any, corpus: StrokeTable) -> Drawing:
    """Return the drawing of a row's strokes. ValueError if they are none."""
    strokes = [_points(stroke) for stroke in value] if isinstance(value, list) else []
    if not strokes:
        raise ValueError(f"expected a list of strokes, got {shown_json(value)}")
    with np.errstate(over="ignore"):  # of what is beyond float32, there are points at infinity
        points = (np.concatenate(strokes) * corpus.scale).astype(np.float32)
    if not np.isfinite(points).all():
        raise ValueError("expected finite numbers as points")
    lengths = np.array([len(stroke) for stroke in strokes], np.int32)
    return Drawing(points, lengths, corpus.pen, corpus.margin, corpus.ink == "black")


def _points(stroke: Any) -> NDArray[np.float64]:
    """Return the points of a stroke, (n, 2). ValueError if it has none."""
    try:
        numbers = np.array(stroke)
    except (ValueError, OverflowError):  # of different lengths; too large
        numbers = np.array(None)
    flat = numbers.ndim == 1 and len(numbers) % 2 == 0
    if numbers.dtype.kind not in "iuf" or not numbers.size or not (flat or numbers.shape[1:] == (2,)):
        expected = "each stroke as points, [[x, y], ...] or [x, y, x, y, ...]"
        raise ValueError(f"expected {expected}; got {shown_json(stroke)}")
    return numbers.reshape(-1, 2).astype(np.float64)


def _open_dataset(corpus: ImageDataset, role: Role, key: str) -> ImageSource:
    loaded, commit = load(corpus, key)
    dataset = undecoded(loaded, corpus, key)
    names = class_names(dataset, corpus.columns[1])
    name = f"{corpus.dataset}[{corpus.split}]"

    def read(report: Report) -> Iterator[ImageRow]:
        for number, row in enumerate(rows(dataset, corpus, key, ROWS)):
            where = f"{name}:{number}"
            fields = fields_of(row, corpus.columns, where, report)
            targets = None if fields is None else _targets(fields[1], corpus, names, where, report)
            if fields is None or targets is None:
                continue
            try:
                yield ImageRow(file_content(fields[0]), targets, where, where)
            except ImageError as error:
                report.bad(error.reason, where, f"{corpus.columns[0]}: {error}")

    return ImageSource(name, dataset_state(dataset, corpus, key, commit), read)


def _open_idx(corpus: IdxCorpus, role: Role, key: str) -> ImageSource:
    images, labels = (existing(file, f"{key}.idx.{side}") for side, file in enumerate(corpus.idx))
    return _idx(images, labels, corpus.classes)


def _open_sample(corpus: ImageSample, role: Role, key: str) -> ImageSource:
    stem = SAMPLES / corpus.sample / (corpus.split or role)
    return _idx(Path(f"{stem}.images.idx.xz"), Path(f"{stem}.labels.idx.xz"), None)


def _idx(images: Path, labels: Path, names: list[str] | None) -> ImageSource:
    def read(report: Report) -> Iterator[ImageRow]:
        for number, (pixels, code) in enumerate(idx_rows(images, labels)):
            label = label_name(code, "the label", names, f"{labels}:{number}", report)
            if label is not None:
                where = f"{images}:{number}"
                yield ImageRow(pixels, [label], where, where)

    return ImageSource(str(images), [file_state(images), file_state(labels)], read)


IMAGE_OPENERS: dict[type, Callable[[Any, Role, str], ImageSource]] = {
    FolderCorpus: _open_folder,
    ImageTable: _open_table,
    StrokeTable: _open_strokes,
    ImageDataset: _open_dataset,
    IdxCorpus: _open_idx,
    ImageSample: _open_sample,
}


def loaded(
    files: ImageFiles,
    path: ImagePath,
    targets: list[str],
    where: str,
    report: Report,
    annotation: Annotation | None = None,
) -> Iterator[ImageRow]:
    """Yield the image at a path; nothing, and a bad line, if it cannot be read."""
    try:
        yield ImageRow(files.read(path), targets, str(path), where, annotation)
    except ImageError as error:
        report.bad(error.reason, where, str(error) if where == str(path) else f"{path}: {error}")


def resolved(text: str, folder: Path, archive: Path | None) -> ImagePath:
    """Return the path of an image that a table names."""
    if archive is not None:
        return ImagePath(archive, text)
    first, separator, name = text.partition("::")
    return ImagePath(folder / first, name) if separator else ImagePath(None, str(folder / text))


def is_path(value: Any, column: str, where: str, report: Report) -> bool:
    """Return whether the value of a column is the path of an image; if it is none, report a bad line."""
    if not isinstance(value, str) or not value:
        message = f"{column} is {shown_json(value)} where the path of an image was expected"
        report.bad("not a path", where, message)
        return False
    return not halved([value], column, where, report)


def states_of(table: Path, images: Iterable[ImagePath]) -> list[Any]:
    """Return what changes when a table, or an image or an archive that it names, does."""
    paths = {image.archive or Path(image.name) for image in images}
    return [file_state(path) if path.is_file() else [str(path)] for path in sorted({table, *paths})]


def fields_of(row: Any, keys: Sequence[str], where: str, report: Report) -> list[Any] | None:
    """Return the values of columns; None, and a bad line, if one is missing."""
    try:
        return [at(row, key) for key in keys]
    except LookupError as error:
        there = ", ".join(column_names(row)) or "none"
        report.bad("missing column", where, f"no column {error}; there are: {there}")
        return None


def _targets(
    value: Any,
    corpus: ImageTable | StrokeTable | ImageDataset,
    names: Sequence[str] | None,
    where: str,
    report: Report,
) -> list[str] | None:
    """Return the label or the texts that a column has; None, and a bad line, if it has none."""
    key = corpus.columns[1]
    if isinstance(corpus, ImageTextTable | StrokeTextTable | ImageTextDataset):
        return texts_of(value, key, where, report)
    label = label_name(value, key, names, where, report)
    return None if label is None else [label]


def texts_of(value: Any, key: str, where: str, report: Report) -> list[str] | None:
    """Return a text, or a list of texts, as a list; None, and a bad line, if there is none."""
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        expected = "a text or a list of texts was expected"
        report.bad("not a text", where, f"{key} is {shown_json(value)} where {expected}")
        return None
    if not all(text.strip() for text in texts):
        report.bad("empty", where, f"{key}: expected texts, got an empty one")
        return None
    return None if halved(texts, key, where, report) else texts


def label_name(value: Any, key: str, names: Sequence[str] | None, where: str, report: Report) -> str | None:
    """Return the name of a label; None, and a bad line, if it is none.

    value: a text, a whole number, true or false; or one of these alone in a list.
    names: the names of labels that are numbers, by number.
    """
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if type(value) is int and names is not None:
        if 0 <= value < len(names):
            return names[value]
        none = "-1, which stands for no label" if value == -1 else f"{value}, which has no name"
        report.bad("unknown label", where, f"{key} is {none}: expected 0 to {len(names) - 1}")
        return None
    if isinstance(value, int):
        return json.dumps(value)  # 1, true
    if not isinstance(value, str):
        reason = "several labels" if isinstance(value, list) and value else "not a label"
        report.bad(
            reason, where, f"{key} is {shown_json(value)} where a label was expected, a text or a number"
        )
        return None
    if not value.strip():
        report.bad("no label", where, "expected a label (a text), got an empty one")
        return None
    return None if halved([value], key, where, report) else value


def shown_json(value: Any) -> str:
    """Return the beginning of a value as JSON, for messages."""
    return json.dumps(value, default=str, ensure_ascii=False)[:40]


def undecoded(dataset: Any, corpus: ImageDataset, key: str) -> Any:
    """Return a dataset whose images come as they are stored. DataError if the column has other values."""
    import datasets

    column = corpus.columns[0]
    feature = (dataset.features or {}).get(column)
    if isinstance(feature, datasets.Image):
        return dataset.cast_column(column, datasets.Image(decode=False))
    if feature is not None and feature != datasets.Value("binary"):
        raise DataError(f"{key}.columns: expected images in {column}, got {feature}")
    return dataset


def file_content(value: Any) -> bytes:
    """Return the content of an image's file from a row of a dataset. ImageError if there is none."""
    if isinstance(value, dict) and value.get("bytes") is None and value.get("path"):
        from datasets.utils.file_utils import xopen

        try:
            with xopen(value["path"], "rb") as stream:
                value = stream.read()
        except (OSError, ValueError) as error:
            raise ImageError("missing image", f"{value['path']} cannot be read: {error}") from error
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise ImageError("missing image", f"expected an image, got {shown_json(content)}")
    return content
