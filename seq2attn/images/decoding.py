"""Decode images into 8-bit pixels: upright, in grey or RGB, and in the size that a recipe asks for."""

import struct
import zlib
from io import BytesIO
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from seq2attn.errors import Seq2attnError
from seq2attn.images.geometry import Matrix
from seq2attn.images.geometry import Pixels as Pixels
from seq2attn.images.strokes import Drawing

Channels = Literal["rgb", "grey"]
Resize = Literal["crop", "stretch", "fit", "shrink"]

# Pillow reads other formats, too; some of them by starting other programs, as Ghostscript for EPS.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MODES = {"rgb": "RGB", "grey": "L"}
# What Pillow raises for damaged files, by its many decoders.
DECODING_FAULTS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(EOFError, MemoryError, NotImplementedError, RuntimeError, struct.error, zlib.error),
)
_SMALLER = "Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS"


class ImageError(Seq2attnError):
    """An image that cannot be read. `reason` is short, for the report of data."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SizedPixels(NamedTuple):
    """The pixels of an image, and the height and width that it had, upright, before it was resized."""

    pixels: Pixels
    height: int
    width: int


class ImageReader:
    """Reads images as arrays of pixels.

    Orientation in EXIF is applied, transparent images are laid on white, 16 bits become 8 by their range
    (65535 becomes 255), palettes are resolved, and of several frames the first is read.

    Args:
        channels: `rgb`, or `grey` (0.299 R + 0.587 G + 0.114 B, as in ITU-R BT.601).
        size: height and width; None: each image keeps its own.
        resize: how images of other sizes come to it. `crop`: scaled until they fill it, and the middle is
            cut out; `stretch`: both sides scaled; `fit`: scaled until they fit within it, so that one side
            may be shorter; `shrink`: likewise, but small images stay as they are.
        most: pixels of the largest image that is read in its own size; None: any.
    """

    def __init__(
        self,
        channels: Channels = "rgb",
        size: tuple[int, int] | None = None,
        resize: Resize = "crop",
        most: int | None = None,
    ) -> None:
        self.channels, self.size, self.resize = channels, size, resize
        self.most = most if size is None else None

    def read(self, image: bytes | NDArray[Any] | Image.Image) -> Pixels:
        """Return the pixels of an image: of the content of a file, of 8-bit pixels (H, W) or (H, W, 1, 3 or
        4), or of an image of Pillow.

        ImageError if it is none, damaged, empty, or larger than `most` or PIL.Image.MAX_IMAGE_PIXELS.
        """
        return self.read_sized(image).pixels

    def read_sized(self, image: bytes | NDArray[Any] | Image.Image) -> SizedPixels:
        """Return the pixels of an image, as `read` does, with the size that it has before it is resized."""
        try:
            upright = ImageOps.exif_transpose(opened(image, self.most))
            pixels = self._pixels(_opaque(upright, MODES[self.channels]))
            return SizedPixels(pixels, upright.height, upright.width)
        except ImageError:
            raise
        except UnidentifiedImageError as error:
            raise ImageError("not an image", f"expected an image ({', '.join(FORMATS)})") from error
        except Image.DecompressionBombError as error:
            raise ImageError("too large image", f"{error} {_SMALLER}") from error
        except DECODING_FAULTS as error:
            raise ImageError("damaged image", f"the image is damaged: {error}") from error

    def geometry(self, height: int, width: int) -> tuple[Matrix, tuple[int, int]]:
        """Return what resizing does to an image of this size, which is upright.

        Returns:
            the matrix (2, 3) that takes a position of the resized image to that of the image; and the height
            and width of the resized image.
        """
        if self.size is None:
            return np.eye(2, 3), (height, width)
        rows, columns = _result_size(height, width, self.size, self.resize)
        left, top, right, bottom = _window(height, width, self.size, self.resize)
        across, down = (right - left) / columns, (bottom - top) / rows
        return np.array([[across, 0.0, left], [0.0, down, top]]), (rows, columns)

    def _pixels(self, image: Image.Image) -> Pixels:
        """Return the pixels of an image in its final mode, resized."""
        pixels = np.asarray(image if self.size is None else _resized(image, self.size, self.resize))
        return pixels[:, :, None] if pixels.ndim == 2 else pixels


def opened(image: bytes | NDArray[Any] | Image.Image, most: int | None = None) -> Image.Image:
    """Return an image of Pillow, decoded. ImageError if it is empty, too large, or no 8-bit pixels; other
    errors are those of Pillow, DECODING_FAULTS among them.

    most: pixels that it may have, if that is less than Pillow's limit."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] > (4,):
            first = ": channels come last" if image.ndim == 3 and image.shape[0] in (1, 3, 4) else ""
            raise ImageError(
                "not an image",
                f"expected 8-bit pixels (H, W) or (H, W, 1, 3 or 4), got {image.dtype} {image.shape}{first}",
            )
        _require_size(image.shape[1], image.shape[0], most)
        return Image.fromarray(image[:, :, 0] if image.shape[2:] == (1,) else image)
    if isinstance(image, bytes) and (drawing := Drawing.of(image)) is not None:
        return drawing.draw()
    picture = Image.open(BytesIO(image), formats=FORMATS) if isinstance(image, bytes) else image
    _require_size(picture.width, picture.height, most)  # before anything is decoded
    picture.load()
    return picture


