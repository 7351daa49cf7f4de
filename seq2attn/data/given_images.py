"""Images given in Python: they are written once to an archive and a table in the cache, which a recipe names.

Both are named by their content, as tables of texts are (`given_table`).
"""

import json
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from seq2attn.data.cache import cache_folder
from seq2attn.data.corpora import Role
from seq2attn.data.files import items_at
from seq2attn.data.given import FOLDER, Form, Keys, Strict, is_dataset, kept, open_rows, plain
from seq2attn.data.image_corpora import fields_of, file_content, label_name, texts_of
from seq2attn.data.report import DataError, Report
from seq2attn.images.decoding import DECODING_FAULTS, ImageError
from seq2attn.recipe.box_data import DetectionDataRecipe
from seq2attn.recipe.image_data import AnyImageDataRecipe, ImageDataRecipe, ImageTextDataRecipe
from seq2attn.recipe.mask_data import SegmentationDataRecipe
from seq2attn.runtime.files import append, read

AT_ONCE = 16  # rows of a dataset that are read at a time
# Modes that PNG has; images in others are saved in RGB.
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
Reader = Callable[
    [Any, str, list[str] | None, str, Report], Any
]  # value, key, names of labels, where, report


class _Kind(NamedTuple):
    """What the rows of a task have: images, then other columns."""

    form: Form
    images: int
    readers: tuple[Reader, ...]  # of the other columns, as they are in the table


def _labels(value: Any, key: str, names: list[str] | None, where: str, report: Report) -> Any:
    values = value if isinstance(value, list) else [value]
    return [label_name(label, key, names, where, report) for label in values]


def _text(value: Any, key: str, names: list[str] | None, where: str, report: Report) -> Any:
    return texts_of(value, key, where, report)


def _as_it_is(value: Any, key: str, names: list[str] | None, where: str, report: Report) -> Any:
    return value


_OBJECTS = (
    "image",
    "objects.bbox",
    "objects.category",
)  # of datasets, whose boxes are left, top, width, height
_KINDS: dict[type, _Kind] = {
    ImageDataRecipe: _Kind(
        Form(("image", "label"), (("image", "label"), ("img", "label"))), 1, (label_name,)
    ),
    ImageTextDataRecipe: _Kind(
        Form(("image", "text"), (("image", "text"), ("image", "caption"), ("image", "captions"))), 1, (_text,)
    ),
    SegmentationDataRecipe: _Kind(
        Form(("image", "mask"), (("image", "mask"), ("image", "annotation"))), 2, ()
    ),
    DetectionDataRecipe: _Kind(
        Form(("image", "boxes", "labels"), (("image", "boxes", "labels"), _OBJECTS)), 1, (_as_it_is, _labels)
    ),
}


def given_images(rows: Any, role: Role, data: AnyImageDataRecipe) -> dict[str, Any]:
    """Write rows to an archive and a table in the cache folder, and return the corpus with which a recipe
    names them.

    The rows are read once, in their order, and are never in memory together.

    rows: an iterable of tuples (image, label), (image, text or texts), (image, mask) or (image, boxes,
        labels), as the task has them, or of dicts; or a dataset of the library `datasets`. An image is one of
        Pillow, an array of pixels, the path of a file or its content; files are copied as they are, and the
        others are saved without loss.
    role: the key in `data` that the rows are for.
    data: the recipe's data section, which says what rows are.

    Raises DataError, with the index of the row, if one cannot be read, and if there is none.
    """
    name, report = f'data["{role}"]', Strict()
    kind = next(_KINDS[base] for base in type(data).__mro__ if base in _KINDS)
    opened = open_rows(_undecoded(rows), name, kind.form, AT_ONCE)
    with tempfile.TemporaryDirectory(dir=cache_folder(FOLDER)) as folder:
        table, archive = Path(folder) / "rows.jsonl", Path(folder) / "images.tar"
        with tarfile.open(archive, "w") as tar:
            for index, row in enumerate(opened.rows):
                where = f"{name}:{index}"
                values = _values(row, opened.keys, kind.form, where, report)
                cells: list[Any] = [
                    _added(tar, value, f"{index}.{number}" if number else str(index), f"{where}: {key}")
                    for number, (value, key) in enumerate(
                        zip(values[: kind.images], opened.keys, strict=False)
                    )
                ]
                others = zip(kind.readers, values[kind.images :], opened.keys[kind.images :], strict=True)
                cells += [
                    reader(plain(value), key, opened.labels, where, report) for reader, value, key in others
                ]
                line = dict(zip(kind.form.columns, cells, strict=True))
                append(table, f"{json.dumps(line, ensure_ascii=False)}\n".encode())
        corpus = {
            "archive": str(kept(archive)),
            "table": str(kept(table)),
            "columns": list(kind.form.columns),
        }
    return corpus | ({"format": "xywh"} if opened.keys == _OBJECTS else {})


def _undecoded(rows: Any) -> Any:
    """Return a dataset whose images come as they are stored; anything else as it is."""
    if not is_dataset(rows):
        return rows
    import datasets

    for column, feature in (rows.features or {}).items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows


def _values(row: Any, keys: Keys, form: Form, where: str, report: Report) -> list[Any]:
    """Return the values of a row in the order of the columns."""
    if isinstance(row, Mapping):
        try:
            return [items_at(dict(row), key) for key in keys]
        except LookupError:
            fields_of(dict(row), keys, where, report)  # says which is missing
    if isinstance(row, list | tuple) and len(row) == len(form.columns):
        return list(row)
    got = f"{len(row)} values" if isinstance(row, list | tuple) else f"{row!r:.60}"
    raise DataError(f"{where}: expected a tuple ({', '.join(form.columns)}), or a dict, got {got}")


def _added(tar: tarfile.TarFile, image: Any, name: str, where: str) -> str:
    """Add an image to an archive, and return its name there. DataError if it is none."""
    try:
        content = _content(image)
    except ImageError as error:
        raise DataError(f"{where}: {error}") from error
    except DECODING_FAULTS as error:
        raise DataError(f"{where}: the image cannot be read: {error}") from error
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, BytesIO(content))
    return name


def _content(image: Any) -> bytes:
    """Return the content of an image's file; of what is in memory, that of a PNG."""
    if isinstance(image, str | Path):
        return read(Path(image))
    if isinstance(image, bytes | Mapping):
        return file_content(image)
    if isinstance(image, np.ndarray):
        image = Image.fromarray(_pixels(image))
    if not isinstance(image, Image.Image):
        raise ImageError(
            "not an image",
            "expected an image of Pillow, an array of pixels, or the path or content of a file; got "
            f"{type(image).__name__}",
        )
    upright = ImageOps.exif_transpose(image)
    upright = upright if upright.mode in MODES else upright.convert("RGB")
    upright.save(file := BytesIO(), "PNG", compress_level=1)
    return file.getvalue()


def _pixels(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array (H, W) or (H, W, C) of 8 bits, or (H, W) of 16 if it has larger numbers. ImageError for
    others."""
    flat = array[:, :, 0] if array.shape[2:] == (1,) else array
    most = 65535 if flat.ndim == 2 else 255
    whole = flat.dtype.kind in "biu" and flat.size
    if not whole or flat.ndim not in (2, 3) or flat.min() < 0 or flat.max() > most:
        raise ImageError(
            "not an image",
            "expected whole numbers from 0 to 255 as pixels, (H, W) or (H, W, channels), or up to 65535 as a "
            f"mask; got {array.dtype} {array.shape}",
        )
    return flat.astype(np.uint8 if flat.dtype == np.uint8 or flat.max() < 256 else np.uint16)
