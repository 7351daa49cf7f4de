"""Sheets: many small images beside and below each other."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seq2attn.views.pictures import PlotError

_GAP, _PAPER = 2, 255  # pixels between images, and their grey
_LEAST = 56  # pixels of the shorter side of an image, at least: smaller ones are enlarged
MOST = 10_000  # images


def sheet(images: Sequence[NDArray[np.uint8]], columns: int = 8) -> NDArray[np.uint8]:
    """Return the pixels (H, W, 1 or 3) of a sheet with images (h, w, 1 or 3), row by row. Small ones are
    enlarged by a whole number, so that their pixels are squares. PlotError for no images, or more than MOST.
    """
    if not 0 < len(images) <= MOST:
        raise PlotError(f"a sheet shows 1 to {MOST:,} images, got {len(images):,}")
    height, width, channels = images[0].shape
    factor = -(-_LEAST // min(height, width))
    height, width, columns = height * factor, width * factor, min(columns, len(images))
    rows = -(-len(images) // columns)
    shape = rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, channels
    whole = np.full(shape, _PAPER, np.uint8)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        top, left = _GAP + row * (height + _GAP), _GAP + column * (width + _GAP)
        whole[top : top + height, left : left + width] = image.repeat(factor, 0).repeat(factor, 1)
    return whole


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return the content of a PNG file of pixels (H, W, C): grey, in colours, or with opacity, too."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()
