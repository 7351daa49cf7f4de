"""Open the corpora of images with masks of a recipe, whatever they are stored in."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from seq2attn.data.corpora import Role
from seq2attn.data.files import existing, file_state, halved, json_rows
from seq2attn.data.hub import dataset_state, load, rows
from seq2attn.data.image_corpora import (
    ROWS,
    ImageRow,
    ImageSource,
    fields_of,
    file_content,
    loaded,
    resolved,
    shown_json,
    states_of,
    undecoded,
)
from seq2attn.data.image_files import SUFFIXES, ImageFiles, ImagePath, names_below
from seq2attn.data.report import DataError, Report
from seq2attn.images.decoding import ImageError
from seq2attn.images.masks import IGNORED, MaskReader, packed
from seq2attn.recipe.mask_data import AnyMasks, MaskDataset, MaskFolders, MaskTable

COLUMNS = {"mask": "binary"}  # one for each image: a PNG of class numbers, in the size of the upright image


class GivenMask(NamedTuple):
    """The mask of an image, as the data have it."""

    content: bytes  # of its file
    name: str  # its file, or its row
    reader: MaskReader

    def columns(self, height: int, width: int, where: str, report: Report) -> dict[str, list[Any]] | None:
        """See `Annotation`. A mask of another size, with values that no class has, or in which no pixel
        counts, is a bad line."""
        try:
            labels = self.reader.read(self.content)
        except ImageError as error:
            report.bad(error.reason, where, f"{self.name}: {error}")
            return None
        if labels.shape != (height, width):
            found = f"{labels.shape[1]} x {labels.shape[0]}"
            turned = ": the image is turned by its EXIF data" if labels.shape == (width, height) else ""
            message = f"{self.name}: the mask is {found}, and its image {width} x {height}{turned}"
            report.bad("mask of another size", where, message)
            return None
        if (labels == IGNORED).all():
            report.bad("nothing counts", where, f"{self.name}: no pixel of the mask has a class")
            return None
        return {"mask": [packed(labels)]}


def open_masks(reader: MaskReader, corpus: AnyMasks, role: Role, key: str) -> ImageSource:
    """Open a corpus. reader: reads its masks; key: of the corpus in the recipe, for errors.

    Raises:
        DataError: it does not exist, or does not fit what the recipe says.
    """
    source = OPENERS[type(corpus)](reader, corpus, key)
    return source._replace(state=[source.state, reader.described])


def _open_table(reader: MaskReader, corpus: MaskTable, key: str) -> ImageSource:
    path = existing(corpus.table, f"{key}.table")
    archive = None if corpus.archive is None else existing(corpus.archive, f"{key}.archive")

    def located(report: Report) -> Iterator[tuple[ImagePath, ImagePath, str]]:
        for number, row in json_rows(path, report):
            where = f"{path}:{number}"
            fields = fields_of(row, corpus.columns, where, report)
            if fields is None:
                continue
            for column, value in zip(corpus.columns, fields, strict=True):
                if not isinstance(value, str) or not value:
                    shown = f"{column} is {shown_json(value)}"
                    report.bad("not a path", where, f"{shown} where the path of a file was expected")
                    break
            else:
                if not halved(fields, " and ".join(corpus.columns), where, report):
                    image, mask = (
                        resolved(form.replace("{}", name), path.parent, archive)
                        for form, name in zip((corpus.path, corpus.mask_path), fields, strict=True)
                    )
                    yield image, mask, where

    def read(report: Report) -> Iterator[ImageRow]:
        with ImageFiles() as files:
            for image, mask, where in located(report):
                yield from _pair(files, image, mask, where, reader, report)

    named = (one for image, mask, _ in located(Report(stop=False)) for one in (image, mask))
    return ImageSource(str(path), states_of(path, named), read)


def _open_folders(reader: MaskReader, corpus: MaskFolders, key: str) -> ImageSource:
    archive = None if corpus.archive is None else existing(corpus.archive, f"{key}.archive")
    images, masks = (
        {
            name.rpartition(".")[0]: name
            for name in names_below(folder, archive, f"{key}.{side}")
            if name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".")
        }
        for side, folder in (("images", corpus.images), ("masks", corpus.masks))
    )
    if not images:
        raise DataError(f"{key}.images: expected images in {corpus.images}, and there are none")

    def read(report: Report) -> Iterator[ImageRow]:
        with ImageFiles() as files:
            for stem, name in sorted(images.items()):
                image = ImagePath(archive, f"{corpus.images}/{name}")
                if stem in masks:
                    mask = ImagePath(archive, f"{corpus.masks}/{masks[stem]}")
                    yield from _pair(files, image, mask, str(image), reader, report)
                else:
                    report.bad("no mask", str(image), f"no mask {stem}.* in {corpus.masks}")
        for stem in sorted(masks.keys() - images.keys()):
            report.note("a mask without an image", f"{corpus.masks}/{masks[stem]}")

    if archive is not None:
        return ImageSource(f"{archive}::{corpus.images}", [file_state(archive)], read)
    states = [
        file_state(Path(folder) / name)
        for folder, names in ((corpus.images, images), (corpus.masks, masks))
        for _, name in sorted(names.items())
    ]
    return ImageSource(corpus.images, states, read)


def _open_dataset(reader: MaskReader, corpus: MaskDataset, key: str) -> ImageSource:
    dataset, commit = load(corpus, key)
    for column in corpus.columns:
        dataset = undecoded(dataset, corpus.model_copy(update={"columns": (column, column)}), key)
    name = f"{corpus.dataset}[{corpus.split}]"

    def read(report: Report) -> Iterator[ImageRow]:
        for number, row in enumerate(rows(dataset, corpus, key, ROWS)):
            where = f"{name}:{number}"
            fields = fields_of(row, corpus.columns, where, report)
            if fields is None:
                continue
            try:
                image, mask = map(file_content, fields)
            except ImageError as error:
                report.bad(error.reason, where, f"{' or '.join(corpus.columns)}: {error}")
                continue
            yield ImageRow(image, [], where, where, GivenMask(mask, corpus.columns[1], reader))

    return ImageSource(name, dataset_state(dataset, corpus, key, commit), read)


OPENERS: dict[type, Callable[[MaskReader, Any, str], ImageSource]] = {
    MaskTable: _open_table,
    MaskDataset: _open_dataset,
    MaskFolders: _open_folders,
}


def _pair(
    files: ImageFiles, image: ImagePath, mask: ImagePath, where: str, reader: MaskReader, report: Report
) -> Iterator[ImageRow]:
    """Yield an image with its mask; nothing, and a bad line, if one of them cannot be read."""
    try:
        given = GivenMask(files.read(mask), str(mask), reader)
    except ImageError as error:
        report.bad("missing mask", where, f"{mask}: {error}")
        return
    yield from loaded(files, image, [], where, report, given)
