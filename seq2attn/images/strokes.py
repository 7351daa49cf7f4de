"""Images in strokes of a pen, as tablets record them: kept as they are, and drawn when they are read."""

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from typing_extensions import Self

from seq2attn.images.geometry import Matrix

FINE = 4  # pixels of the canvas for one of the image, along each side: their mean is a smooth edge
_SIGNATURE = b"\x89strokes\n"
_HEADER = struct.Struct("<ff?I")  # width, margin, dark, number of strokes


class Drawing(NamedTuple):
    """The strokes of a picture, in pixels; x goes to the right and y down, from any point."""

    points: NDArray[np.float32]  # (N, 2): x, y; the points of each stroke follow those of the one before
    lengths: NDArray[np.int32]  # (S,): the number of points of each stroke, at least 1
    width: float = 2.0  # of the pen
    margin: float = 6.0  # from the outermost points to the sides of the image
    dark: bool = True  # black on white; otherwise white on black

    @property
    def content(self) -> bytes:
        """The drawing as the content of a file."""
        header = _HEADER.pack(self.width, self.margin, self.dark, len(self.lengths))
        return b"".join([_SIGNATURE, header, self.lengths.tobytes(), self.points.tobytes()])

    @classmethod
    def of(cls, content: bytes) -> Self | None:
        """Return the drawing that a file has, None if it has another kind of content. ValueError, or
        struct.error, if it is damaged."""
        if not content.startswith(_SIGNATURE):
            return None
        start = len(_SIGNATURE)
        width, margin, dark, count = _HEADER.unpack_from(content, start)
        start += _HEADER.size
        lengths = np.frombuffer(content, np.int32, count, start)
        points = np.frombuffer(content, np.float32, offset=start + lengths.nbytes).reshape(-1, 2)
        if (
            not len(points)
            or lengths.min(initial=1) < 1
            or lengths.sum() != len(points)
            or not np.isfinite(points).all()
        ):
            raise ValueError(f"{len(points)} points of {count} strokes do not fit together")
        return cls(points, lengths, width, margin, dark)

    def moved(self, matrix: Matrix) -> Self:
        """Return the drawing with its points moved by a matrix (2, 3), or by one for each point (N, 2, 3)."""
        places = (matrix[..., :2] @ self.points[:, :, None])[:, :, 0] + matrix[..., 2]
        return self._replace(points=places.astype(np.float32))

    def draw(self) -> Image.Image:
        """Return the image in grey: round strokes with smooth edges, at `margin` from the sides.

        PIL.Image.DecompressionBombError if its canvas has more pixels than Pillow's limit.
        """
        low, high = self.points.min(axis=0), self.points.max(axis=0)
        columns, rows = np.maximum(np.ceil(high - low + 2 * self.margin), 1).tolist()
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and columns * rows * FINE**2 > limit:
            raise Image.DecompressionBombError(
                f"the strokes take {columns:,.0f} x {rows:,.0f} pixels, of which each is the mean of "
                f"{FINE**2}, and at most {limit:,} are allowed."
            )
        paper, ink = (255, 0) if self.dark else (0, 255)
        canvas = Image.new("L", (int(columns) * FINE, int(rows) * FINE), paper)
        pen, places = ImageDraw.Draw(canvas), (self.points - low + self.margin) * FINE
        radius = max(self.width * FINE, 1.0) / 2
        for stroke in np.split(places, np.cumsum(self.lengths)[:-1]):
            pen.line(stroke.ravel().tolist(), fill=ink, width=round(2 * radius))
            for x, y in stroke.tolist():
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)
        return canvas.reduce(FINE)
