"""Checks of the masks, queries and sentence numbers that attention is given.

Where two sizes are equal, or one is 1, a wrong mask would broadcast to a wrong result without an error. So
the number of axes alone says what a mask means, and all sizes must be right.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from seq2attn.attention.memory import Grid
from seq2attn.errors import Seq2attnError


def check_mask(mask: Tensor, shape: Sequence[int], meaning: str) -> Tensor:
    """Return a mask if it is boolean and has this shape; Seq2attnError if not.

    meaning: the shape in letters and what True means, for the message: "(B, S), True = a token".
    """
    _check_boolean(mask, meaning)
    if mask.shape != tuple(shape):
        raise _unexpected(f"a mask {meaning}, here {_sizes(shape)}", mask)
    return mask


def source_mask(mask: Tensor, states: Tensor) -> Tensor:
    """Return a mask (..., S), which is padding, or (..., 1 or T, S), as (..., 1 or T, S) for states
    (..., S, K). Axes before the last two may have size 1, such as that of heads.

    Seq2attnError if it is not boolean, or has another shape.
    """
    _require_floats(states, "states")
    letters = ("B", "H")[: states.dim() - 2]
    of_states, axes = ", ".join((*letters, "S", "K")), ", ".join(letters)
    if states.dim() < 3:
        raise _unexpected("states (B, S, K), of a batch of sources", states)
    meaning = f"({axes}, S) or ({axes}, 1 or T, S), True = may be attended to"
    _check_boolean(mask, meaning)
    whole = mask.unsqueeze(-2) if mask.dim() == states.dim() - 1 else mask
    fits = (
        whole.dim() == states.dim()
        and whole.shape[-1] == states.shape[-2]
        and whole.shape[0] == states.shape[0]
    )
    if fits and all(
        size in (1, heads) for size, heads in zip(whole.shape[1:-2], states.shape[1:-2], strict=True)
    ):
        return whole
    raise _unexpected(f"a mask {meaning}, for states ({of_states}) = {_sizes(states.shape)}", mask)


def check_sentences(sentences: Tensor, states: Tensor) -> Tensor:
    """Return the sentence numbers (..., S) of states (..., S, K); Seq2attnError if they are none. Axes before
    the last may have size 1."""
    expected = states.shape[:-1]
    fits = sentences.dim() == len(expected) and sentences.shape[-1] == expected[-1]
    pairs = zip(sentences.shape[:-1], expected[:-1], strict=False)
    if not fits or sentences.dtype != torch.long or not all(size in (1, other) for size, other in pairs):
        raise _unexpected(
            f"the sentence of each source position, torch.long of the shape {_sizes(expected)}",
            sentences,
        )
    return sentences


def check_grid(grid: Grid | None, states: Tensor) -> Grid | None:
    """Return the rows and columns that states (..., S, K) lie on; Seq2attnError if they are not S."""
    if grid is not None and grid[0] * grid[1] != states.shape[-2]:
        raise Seq2attnError(
            f"a grid of {grid[0]} rows and {grid[1]} columns has {grid[0] * grid[1]:,} positions, got "
            f"{states.shape[-2]:,} states: flatten the grid row by row, as x.flatten(2).mT does"
        )
    return grid


def check_queries(query: Tensor, rows: int, axes: int) -> None:
    """Raise Seq2attnError if queries have not this number of axes, or not K rows for each of the sources."""
    _require_floats(query, "queries")
    if query.dim() != axes:
        shape = "(B, T, Q)" if axes == 3 else "(B, H, T, Q)"
        hint = ": one query for each source is query.unsqueeze(1)" if (query.dim(), axes) == (2, 3) else ""
        raise Seq2attnError(f"expected queries {shape}, got {_sizes(query.shape)}{hint}")
    count = query.shape[0]
    if count != rows and not (rows and count > rows and count % rows == 0 and query.shape[-2] == 1):
        raise Seq2attnError(
            f"queries {_sizes(query.shape)} for memories of {rows} sources: expected as many rows, or "
            "(K B, 1, Q) for K hypotheses of each source"
        )


def check_mask_of_queries(mask: Tensor, query: Tensor) -> None:
    """Raise Seq2attnError if the mask of a memory (..., M, S) does not fit the queries (..., T, Q)."""
    if mask.shape[-2] not in (1, query.shape[-2]):
        raise Seq2attnError(
            f"the memory has a mask for {mask.shape[-2]} queries each, got {query.shape[-2]} queries: give "
            "`remember` a mask of (B, 1, S), or one with a row for every query"
        )


def _require_floats(given: object, name: str) -> None:
    if not isinstance(given, Tensor) or not given.is_floating_point():
        what = str(given.dtype) if isinstance(given, Tensor) else f"{given!r:.60}"
        raise Seq2attnError(f"expected {name} as a tensor of floating-point numbers, got {what}")


def _check_boolean(mask: Tensor, meaning: str) -> None:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        given = str(mask.dtype) if isinstance(mask, Tensor) else type(mask).__name__
        raise Seq2attnError(
            f"expected a boolean mask {meaning}; got {given}: compare it first, as in `mask > 0`"
        )


def _unexpected(expected: str, given: Tensor) -> Seq2attnError:
    return Seq2attnError(f"expected {expected}; got {_sizes(given.shape)}, {given.dtype}")


def _sizes(shape: Sequence[int]) -> str:
    return str(tuple(shape))
