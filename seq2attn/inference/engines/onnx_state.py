"""The state of a decoder as a list of tensors with names, which a graph of ONNX reads and returns."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

from seq2attn.attention.state import PerSource
from seq2attn.inference.engines.engine import EngineError


class Leaf(NamedTuple):
    """A tensor of a state."""

    name: str  # its path: memory.keys
    tensor: Tensor  # one row for each hypothesis, or for each source
    of_source: bool  # whether all hypotheses of a source share it, and no step changes it


def leaves(state: Any, name: str = "", of_source: bool = False) -> Iterator[Leaf]:
    """Yield the tensors of a state, in their order. EngineError for what ONNX has no form for."""
    if state is None or isinstance(state, int | float):
        return
    if isinstance(state, Tensor):
        yield Leaf(name, state, of_source)
    elif isinstance(state, PerSource):
        yield from leaves(state.value, name, True)
    elif isinstance(state, tuple):
        names = getattr(state, "_fields", range(len(state)))
        for field, value in zip(names, state, strict=True):
            yield from leaves(value, f"{name}.{field}".lstrip("."), of_source)
    else:
        raise EngineError(f"onnx has no form for the {type(state).__name__} in the decoder's state ({name})")


def with_leaves(state: Any, tensors: Iterator[Tensor]) -> Any:
    """Return a state with other tensors in the place of its own, which come in the order of `leaves`."""
    if state is None or isinstance(state, int | float):
        return state
    if isinstance(state, Tensor):
        return next(tensors)
    if isinstance(state, PerSource):
        return PerSource(with_leaves(state.value, tensors))
    fields = [with_leaves(field, tensors) for field in state]
    return type(state)(*fields) if hasattr(state, "_fields") else tuple(fields)
