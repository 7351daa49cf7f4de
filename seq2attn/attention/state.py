"""The state that a decoder carries between steps: nested NamedTuples of tensors, batch first, and of numbers
that all rows share.

A search keeps K hypotheses of each sentence and drops finished sentences. It uses a state only through
`reorder`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seq2attn.errors import Seq2attnError

State = TypeVar("State")
Value = TypeVar("Value")


@dataclass(frozen=True)
class PerSource(Generic[Value]):
    """A value that all hypotheses of a sentence share, such as the memory of its source: kept once per
    sentence, and not reordered when only hypotheses are."""

    value: Value  # a tensor, or (nested) NamedTuples of tensors; one row per sentence


@dataclass(frozen=True)
class GrowingBuffer:
    """Rows (..., S, D) that grow at their end, such as a key-value cache: in place while there is capacity,
    as in a list.

    A buffer never changes when another one appends to the same storage. The second buffer to append at the
    same row copies the storage first, and so does a buffer that needs gradients, or one that may not write to
    the storage (inference mode).
    """

    storage: Tensor  # (..., C, D), of which the first `length` rows belong to this buffer
    length: int
    used: list[int]  # a single number, shared by all buffers of this storage: rows that any of them uses

    @classmethod
    def of(cls, x: Tensor) -> "GrowingBuffer":
        """Return a buffer of these rows, without spare capacity."""
        return cls(x, x.shape[-2], [x.shape[-2]])

    @property
    def all(self) -> Float[Tensor, "*b S D"]:
        """All rows."""
        return self.storage[..., : self.length, :]

    def append(self, new: Float[Tensor, "*b N D"]) -> "GrowingBuffer":
        """Return a buffer of these rows followed by new ones."""
        storage, length, used = self.storage, self.length + new.shape[-2], self.used
        if torch.is_grad_enabled():
            return GrowingBuffer.of(torch.cat([self.all, new], -2))
        foreign = storage.is_inference() != torch.is_inference_mode_enabled()
        if foreign or used[0] > self.length or storage.shape[-2] < length:
            storage, used = new.new_empty(*new.shape[:-2], 2 * length, new.shape[-1]), [self.length]
            storage[..., : self.length, :] = self.all
        storage[..., self.length : length, :] = new
        used[0] = length
        return GrowingBuffer(storage, length, used)


def reorder(state: State, index: Int[Tensor, " N"], sentences: Int[Tensor, " B"] | None = None) -> State:
    """Return a state with the rows `index` of every tensor: repeated, dropped or permuted. Numbers stay.

    sentences: if there are K hypotheses per sentence, N = K B: the sentences that stay, in ascending order,
    which are the rows of `PerSource` values. None: one hypothesis per sentence, and `index` applies to
    these values as well.
    """
    select = partial(_select, index)
    shared = select if sentences is None else partial(_select_sentences, sentences)
    return _mapped(state, select, shared)  # type: ignore[no-any-return]


def expand_to_hypotheses(value: Value, rows: int) -> Value:
    """Return a value with each row repeated for its hypotheses, so that there are `rows` in all."""
    repeat = partial(_repeat, rows)
    return _mapped(value, repeat, repeat)  # type: ignore[no-any-return]


def fold_hypotheses(x: Float[Tensor, "*n 1 D"], sentences: int) -> Float[Tensor, "*b K D"]:
    """Put the K hypotheses of each sentence side by side, a row each: (K B, ..., 1, D) -> (B, ..., K, D)."""
    return x if x.shape[0] == sentences else x.unflatten(0, (sentences, -1)).movedim(1, -3).flatten(-3, -2)


def unfold_hypotheses(x: Float[Tensor, "*b K D"]) -> Float[Tensor, "*n 1 D"]:
    """Give each hypothesis a row of its own again: (B, ..., K, D) -> (K B, ..., 1, D)."""
    return x.unsqueeze(-2).movedim(-3, 1).flatten(0, 1)


# These are no functions within functions: shapes of such would be compiled anew at each call where they are
# checked.
def _select(index: Tensor, x: Tensor) -> Tensor:
    return x.index_select(0, index)


def _select_sentences(index: Tensor, x: Tensor) -> Tensor:
    return x if len(index) == len(x) else x.index_select(0, index)


def _repeat(rows: int, x: Tensor) -> Tensor:
    return x if x.shape[0] == rows else x.repeat_interleave(rows // x.shape[0], 0)


def _mapped(state: Any, each: Callable[[Tensor], Tensor], shared: Callable[[Tensor], Tensor]) -> Any:
    """Apply `each` to all tensors of a state, and `shared` to those that hypotheses share."""
    if state is None or isinstance(state, int | float):
        return state
    if isinstance(state, Tensor):
        return each(state)
    if isinstance(state, GrowingBuffer):
        rows = state.all
        changed = each(rows)
        return state if changed is rows else GrowingBuffer.of(changed)
    if isinstance(state, PerSource):
        return PerSource(_mapped(state.value, shared, shared))
    if not isinstance(state, tuple):
        raise Seq2attnError(
            "expected a decoder's state of tensors, numbers, PerSource and (named) tuples of these, got a "
            f"{type(state).__name__} in it"
        )
    fields = [_mapped(field, each, shared) for field in state]
    return type(state)(*fields) if hasattr(state, "_fields") else tuple(fields)
