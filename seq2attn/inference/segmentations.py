"""Segmentations: the class of each pixel of an image, as a predictor returns them."""

from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from seq2attn.errors import Seq2attnError
from seq2attn.images.decoding import Pixels
from seq2attn.images.masks import Labels
from seq2attn.views.html_table import block, pale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from seq2attn.views.masks import Color

_SHOWN = 5  # classes, in text


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """An image and the class of each of its pixels, in the size that the image has in its file, upright.
    `str` gives the classes and their shares.

    probabilities: of all classes, for each pixel; None if they were not asked for.
    """

    name: str  # of the image's file; "" if it came from memory
    pixels: Pixels  # (H, W, C)
    mask: Labels  # (H, W): the number of the class of each pixel
    classes: list[str]  # their names, by number
    colors: "list[Color]"  # (red, green, blue) of each class, in pictures
    probabilities: Float[Tensor, "K H W"] | None = field(default=None)

    @property
    def shares(self) -> dict[str, float]:
        """The share of the pixels of each class that there is, the largest first."""
        shares = np.bincount(self.mask.ravel(), minlength=len(self.classes)) / self.mask.size
        order = np.argsort(-shares, kind="stable").tolist()
        return {self.classes[number]: float(shares[number]) for number in order if shares[number]}

    def mask_of(self, name: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which pixels (H, W) have a class. Seq2attnError if there is no such class."""
        if name not in self.classes:
            raise Seq2attnError(f"unknown class {name!r}: this model has {', '.join(self.classes)}")
        answer: np.ndarray[Any, np.dtype[np.bool_]] = self.mask == self.classes.index(name)
        return answer

    def __str__(self) -> str:
        listed = [f"{name} {100 * share:.1f} %" for name, share in self.shares.items()]
        more = [f"and {len(listed) - _SHOWN} more"] if len(listed) > _SHOWN else []
        return ", ".join([*listed[:_SHOWN], *more])

    def __repr__(self) -> str:
        height, width = self.mask.shape
        return f"Segmentation({width} x {height}: {self})"

    def save_mask(self, path: str | Path) -> None:
        """Write the mask as a PNG file whose pixels are class numbers, with a palette of the colours.
        PlotError if the path does not end in .png."""
        from seq2attn.views.masks import mask_png
        from seq2attn.views.pictures import write_png

        write_png(path, lambda: mask_png(self.mask, self.colors))

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Return a picture of the image, the colours of the classes over it, and a legend; save it if a path
        is given, which ends in .png, .svg or .pdf."""
        from seq2attn.views.masks import legend_picture
        from seq2attn.views.pictures import save

        figure = legend_picture(self.pixels, self.mask, self.classes, self.colors)
        if path is not None:
            save(figure, path)
        return figure

    def to_json(self) -> dict[str, Any]:
        """Return a value for json.dumps: the shares of the classes. `save_mask` writes the mask itself."""
        height, width = self.mask.shape
        shares = {name: round(share, 4) for name, share in self.shares.items()}
        return {"image": self.name, "width": width, "height": height, "shares": shares}

    def _repr_html_(self) -> str:
        """The image under the colours of its classes, small, its name, and the classes, for notebooks."""
        from seq2attn.views.masks import blended
        from seq2attn.views.thumbnails import thumbnail

        picture = thumbnail(blended(self.pixels, self.mask, self.colors), str(self))
        return block(f"{picture} {escape(self.name)} {pale(escape(str(self)))}")
