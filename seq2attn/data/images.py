"""Images with labels or texts -> a store of pixels, cached on disk, memory-mapped -> examples."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from seq2attn.data.cache import Notes, stored
from seq2attn.data.corpora import Role
from seq2attn.data.examples import ExampleSet, Part, digest
from seq2attn.data.image_corpora import ImageRow, ImageSource, open_images
from seq2attn.data.report import DataError, Report, silent
from seq2attn.images.decoding import ImageError, ImageReader, Pixels
from seq2attn.images.strokes import Drawing
from seq2attn.recipe import AnyImages, ImageDataRecipe
from seq2attn.recipe.image_data import AnyImageDataRecipe, AnyImageTexts
from seq2attn.text.word_vocabulary import Labels

if TYPE_CHECKING:
    import datasets
    from datasets.arrow_writer import ArrowWriter

FORMAT = 2  # version of the store's format; stores of other versions are made again
SMALL = 2**16  # bytes of pixels that are always stored decoded
ROWS, BYTES = 1000, 2**26  # images, and bytes of them, that are written at a time
COLUMNS = ("image", "decoded", "height", "width", "targets", "name")


def prepare_images(
    corpora: Sequence[AnyImages | AnyImageTexts],
    data: AnyImageDataRecipe,
    role: Role,
    progress: Callable[[Report], object] = silent,
) -> "ImageExamples":
    """Read and decode the images of corpora, or take the result from the cache if nothing has changed.

    Every image is decoded here once, so that a damaged one is found before training. Each corpus has its own
    store, as texts have (`data.prepare`), named by a hash of the data and the options. It holds the pixels of
    an image, after resizing, if they take at most SMALL bytes or no more than its file; otherwise it holds
    the file, and the image is decoded whenever it is asked for. Strokes stay strokes, so that they can be
    drawn in another way.

    Args:
        corpora: `data.train`, or `[data.dev]`.
        role: what they are used for.
        progress: called now and then with the report on what has been read; not if the cache has them.

    Raises:
        DataError: data cannot be read, there is a bad line and `data.bad_lines` is stop, or no image is left.
    """
    return ImageExamples(image_parts(corpora, data, role, PLAIN, progress), data.reader())


class ImageKind(NamedTuple):
    """A kind of images: how their corpora are opened, and the columns of their annotations."""

    open: Callable[[Any, Role, str], ImageSource]  # corpus, role, key in the recipe
    columns: Mapping[str, str] = MappingProxyType({})  # column -> type of a value, of which a row has a list


PLAIN = ImageKind(open_images)


def image_parts(
    corpora: Sequence[Any],
    data: AnyImageDataRecipe,
    role: Role,
    kind: ImageKind,
    progress: Callable[[Report], object] = silent,
) -> list[Part]:
    """Return the stores of corpora of images; see `prepare_images`."""
    parts = []
    reader = data.reader()
    for number, corpus in enumerate(corpora):
        source = kind.open(corpus, role, f"data.{role}" + (f".{number}" if role == "train" else ""))
        options = [corpus.model_dump(mode="json", exclude={"weight"}), data.bad_lines]
        state = [FORMAT, source.state, options, [data.channels, data.shape, data.resize]]
        name = digest(["images", *state, *kind.columns.items()])
        stop, kept = data.bad_lines == "stop", (corpus.skip, corpus.limit)
        write = partial(_write, source, reader, kept, [*COLUMNS, *kind.columns], stop, progress)
        parts.append(Part(stored(name, partial(_columns, kind.columns), write), corpus.weight))
    return parts


def learn_labels(data: ImageDataRecipe) -> Labels:
    """Return the labels of the images of training data and dev set, sorted.

    DataError as `prepare_images`, WordVocabularyError if there are fewer than two.
    """
    train, dev = prepare_images(data.train, data, "train"), prepare_images([data.dev], data, "dev")
    return Labels.learn(chain(train.targets, dev.targets))


class ImageExamples(ExampleSet):
    """Images by number, each with its label or its texts. Made by `prepare_images`."""

    def __init__(self, parts: Sequence[Part], reader: ImageReader) -> None:
        super().__init__(parts)
        self.reader = reader
        chunks = [chunk for part in parts for chunk in part.stored.chunks]
        self._columns = [{name: chunk.column(name) for name in COLUMNS} for chunk in chunks]
        #: Heights and widths of all images, (N,), int32, after resizing.
        self.heights, self.widths = (
            np.concatenate([columns[side].to_numpy() for columns in self._columns]).astype(np.int32)
            for side in ("height", "width")
        )
        self._targets: list[list[str]] = [
            targets for columns in self._columns for targets in columns["targets"].to_pylist()
        ]
        self._sums = [part.stored.notes.details for part in parts]

    def image(self, number: int) -> Pixels:
        """Return the pixels of an image."""
        columns, row = self._row(number)
        content = columns["image"][row].as_buffer()
        if columns["decoded"][row].as_py():
            shape = int(self.heights[number]), int(self.widths[number]), -1
            return np.frombuffer(content, np.uint8).reshape(shape)
        return self.reader.read(content.to_pybytes())

    def drawing(self, number: int) -> Drawing | None:
        """Return the strokes of an image, None if it has none."""
        columns, row = self._row(number)
        return None if columns["decoded"][row].as_py() else Drawing.of(columns["image"][row].as_py())

    def name(self, number: int) -> str:
        """Return where an image is from: its file, its file in an archive, or its row."""
        columns, row = self._row(number)
        return str(columns["name"][row])

    @property
    def targets(self) -> list[str]:
        """The label of each image, or its first text."""
        return [targets[0] for targets in self._targets]

    def target_text(self, number: int) -> str:
        """Return the label of an image, or its first text."""
        return self._targets[number][0]

    def references(self, number: int) -> list[str]:
        """Return all texts of an image."""
        return self._targets[number]

    def mean_and_std(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel over all pixels, which are from 0 to 1.

        A channel without variation has the deviation of one step, 1/255, so that it can be divided by.
        """
        pixels = sum(sums["pixels"] for sums in self._sums)
        means, stds = [], []
        for channel in range(len(self._sums[0]["sums"])):
            total = sum(sums["sums"][channel] for sums in self._sums)
            squares = sum(sums["squares"][channel] for sums in self._sums)
            variance = (squares * pixels - total * total) / pixels**2  # of whole numbers: exact, in any order
            means.append(round(total / pixels / 255, 6))
            stds.append(round(max(variance**0.5, 1.0) / 255, 6))
        return means, stds

    def _row(self, number: int) -> tuple[dict[str, Any], int]:
        chunk, row = self._find(number)
        return self._columns[chunk], row


