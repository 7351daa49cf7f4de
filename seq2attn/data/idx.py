"""Read the files of MNIST: images and labels in the format idx."""

import gzip
import lzma
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seq2attn.data.report import DataError
from seq2attn.images.decoding import Pixels
from seq2attn.runtime.files import COMPRESSED, require_regular

_BYTES = 0x08  # the code of unsigned bytes, the type of all files that are read


def idx_rows(images: Path, labels: Path) -> Iterator[tuple[Pixels, int]]:
    """Yield the images (H, W) or (H, W, C) of a file, and their labels from another.

    DataError if a file cannot be read, has not the format, ends early or late, or if there are not as many
    labels as images.
    """
    with ExitStack() as stack:
        streams = [stack.enter_context(_opened(path)) for path in (images, labels)]
        count, *shape = _sizes(images, streams[0], (3, 4))
        (label_count,) = _sizes(labels, streams[1], (1,))
        if count != label_count:
            raise DataError(f"{labels}: {label_count:,} labels where {count:,} were expected, as in {images}")
        if math.prod(shape) > (limit := Image.MAX_IMAGE_PIXELS or math.inf):
            raise DataError(f"{images}: expected images of at most {limit:,} pixels, got {shape}")
        for _ in range(count):
            content = _read(images, streams[0], math.prod(shape))
            (label,) = _read(labels, streams[1], 1)
            yield np.frombuffer(content, np.uint8).reshape(shape), label
        for path, stream in zip((images, labels), streams, strict=True):
            if _content(path, stream, 1):
                raise DataError(f"{path}: longer than its first bytes say ({count:,} items): is it damaged?")


def _opened(path: Path) -> Any:
    try:
        require_regular(path)
        return COMPRESSED.get(path.suffix, open)(path, "rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _sizes(path: Path, stream: Any, axes: tuple[int, ...]) -> list[int]:
    """Return the sizes that a file begins with: the number of its items, and the sizes of one."""
    zeros, kind, count = struct.unpack(">HBB", _read(path, stream, 4))
    if zeros or kind != _BYTES or count not in axes:
        raise DataError(
            f"{path}: expected an idx file of unsigned bytes with {' or '.join(map(str, axes))} axes, as of "
            f"MNIST; it begins with {struct.pack('>HBB', zeros, kind, count).hex()}"
        )
    return list(struct.unpack(f">{count}I", _read(path, stream, 4 * count)))


def _read(path: Path, stream: Any, size: int) -> bytes:
    """Return the next bytes of a file. DataError if it ends before."""
    content = _content(path, stream, size)
    if len(content) < size:
        raise DataError(f"{path}: ends early: it is damaged, or no idx file")
    return content


def _content(path: Path, stream: Any, size: int) -> bytes:
    try:
        content: bytes = stream.read(size)
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged, or not compressed as its name says: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    return content
