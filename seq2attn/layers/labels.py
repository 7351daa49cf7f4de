"""The check of label ids that losses are given."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from seq2attn.attention.masks import check_mask
from seq2attn.errors import Seq2attnError

_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def checked_labels(
    labels: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"], shape: Sequence[int], size: int
) -> Int[Tensor, "B T"]:
    """Return the labels as torch.long, 0 at padding, where they may be anything.

    shape: (B, T) of what the labels are compared with; size: the number of labels. Seq2attnError, with the
    token, for others than 0 ... size - 1, for other shapes, and for a mask that is not boolean.
    """
    if not isinstance(labels, Tensor) or labels.dtype not in _WHOLE or labels.shape != tuple(shape):
        tensor = isinstance(labels, Tensor)
        came = f"{labels.dtype} {tuple(labels.shape)}" if tensor else type(labels).__name__
        raise Seq2attnError(f"expected label ids (B, T), whole numbers {tuple(shape)}; got {came}")
    check_mask(mask, shape, "(B, T), True = a token")
    labels = labels.long().masked_fill(~mask, 0)
    wrong = (labels < 0) | (labels >= size)
    if wrong.any():
        row, t = wrong.nonzero()[0].tolist()
        raise Seq2attnError(
            f"token {t} of sentence {row} has label {int(labels[row, t])}: expected one of 0 ... {size - 1}"
        )
    return labels
