"""What decoders remember between steps: nested NamedTuples of tensors, batch first, and of numbers that all
rows have in common.

A search keeps several hypotheses of each sentence and drops sentences that are done. All that it needs to
know of a state is that it can be reordered.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

State = TypeVar("State")
Value = TypeVar("Value")


@dataclass(frozen=True)
class PerSource(Generic[Value]):
    """What all hypotheses of a sentence have in common, such as the memory of its source: kept once for each
    sentence, and not moved when hypotheses are."""

    value: Value  # (nested) NamedTuple of tensors, or a tensor; a row for each sentence


@dataclass(frozen=True)
class GrowingBuffer:
    """Slots (..., S, D) that grow at their end, in place while there is room behind them, as a list does.

    What has been kept does not change when others append to it: whoever comes second finds the room taken,
    and gets one of its own. So does whoever needs a gradient, or may not write there (inference mode).
    """

    room: Tensor  # (..., C, D), of which the first `count` are these
    count: int
    taken: list[int]  # one number: how many slots of the room are anyone's

    @classmethod
    def of(cls, x: Tensor) -> "GrowingBuffer":
        """As many as there are, and no room."""
        return cls(x, x.shape[-2], [x.shape[-2]])

    @property
    def all(self) -> Float[Tensor, "*b S D"]:
        """The slots."""
        return self.room[..., : self.count, :]

    def append(self, new: Float[Tensor, "*b N D"]) -> "GrowingBuffer":
        """These and new ones."""
        room, count, taken = self.room, self.count + new.shape[-2], self.taken
        if torch.is_grad_enabled():
            return GrowingBuffer.of(torch.cat([self.all, new], -2))
        foreign = room.is_inference() != torch.is_inference_mode_enabled()
        if foreign or taken[0] > self.count or room.shape[-2] < count:
            room, taken = new.new_empty(*new.shape[:-2], 2 * count, new.shape[-1]), [self.count]
            room[..., : self.count, :] = self.all
        room[..., self.count : count, :] = new
        taken[0] = count
        return GrowingBuffer(room, count, taken)


def reorder(state: State, index: Int[Tensor, " N"], sentences: Int[Tensor, " B"] | None = None) -> State:
    """Take rows of every tensor in a state: they may be repeated, dropped and permuted. The rest stays.

    sentences: those that stay, in ascending order, where hypotheses are several for each, N = K B: rows of
    what is `Shared`. None: there is one hypothesis for each, and `index` counts there as well.
    """

    def move(x: Tensor) -> Tensor:
        return x.index_select(0, index)

    def keep(x: Tensor) -> Tensor:
        if sentences is None:
            return move(x)
        return x if len(sentences) == len(x) else x.index_select(0, sentences)

    return _mapped(state, move, keep)  # type: ignore[no-any-return]


def expand_to_hypotheses(value: Value, rows: int) -> Value:
    """Rows of what is shared, each repeated for its hypotheses, so that there are `rows` in all."""

    def repeat(x: Tensor) -> Tensor:
        return x if len(x) == rows else x.repeat_interleave(rows // len(x), 0)

    return _mapped(value, repeat, repeat)  # type: ignore[no-any-return]


def fold_hypotheses(x: Float[Tensor, "*n 1 D"], sentences: int) -> Float[Tensor, "*b K D"]:
    """What the hypotheses of each sentence have, one query or slot each, side by side: N = K `sentences`."""
    return x if len(x) == sentences else x.unflatten(0, (sentences, -1)).movedim(1, -3).flatten(-3, -2)


def unfold_hypotheses(x: Float[Tensor, "*b K D"]) -> Float[Tensor, "*n 1 D"]:
    """What stands side by side for each hypothesis by itself again."""
    return x.unsqueeze(-2).movedim(-3, 1).flatten(0, 1)


def _mapped(state: Any, each: Callable[[Tensor], Tensor], shared: Callable[[Tensor], Tensor]) -> Any:
    if state is None or isinstance(state, int):
        return state
    if isinstance(state, Tensor):
        return each(state)
    if isinstance(state, GrowingBuffer):
        here = state.all
        moved = each(here)
        return state if moved is here else GrowingBuffer.of(moved)
    if isinstance(state, PerSource):
        return PerSource(_mapped(state.value, shared, shared))
    parts = [_mapped(part, each, shared) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
