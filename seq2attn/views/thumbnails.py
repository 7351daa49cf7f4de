"""Small pictures of images, for notebooks."""

import base64
import io
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE = 96  # pixels of the longer side


def thumbnail(pixels: NDArray[np.uint8], text: str) -> str:
    """Return HTML of an image (H, W, 1 or 3), with its content as PNG. text: for those who do not see it.

    Large images are made smaller; the pixels of small ones are shown as squares.
    """
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((2 * _SIDE, 2 * _SIDE))  # twice as many pixels, for fine screens
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    content = base64.b64encode(buffer.getvalue()).decode()
    share = _SIDE / max(image.size)
    width, height = (max(1, round(side * share)) for side in image.size)
    sharp = ";image-rendering:pixelated" if share > 1 else ""
    return (
        f"<img alt='{escape(text)}' width='{width}' height='{height}' "
        f"style='vertical-align:middle{sharp}' src='data:image/png;base64,{content}'>"
    )
