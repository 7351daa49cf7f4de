"""Operators that compute each number of a tensor by itself, and that make new tensors, as ONNX."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from seq2attn.inference.engines.onnx_call import Call, Write
from seq2attn.inference.engines.onnx_graph import Value

SAME = {  # of one tensor
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "neg": "Neg",
    "abs": "Abs",
    "floor": "Floor",
    "relu": "Relu",
    "reciprocal": "Reciprocal",
    "bitwise_not": "Not",
    "logical_not": "Not",
}
ARITHMETIC = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "minimum": "Min", "maximum": "Max"}
COMPARISONS = {
    "gt": "Greater",
    "ge": "GreaterOrEqual",
    "lt": "Less",
    "le": "LessOrEqual",
    "eq": "Equal",
}
LOGIC = {
    **dict.fromkeys(("logical_and", "bitwise_and", "__and__"), "And"),
    **dict.fromkeys(("logical_or", "bitwise_or", "__or__"), "Or"),
}
UNCHANGED = ("alias", "clone", "contiguous", "detach", "detach_", "lift_fresh_copy", "dropout")


def _unary(kind: str) -> Write:
    return lambda call: call.graph.node(kind, call.tensor("self"))


def _arithmetic(kind: str) -> Write:
    def write(call: Call) -> Value:
        dtype, other = call.made.dtype, "other"
        right = call.tensor(other, dtype)
        if call["alpha"] not in (None, 1):
            right = call.graph.node("Mul", right, call.graph.constant(call["alpha"], dtype))
        return call.graph.node(kind, call.tensor("self", dtype), right)

    return write


def _comparison(kind: str) -> Write:
    def write(call: Call) -> Value:
        dtype = torch.result_type(call.like("self"), call.like("other"))
        return call.graph.node(kind, call.tensor("self", dtype), call.tensor("other", dtype))

    return write


def _logic(kind: str) -> Write:
    return lambda call: call.graph.node(
        kind, call.tensor("self", torch.bool), call.tensor("other", torch.bool)
    )


def _unchanged(call: Call) -> Value:
    return call.tensor("input" if call.name == "dropout" else "self")


def _not_equal(call: Call) -> Value:
    return call.graph.node("Not", _comparison("Equal")(call))


def _converted(call: Call) -> Value:
    return call.tensor("self", call.made.dtype)


def _clamp(call: Call) -> Value:
    value, dtype = call.tensor("self", call.made.dtype), call.made.dtype
    for bound, kind in (("min", "Max"), ("max", "Min")):
        if call[bound] is not None:
            value = call.graph.node(kind, value, call.tensor(bound, dtype))
    return value


def _reversed_difference(call: Call) -> Value:
    dtype = call.made.dtype
    return call.graph.node("Sub", call.tensor("other", dtype), call.tensor("self", dtype))


def _square(call: Call) -> Value:
    return call.graph.node("Mul", call.tensor("self"), call.tensor("self"))


def _between(call: Call) -> Value:
    """self + weight (end - self)."""
    graph, start = call.graph, call.tensor("self")
    way = graph.node("Sub", call.tensor("end"), start)
    return graph.node("Add", start, graph.node("Mul", call.tensor("weight", call.made.dtype), way))


def _power(call: Call) -> Value:
    return call.graph.node("Pow", call.tensor("self"), call.tensor("exponent", call.made.dtype))


def _softplus(call: Call) -> Value:
    return call.graph.node("Softplus", call.tensor("self"))


def _masked_fill(call: Call) -> Value:
    return call.graph.node(
        "Where", call.tensor("mask"), call.tensor("value", call.made.dtype), call.tensor("self")
    )


def _where(call: Call) -> Value:
    dtype = call.made.dtype
    return call.graph.node(
        "Where", call.tensor("condition"), call.tensor("self", dtype), call.tensor("other", dtype)
    )


# ---- new tensors ---------------------------------------------------------------------------------------


def _filled(value: float | None, sizes: Callable[[Call], Sequence[Any] | None]) -> Write:
    """Write a tensor of one number; value: None takes the argument `fill_value`; sizes: None if they are
    those of the argument `self`."""

    def write(call: Call) -> Value:
        graph, given = call.graph, sizes(call)
        number = call["fill_value"] if value is None else value
        shape = graph.node("Shape", call.tensor("self")) if given is None else call.sizes(given)
        return graph.node("Expand", graph.constant(number, call.made.dtype), shape)

    return write


def _range(call: Call) -> Value:
    graph, dtype, scalar = call.graph, call.made.dtype, call.graph.constant([], torch.int64)
    start, end = (
        graph.node("Reshape", call.size(bound), scalar) for bound in (call["start"] or 0, call["end"])
    )
    made = graph.node("Range", start, end, graph.constant(call["step"] or 1))
    return made if dtype == torch.int64 else graph.cast(made, dtype)


def _like(call: Call) -> Sequence[Any] | None:
    return None


def _given_size(call: Call) -> Sequence[Any]:
    sizes: Sequence[Any] = call["size"]
    return sizes


POINTWISE: dict[str, Write] = {
    **{name: _unary(kind) for name, kind in SAME.items()},
    **{name: _arithmetic(kind) for name, kind in ARITHMETIC.items()},
    **{name: _comparison(kind) for name, kind in COMPARISONS.items()},
    **{name: _logic(kind) for name, kind in LOGIC.items()},
    **dict.fromkeys(UNCHANGED, _unchanged),
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max"), _clamp),
    "to": _converted,
    "ne": _not_equal,
    "pow": _power,
    "square": _square,
    "rsub": _reversed_difference,
    "lerp": _between,
    "softplus": _softplus,
    "masked_fill": _masked_fill,
    "where": _where,
    "zeros_like": _filled(0, _like),
    "ones_like": _filled(1, _like),
    "full_like": _filled(None, _like),
    "new_zeros": _filled(0, _given_size),
    "new_ones": _filled(1, _given_size),
    "zeros": _filled(0, _given_size),
    "ones": _filled(1, _given_size),
    "full": _filled(None, _given_size),
    "arange": _range,
}
