"""Masks: the class of each pixel of an image, read from pictures, and moved as their images are."""

from collections.abc import Collection, Mapping
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from seq2attn.images.decoding import DECODING_FAULTS, ImageError, opened

Labels = NDArray[np.uint8]  # (H, W): the class of each pixel, IGNORED where it does not count
IGNORED = 255
MAX_CLASSES = 255
_SHOWN = 5  # values in messages


class MaskReader:
    """Reads masks as arrays of class numbers.

    A picture in grey, in one bit or with a palette has numbers: of a palette, the indices of its colours.

    Args:
        classes: how many there are; their numbers are 0 to classes - 1.
        ignore: numbers of pixels that do not count.
        colors: pictures are in colours, (red, green, blue) -> the number of a class, None for pixels that do
            not count; None: they have numbers.
        instances: numbers are those of objects: 0 stays, and all others become 1.
    """

    def __init__(
        self,
        classes: int,
        ignore: Collection[int] = (),
        colors: Mapping[tuple[int, int, int], int | None] | None = None,
        instances: bool = False,
    ) -> None:
        self.classes, self.ignore, self.instances = classes, ignore, instances
        #: JSON; differs if masks are read in another way.
        self.described: Any = [
            classes,
            sorted(ignore),
            None if colors is None else list(colors.items()),
            instances,
        ]
        self.colors = None if colors is None else _ColorTable(colors)
        self._numbers = np.full(2**16, -1, np.int16)  # what each number in a mask stands for
        self._numbers[: classes if not instances else 2**16] = 1 if instances else np.arange(classes)
        self._numbers[0] = 0
        self._numbers[[*ignore]] = IGNORED

    def read(self, image: bytes | NDArray[Any] | Image.Image) -> Labels:
        """Return the class of each pixel of a mask: of the content of a file, or of an image of Pillow.

        ImageError if it is no image, damaged, or has values that no class has.
        """
        try:
            picture = ImageOps.exif_transpose(opened(image))
            return self._of_colors(picture) if self.colors is not None else self._of_numbers(picture)
        except ImageError:
            raise
        except UnidentifiedImageError as error:
            raise ImageError("not an image", "expected a mask as an image") from error
        except Image.DecompressionBombError as error:
            raise ImageError("too large image", str(error)) from error
        except DECODING_FAULTS as error:
            raise ImageError("damaged image", f"the mask is damaged: {error}") from error

    def _of_numbers(self, picture: Image.Image) -> Labels:
        if picture.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
            raise ImageError(
                "mask in colours",
                f"expected a mask with a number for each pixel (grey or with a palette), got one in "
                f"{picture.mode}: say in data.colors which colour each class has",
            )
        numbers = np.asarray(picture).astype(np.int64)
        if numbers.min() < 0 or numbers.max() >= 2**16:
            raise ImageError(
                "unknown class", f"expected numbers from 0 to 65535, got {numbers.min()} to {numbers.max()}"
            )
        labels = self._numbers[numbers]
        if labels.min() < 0:
            unknown = np.unique(numbers[labels < 0]).tolist()
            raise ImageError("unknown class", self._expected(unknown))
        return labels.astype(np.uint8)

    def _expected(self, unknown: list[int]) -> str:
        """Return the message for numbers that are no class."""
        also = f", or {', '.join(map(str, self.ignore))}, which data.ignore has" if self.ignore else ""
        hint = "; or if they are numbers of objects, set data.instances" if self.classes == 2 else ""
        return (
            f"the mask has {_listed(unknown)}: expected class numbers from 0 to {self.classes - 1}{also}: "
            f"give the class a name in data.classes, or add the number to data.ignore{hint}"
        )

    def _of_colors(self, picture: Image.Image) -> Labels:
        if self.colors is None:
            raise ImageError("mask in colours", "there are no colours")
        return self.colors.labels(np.asarray(picture.convert("RGB")))


class _ColorTable:
    """Looks the class of a colour up."""

    def __init__(self, colors: Mapping[tuple[int, int, int], int | None]) -> None:
        codes = np.array([_codes(np.array(color, np.uint8)) for color in colors], np.int64)
        numbers = np.array([IGNORED if number is None else number for number in colors.values()], np.uint8)
        order = np.argsort(codes)
        self.codes, self.numbers = codes[order], numbers[order]

    def labels(self, pixels: NDArray[np.uint8]) -> Labels:
        """Return the class of each pixel of (H, W, 3). ImageError for a colour that no class has."""
        codes = _codes(pixels)
        places = np.searchsorted(self.codes, codes).clip(max=len(self.codes) - 1)
        known = self.codes[places] == codes
        if not known.all():
            unknown = np.unique(pixels[~known], axis=0)[: _SHOWN + 1].tolist()
            raise ImageError(
                "unknown colour",
                f"the mask has the colours {_listed(unknown)}, which data.colors does not have: give each a "
                "class, or ignore",
            )
        labels: Labels = self.numbers[places]
        return labels


def _codes(colors: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return a number for each colour (..., 3)."""
    wide = colors.astype(np.int64)
    codes: NDArray[np.int64] = (wide[..., 0] << 16) + (wide[..., 1] << 8) + wide[..., 2]
    return codes


def _listed(values: list[Any]) -> str:
    more = " and others" if len(values) > _SHOWN else ""
    return ", ".join(map(str, values[:_SHOWN])) + more


def packed(labels: Labels) -> bytes:
    """Return a mask as the content of a PNG file."""
    buffer = BytesIO()
    Image.fromarray(labels).save(buffer, "PNG")
    return buffer.getvalue()


def unpacked(content: bytes) -> Labels:
    """Return the mask of a PNG file that `packed` has made."""
    with Image.open(BytesIO(content), formats=("PNG",)) as picture:
        return np.asarray(picture)


def packed_size(content: bytes) -> tuple[int, int]:
    """Return height and width of such a mask, without unpacking it."""
    with Image.open(BytesIO(content), formats=("PNG",)) as picture:
        return picture.height, picture.width


def moved(labels: Labels, matrix: NDArray[np.float64], size: tuple[int, int]) -> Labels:
    """Return a mask of another size (height, width) whose pixels are those at the positions that a matrix
    says: the pixel that a position lies in; from outside, IGNORED.

    matrix: (2, 3), takes a position (x, y, 1) of the result to the position of the mask that it shows.
    """
    height, width = size
    if (height, width) == labels.shape and np.array_equal(matrix, np.eye(2, 3)):
        return labels
    columns, rows = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    x, y = (np.floor(line[0] * columns + line[1] * rows + line[2] + 1e-9).astype(np.int64) for line in matrix)
    inside = (x >= 0) & (x < labels.shape[1]) & (y >= 0) & (y < labels.shape[0])
    result: Labels = labels[y.clip(0, labels.shape[0] - 1), x.clip(0, labels.shape[1] - 1)]
    result[~inside] = IGNORED
    return result
