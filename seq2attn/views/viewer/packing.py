"""Weights as text in a page: a byte each, or exact; of large matrices the largest of each row.

Letters: H heads, R rows, C columns, K weights that are kept of a row.
"""

import base64
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seq2attn.errors import Seq2attnError

DENSE = 250_000  # cells of a head; of a larger one only the KEPT largest weights of each row are in the page
KEPT = 16
MOST = 16_000_000  # cells of a head, beyond which a browser would freeze
_LEVELS = 255


class ViewError(Seq2attnError):
    """Weights cannot be shown, or a page would be too large."""


def packed(weights: ArrayLike, exact: bool = False) -> dict[str, Any]:
    """Return weights (H, R, C) for a page: `shape`, and `u8` with `range`, or `f32`; base64 of row-major
    arrays, little-endian.

    A byte b is low + b (high - low) / 255, with [low, high] = range; so weights are wrong by at most
    (high - low) / 510, and 0 is exactly 0 if there are no negative ones. Of more than DENSE cells a head,
    `u8` has the KEPT largest weights of each row, and `columns` (16 bits) where they stand; the others are 0.

    exact: float32, and all of them. ViewError for what is not finite, and for more than MOST cells a head.
    """
    array = np.ascontiguousarray(weights, dtype="<f4")
    if array.ndim != 3 or not np.isfinite(array).all():
        raise ViewError(
            f"expected finite weights of heads, rows and columns, got an array of shape {array.shape}: are "
            "the model's weights damaged?"
        )
    heads, rows, columns = array.shape
    if rows * columns > MOST:
        raise ViewError(
            f"a page shows at most {MOST:,} weights of a head, and these texts have {rows:,} times "
            f"{columns:,}: give shorter ones"
        )
    low, high = min(0.0, float(array.min(initial=0.0))), float(array.max(initial=0.0))
    entry: dict[str, Any] = {"shape": [heads, rows, columns], "range": [round(low, 7), round(high, 7)]}
    if exact:
        return {**entry, "f32": _text(array)}
    low, high = entry["range"]
    if rows * columns <= DENSE or columns <= KEPT:
        return {**entry, "u8": _text(_levels(array, low, high))}
    largest = np.sort(np.argpartition(-array, KEPT, axis=-1)[..., :KEPT], axis=-1)
    values = np.take_along_axis(array, largest, -1)
    return {**entry, "columns": _text(largest.astype("<u2")), "u8": _text(_levels(values, low, high))}


def unpacked(entry: dict[str, Any]) -> NDArray[np.float32]:
    """Return the weights (H, R, C) of what `packed` returned, as a page reads them."""
    shape = tuple(entry["shape"])
    if "f32" in entry:
        return (
            np.frombuffer(base64.b64decode(entry["f32"]), "<f4").reshape(shape).astype(np.float32, copy=True)
        )
    low, high = entry["range"]
    levels = np.frombuffer(base64.b64decode(entry["u8"]), np.uint8)
    values: NDArray[np.float32] = (low + levels * ((high - low) / _LEVELS)).astype(np.float32)
    if "columns" not in entry:
        return values.reshape(shape)
    columns = np.frombuffer(base64.b64decode(entry["columns"]), "<u2").reshape(*shape[:2], KEPT)
    whole = np.zeros(shape, np.float32)
    np.put_along_axis(whole, columns.astype(np.int64), values.reshape(columns.shape), -1)
    return whole


def _levels(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    share = (values - low) / ((high - low) or 1.0)
    return np.rint(np.clip(share, 0, 1) * _LEVELS).astype(np.uint8)


def _text(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
