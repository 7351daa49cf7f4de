"""Images as predictors take them: the path of a file, an image of Pillow, or pixels."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seq2attn.errors import Seq2attnError
from seq2attn.images.decoding import ImageError, ImageReader, Pixels
from seq2attn.runtime.files import read

if TYPE_CHECKING:
    from PIL.Image import Image

    OneImage = str | Path | NDArray[Any] | Image

CHUNK = 512  # images that are read at a time, so that batches can have similar sizes


def several(image: object) -> bool:
    """Whether an argument is a list of images, and not one."""
    return isinstance(image, Sequence) and not isinstance(image, str | bytes)


def image_chunks(
    images: Iterable[Any], reader: ImageReader, size: int = CHUNK
) -> Iterator[list[tuple[str, Pixels]]]:
    """Yield names and pixels of images (`read_image`) in lists of a size.

    An error says which of several images it was. Those before it are yielded first.
    """
    chunk = list[tuple[str, Pixels]]()
    images, end = iter(images), object()
    for number, image in enumerate(images):
        try:
            chunk.append(read_image(image, reader))
        except Seq2attnError:
            if chunk:
                yield chunk
            if number or next(images, end) is not end:
                read_image(image, reader, f"images[{number}]")  # raises again, with the index
            raise
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def read_image(image: Any, reader: ImageReader, which: str = "the image") -> tuple[str, Pixels]:
    """Return the name of an image's file, "" if it came from memory, and its pixels.

    which: the name of an image from memory in errors.

    Raises:
        ImageError: it cannot be read, or is damaged; the message names the file.
        Seq2attnError: it is neither a path, nor an image of Pillow, nor an array.
    """
    name = str(image) if isinstance(image, str | Path) else ""
    try:
        if name:
            return name, reader.read(read(Path(name)))
        if isinstance(image, np.ndarray) or type(image).__module__.startswith("PIL."):
            return name, reader.read(image)
    except ImageError as error:
        raise ImageError(error.reason, f"{name or which}: {error}") from error
    except OSError as error:
        raise ImageError("missing image", f"{name}: cannot be read ({error.strerror or error})") from error
    raise Seq2attnError(
        f"{which}: expected the path of an image, an image of Pillow, or 8-bit pixels as a numpy array; got "
        f"{type(image).__name__}"
    )
