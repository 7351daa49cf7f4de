"""Images as predictors take them: the path of a file, an image of Pillow, or pixels."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seq2attn.attention.memory import Grid
from seq2attn.errors import Seq2attnError
from seq2attn.images.decoding import ImageError, ImageReader, Pixels
from seq2attn.images.geometry import Matrix, inverse, moved
from seq2attn.runtime.files import read

if TYPE_CHECKING:
    from PIL.Image import Image

    OneImage = str | Path | NDArray[Any] | Image


class ReadImage(NamedTuple):
    """An image as the network reads it, and where its pixels come from."""

    pixels: Pixels  # (h, w, C)
    to_original: Matrix  # (2, 3): takes a position of it to that of the original image
    size: Grid  # height and width of the original

    @classmethod
    def of(cls, original: Pixels, reader: ImageReader) -> "ReadImage":
        """Return an image of any size as a reader has it for the network."""
        size = original.shape[0], original.shape[1]
        return cls(reader.read(original), reader.geometry(*size)[0], size)

    @property
    def sides(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The first and last column of the original that the network reads, and the first and last row."""
        height, width = self.pixels.shape[:2]
        left, top, right, bottom = moved(np.array([[0.0, 0.0, width, height]]), self.to_original)[0]
        return _whole(left, right), _whole(top, bottom)

    def pixel(self, x: int, y: int) -> tuple[int, int]:
        """Return the pixel of it that has the middle of a pixel of the original, counted from 0.
        Seq2attnError if that is outside of the original, or of what the network reads of it."""
        height, width = self.size
        if not (0 <= x < width and 0 <= y < height):
            raise Seq2attnError(
                f"expected a query x,y with x from 0 to {width - 1} and y from 0 to {height - 1}, a pixel of "
                f"the image; got {x},{y}"
            )
        back = inverse(self.to_original)
        column, row = (int(np.floor(place)) for place in back[:, :2] @ (x + 0.5, y + 0.5) + back[:, 2])
        if not (0 <= column < self.pixels.shape[1] and 0 <= row < self.pixels.shape[0]):
            (left, right), (top, bottom) = self.sides
            raise Seq2attnError(
                f"the pixel {x},{y} is not in the part of the image that is read, which data.resize crops: x "
                f"from {left} to {right} and y from {top} to {bottom}"
            )
        return column, row


def _whole(start: float, end: float) -> tuple[int, int]:
    """Return the first and the last pixel of which a part lies between two positions."""
    return int(np.floor(start + 1e-6)), int(np.ceil(end - 1e-6)) - 1


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
