"""Laws of inputs: a mask is read by the number of its axes, and what does not fit is refused."""

import pytest
import torch
from torch.testing import assert_close

from laws.law import law
from laws.mechanisms import Case
from seq2attn.errors import Seq2attnError


@law(floor=328)
def a_mask_of_padding_needs_no_axis_of_queries(case: Case) -> None:
    square = case._replace(query=case.query[:, :3])  # T = B
    padding = square.mask.squeeze(1)  # (B, S)
    assert_close(square.with_(mask=padding).weights, square.attend().weights)
    assert_close(square.with_(mask=padding).context, square.attend().context)


@law(floor=328)
def other_masks_are_refused(case: Case) -> None:
    mask = case.mask  # (3, 1, 7)
    for wrong in (mask.float(), mask.long(), mask.tolist()):
        with pytest.raises(Seq2attnError, match="boolean mask"):
            case._replace(mask=wrong).remember()
    shapes = [(7,), (1, 7), (5, 7), (2, 7), (3, 6), (1, 1, 7), (2, 1, 7), (3, 7, 1), (3, 1, 8), (3, 1, 1, 7)]
    for shape in shapes:
        with pytest.raises(Seq2attnError, match="expected a mask"):
            case._replace(mask=torch.ones(shape, dtype=torch.bool)).remember()
    of_others = case._replace(mask=mask.expand(-1, 4, -1))  # of 4 queries, not 5
    with pytest.raises(Seq2attnError, match="mask for 4 queries each, got 5 queries"):
        of_others.attend()


@law(floor=328)
def queries_of_other_shapes_are_refused(case: Case) -> None:
    for wrong in (
        case.query[:, 0],
        case.query[0],
        case.query[None, None, None],
        case.query[:2],
        case.query[:1],
    ):
        with pytest.raises(Seq2attnError, match="queries"):
            case.with_(query=wrong)