def _require_size(width: int, height: int, most: int | None) -> None:
    """ImageError if an image has no pixel, or more than Pillow's limit or `most`."""
    limit = Image.MAX_IMAGE_PIXELS
    if min(width, height) < 1:
        raise ImageError("empty image", f"the image has no pixels: it is {width} x {height}")
    if limit is not None and width * height > limit:
        raise ImageError(
            "too large image",
            f"the image is {width:,} x {height:,}, more than {limit:,} pixels. {_SMALLER}",
        )
    if most is not None and width * height > most:
        raise ImageError(
            "too large image",
            f"the image is {width:,} x {height:,}, and the network would read it in this size, without "
            f"data.size: expected at most {most:,} pixels (data.max_pixels), after what it has learned from. "
            "Make it smaller, or train with data.size or another data.max_pixels",
        )


def _opaque(image: Image.Image, mode: str) -> Image.Image:
    """Return an image in the mode RGB or L, without transparency."""
    if image.mode == "F":
        raise ImageError("not 8 or 16 bits", "the image has floating-point pixels: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise ImageError("not 8 or 16 bits", "the image has 32-bit pixels: save it with 8 or 16 bits")
        image = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _resized(image: Image.Image, size: tuple[int, int], how: Resize) -> Image.Image:
    """Return an image in another size (height, width); pixels are averaged where it shrinks."""
    height, width = _result_size(image.height, image.width, size, how)
    if image.size == (width, height):
        return image
    box = _window(image.height, image.width, size, how) if how == "crop" else None
    return image.resize((width, height), Image.Resampling.BILINEAR, box)


def _result_size(height: int, width: int, size: tuple[int, int], how: Resize) -> tuple[int, int]:
    """Return the height and width that an image of this height and width is resized to."""
    if how not in ("fit", "shrink"):
        return size
    ratios = size[0] / height, size[1] / width
    scale = min(*ratios, 1.0) if how == "shrink" else min(ratios)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _window(height: int, width: int, size: tuple[int, int], how: Resize) -> tuple[float, float, float, float]:
    """Return the part of an image that is kept: left, top, right, bottom."""
    if how != "crop":
        return 0.0, 0.0, float(width), float(height)
    ratio = max(size[0] / height, size[1] / width)
    inner_height, inner_width = min(height, size[0] / ratio), min(width, size[1] / ratio)
    left, top = (width - inner_width) / 2, (height - inner_height) / 2
    return left, top, left + inner_width, top + inner_height