class _Row(NamedTuple):
    values: dict[str, Any]  # by column
    pixels: Pixels


def _columns(annotations: Mapping[str, str]) -> "datasets.Features":
    """Return the columns of the table."""
    import datasets

    kinds = dict(zip(COLUMNS, ("binary", "bool", "int32", "int32", "string", "string"), strict=True))
    columns = {name: datasets.Value(kind) for name, kind in kinds.items()}
    lists = {"targets": "string", **annotations}
    return datasets.Features(
        columns | {name: datasets.Sequence(datasets.Value(kind)) for name, kind in lists.items()}
    )


def _write(
    source: ImageSource,
    reader: ImageReader,
    kept: tuple[int, int | None],
    columns: Sequence[str],
    stop: bool,
    progress: Callable[[Report], object],
    writer: "ArrowWriter",
) -> Notes:
    """Write the rows of a corpus; kept: how many are left out at the start, and how many are then kept."""
    first, limit = kept
    report, content, sums = Report(stop=stop, progress=progress), hashlib.sha256(), _Sums()
    rows = _decoded(source.read(report), reader, report)
    for batch in _batches(islice(rows, first, None if limit is None else first + limit)):
        for values, pixels in batch:
            notes = [values[name] for name in columns if name == "targets" or name not in COLUMNS]
            texts = [json.dumps(note, default=bytes.hex) for note in notes]
            content.update(f"{pixels.shape} {' '.join(texts)}".encode())
            content.update(pixels.tobytes())
            sums.add(pixels)
        writer.write_batch({name: [row.values[name] for row in batch] for name in columns})
        report.read += len(batch)
        report.kept += len(batch)
        progress(report)
    if not report.kept:
        raise DataError(f"no image is left of {source.name}: {report}")
    return Notes(report, content.hexdigest(), sums.to_dict())


def _batches(rows: Iterator[_Row]) -> Iterator[list[_Row]]:
    """Yield rows in lists of at most ROWS, which end with the first row that makes them larger than BYTES."""
    batch, size = list[_Row](), 0
    for row in rows:
        batch.append(row)
        size += len(row.values["image"]) + row.pixels.size
        if len(batch) == ROWS or size > BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _decoded(images: Iterator[ImageRow], reader: ImageReader, report: Report) -> Iterator[_Row]:
    """Yield images with their pixels; report those that cannot be decoded as bad lines."""
    for image in images:
        try:
            pixels, height, width = reader.read_sized(image.image)
        except ImageError as error:
            name = "" if image.name == image.where else f"{image.name}: "
            report.bad(error.reason, image.where, f"{name}{error}")
            continue
        notes: dict[str, Any] | None = {}
        if image.annotation is not None:
            notes = image.annotation.columns(height, width, image.where, report)
        if notes is None:
            continue
        content, decoded = image.image, False
        small = pixels.size <= max(SMALL, len(content))
        if not isinstance(content, bytes) or (small and Drawing.of(content) is None):
            content, decoded = pixels.tobytes(), True
        values = content, decoded, *pixels.shape[:2], image.targets, image.name
        yield _Row(dict(zip(COLUMNS, values, strict=True)) | notes, pixels)


class _Sums:
    """Sums over the pixels of images, as whole numbers."""

    def __init__(self) -> None:
        self.pixels, self.sums, self.squares = 0, np.zeros(3, np.int64), np.zeros(3, np.int64)

    def add(self, pixels: Pixels) -> None:
        """Add the pixels of an image."""
        wide = pixels.reshape(-1, pixels.shape[2]).astype(np.int64)
        self.pixels += len(wide)
        self.sums = self.sums[: wide.shape[1]] + wide.sum(axis=0)
        self.squares = self.squares[: wide.shape[1]] + np.square(wide).sum(axis=0)

    def to_dict(self) -> dict[str, Any]:
        """Return the sums as JSON."""
        return {"pixels": self.pixels, "sums": self.sums.tolist(), "squares": self.squares.tolist()}
