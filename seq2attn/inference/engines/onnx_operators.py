"""OPERATORS: how the operators of torch that decoders use are written as ONNX.

What is not here, an exported model cannot use. Names and arguments are those of torch's operators.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch

from seq2attn.inference.engines.onnx_call import Call
from seq2attn.inference.engines.onnx_graph import Value

Write = Callable[[Call], Any]  # returns the value, or a list of values, of the operator

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
OF_SIZES = {operator.add: "Add", operator.sub: "Sub", operator.mul: "Mul", operator.floordiv: "Div"}


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


# ---- products ------------------------------------------------------------------------------------------


def _product(left: str, right: str) -> Write:
    return lambda call: call.graph.node("MatMul", call.tensor(left), call.tensor(right))


def _affine(call: Call, x: Value, weight: str, bias: str) -> Value:
    """x W^T [+ b]."""
    product = call.graph.node("MatMul", x, call.graph.transposed(call.tensor(weight)))
    return product if call[bias] is None else call.graph.node("Add", product, call.tensor(bias))


def _linear(call: Call) -> Value:
    return _affine(call, call.tensor("input"), "weight", "bias")


def _add_product(call: Call) -> Value:
    product = call.graph.node("MatMul", call.tensor("mat1"), call.tensor("mat2"))
    return call.graph.node("Add", product, call.tensor("self"))


def _einsum(call: Call) -> Value:
    parts = [call.value(one) for one in call["tensors"]]
    return call.graph.node("Einsum", *parts, attributes={"equation": call["equation"]})


def _convolution(call: Call) -> Value:
    inputs = [call.tensor("input"), call.tensor("weight")]
    if call["bias"] is not None:
        inputs.append(call.tensor("bias"))
    padding = list(call["padding"])
    return call.graph.node(
        "Conv", *inputs, attributes={"pads": [*padding, *padding], "group": call["groups"]}
    )


def _distances(call: Call) -> Value:
    """Euclidean distances (..., T, S) of (..., T, D) and (..., S, D)."""
    graph = call.graph
    left = graph.node("Unsqueeze", call.tensor("x1"), graph.constant([-2]))
    right = graph.node("Unsqueeze", call.tensor("x2"), graph.constant([-3]))
    return graph.node(
        "ReduceL2", graph.node("Sub", left, right), graph.constant([-1]), attributes={"keepdims": 0}
    )


# ---- cells ---------------------------------------------------------------------------------------------


def _lstm_cell(call: Call) -> list[Value]:
    """The hidden state and the cell state; the gates are i f g o."""
    graph, (hidden, cell) = call.graph, [call.value(one) for one in call["hx"]]
    parts = _affine(call, call.tensor("input"), "w_ih", "b_ih"), _affine(call, hidden, "w_hh", "b_hh")
    gates = graph.nodes("Split", 4, graph.node("Add", *parts), attributes={"axis": 1, "num_outputs": 4})
    enter, keep, leave = (graph.node("Sigmoid", gates[place]) for place in (0, 1, 3))
    new = graph.node("Mul", enter, graph.node("Tanh", gates[2]))
    cell = graph.node("Add", graph.node("Mul", keep, cell), new)
    return [graph.node("Mul", leave, graph.node("Tanh", cell)), cell]


def _gru_cell(call: Call) -> Value:
    """The hidden state; the gates are r z n."""
    graph, hidden = call.graph, call.tensor("hx")
    parts = _affine(call, call.tensor("input"), "w_ih", "b_ih"), _affine(call, hidden, "w_hh", "b_hh")
    of_input, of_hidden = (
        graph.nodes("Split", 3, part, attributes={"axis": 1, "num_outputs": 3}) for part in parts
    )
    reset, keep = (
        graph.node("Sigmoid", graph.node("Add", *pair))
        for pair in zip(of_input[:2], of_hidden[:2], strict=True)
    )
    new = graph.node("Add", of_input[2], graph.node("Mul", reset, of_hidden[2]))
    new = graph.node("Tanh", new)
    return graph.node("Add", new, graph.node("Mul", keep, graph.node("Sub", hidden, new)))


# ---- sums, maxima, softmaxes ---------------------------------------------------------------------------


def _softmax(kind: str) -> Write:
    return lambda call: call.graph.node(kind, call.tensor("self"), attributes={"axis": call.axis("dim")})


def _reduced(kind: str, call: Call, value: Value) -> Value:
    axes = call["dim"]
    axes = [axes] if isinstance(axes, int) else list(axes or range(call.like("self").dim()))
    return call.graph.node(
        kind, value, call.graph.constant(axes), attributes={"keepdims": int(bool(call["keepdim"]))}
    )


def _reduction(kind: str) -> Write:
    return lambda call: _reduced(kind, call, call.tensor("self", call.made.dtype))


def _any(call: Call) -> Value:
    return call.graph.cast(_reduced("ReduceMax", call, call.tensor("self", torch.int32)), torch.bool)


def _norm(call: Call) -> Value:
    return _reduced("ReduceL2", call, call.tensor("self"))


def _layer_norm(call: Call) -> Value:
    graph, shape = call.graph, call["normalized_shape"]
    scale = (
        call.tensor("weight")
        if call["weight"] is not None
        else graph.constant([1.0] * shape[-1], torch.float32)
    )
    inputs = [call.tensor("input"), scale, *([] if call["bias"] is None else [call.tensor("bias")])]
    return graph.node("LayerNormalization", *inputs, attributes={"axis": -len(shape), "epsilon": call["eps"]})


def _cumulative_sum(call: Call) -> Value:
    axis = call.graph.constant(call.axis("dim"))
    return call.graph.node("CumSum", call.tensor("self", call.made.dtype), axis)


def _sorted(call: Call) -> list[Value]:
    graph, axis = call.graph, call.axis("dim")
    shape = graph.node("Shape", call.tensor("self"), attributes={"start": axis, "end": axis + 1})
    return graph.nodes(
        "TopK",
        2,
        call.tensor("self"),
        shape,
        attributes={"axis": axis, "largest": int(bool(call["descending"]))},
    )


def _argmax(call: Call) -> Value:
    return call.graph.node(
        "ArgMax",
        call.tensor("self"),
        attributes={"axis": call.axis("dim"), "keepdims": int(bool(call["keepdim"]))},
    )


# ---- shapes --------------------------------------------------------------------------------------------


def _view(call: Call) -> Value:
    return call.graph.node(
        "Reshape", call.tensor("self"), call.sizes(call["size"] if call["shape"] is None else call["shape"])
    )


def _regrouped(call: Call) -> Value:
    """Neighbouring axes joined, or one split. ONNX takes 0 for a size that stays, and -1 for one other."""
    before, sizes = call.like("self").shape, list[int]()
    for axis, size in enumerate(call.made.shape):
        same = axis < len(before) and str(before[axis]) == str(size)
        sizes.append(size if isinstance(size, int) else 0 if same else -1)
    return call.graph.node("Reshape", call.tensor("self"), call.graph.constant(sizes))


def _matrix_transposed(call: Call) -> Value:
    *axes, a, b = range(call.like("self").dim())
    return call.graph.node("Transpose", call.tensor("self"), attributes={"perm": [*axes, b, a]})


def _expanded_as(call: Call) -> Value:
    return call.graph.node("Expand", call.tensor("self"), call.graph.node("Shape", call.tensor("other")))


def _expand(call: Call) -> Value:
    """A size of -1 stays: Expand takes 1 for it."""
    sizes = [1 if size == -1 else size for size in call["size"]]
    return call.graph.node("Expand", call.tensor("self"), call.sizes(sizes))


def _transpose(call: Call) -> Value:
    order = list(range(call.like("self").dim()))
    a, b = call.axis("dim0"), call.axis("dim1")
    order[a], order[b] = b, a
    return call.graph.node("Transpose", call.tensor("self"), attributes={"perm": order})


def _permute(call: Call) -> Value:
    axes = [axis % call.like("self").dim() for axis in call["dims"]]
    return call.graph.node("Transpose", call.tensor("self"), attributes={"perm": axes})


def _t(call: Call) -> Value:
    return call.graph.node("Transpose", call.tensor("self"), attributes={"perm": [1, 0]})


def _unsqueeze(call: Call) -> Value:
    axes = call.graph.constant([call.axis("dim", added=1)])
    return call.graph.node("Unsqueeze", call.tensor("self"), axes)


def _squeeze(call: Call) -> Value:
    axes = [call["dim"]] if isinstance(call["dim"], int) else list(call["dim"])
    shape = call.like("self").shape
    single = [axis for axis in axes if shape[axis] == 1]
    value = call.tensor("self")
    return call.graph.node("Squeeze", value, call.graph.constant(single)) if single else value


def _concatenated(call: Call) -> Value:
    parts = [call.value(one, call.made.dtype) for one in call["tensors"]]
    return call.graph.node("Concat", *parts, attributes={"axis": call["dim"] % call.made.dim()})


def _stacked(call: Call) -> Value:
    axis = call["dim"] % call.made.dim()
    axes = call.graph.constant([axis])
    parts = [call.graph.node("Unsqueeze", call.value(one), axes) for one in call["tensors"]]
    return call.graph.node("Concat", *parts, attributes={"axis": axis})


def _split(call: Call) -> list[Value]:
    """Parts of equal or given sizes; the last of equal ones may be smaller."""
    axis, sizes = call.axis("dim"), [part.shape[call["dim"]] for part in call.node.meta["val"]]
    return call.graph.nodes(
        "Split", len(sizes), call.tensor("self"), call.graph.constant(sizes), attributes={"axis": axis}
    )


def _unbound(call: Call) -> list[Value]:
    axis, count = call.axis("dim"), len(call.node.meta["val"])
    parts = call.graph.nodes(
        "Split", count, call.tensor("self"), attributes={"axis": axis, "num_outputs": count}
    )
    return [call.graph.node("Squeeze", part, call.graph.constant([axis])) for part in parts]


def _sliced(call: Call) -> Value:
    start, end = call["start"] or 0, 2**62 if call["end"] is None else call["end"]
    bounds = [call.size(start), call.size(end), call.graph.constant([call.axis("dim")])]
    return call.graph.node("Slice", call.tensor("self"), *bounds, call.graph.constant([call["step"] or 1]))


def _selected(call: Call) -> Value:
    return call.graph.node(
        "Gather",
        call.tensor("self"),
        call.graph.constant(call["index"]),
        attributes={"axis": call.axis("dim")},
    )


def _rows(call: Call) -> Value:
    return call.graph.node(
        "Gather", call.tensor("self"), call.tensor("index"), attributes={"axis": call.axis("dim")}
    )


def _embedding(call: Call) -> Value:
    return call.graph.node("Gather", call.tensor("weight"), call.tensor("indices"), attributes={"axis": 0})


def _repeated(call: Call) -> Value:
    """Each row of an axis several times, one after the other."""
    graph, axis, count, value = call.graph, call.axis("dim"), call["repeats"], call.tensor("self")
    ones = [1] * call.like("self").dim()
    wide = graph.node("Unsqueeze", value, graph.constant([axis + 1]))
    wide = graph.node("Expand", wide, graph.constant([*ones[: axis + 1], count, *ones[axis + 1 :]]))
    before = graph.node("Shape", value, attributes={"start": 0, "end": axis})
    after = graph.node("Shape", value, attributes={"start": axis + 1})
    shape = graph.node("Concat", before, graph.constant([-1]), after, attributes={"axis": 0})
    return graph.node("Reshape", wide, shape)


def _gathered(call: Call) -> Value:
    return call.graph.node(
        "GatherElements", call.tensor("self"), call.tensor("index"), attributes={"axis": call.axis("dim")}
    )


def _flipped(call: Call) -> Value:
    axes, graph = [axis % call.like("self").dim() for axis in call["dims"]], call.graph
    ends = [graph.constant([bound] * len(axes)) for bound in (-1, -(2**62))]
    return graph.node(
        "Slice", call.tensor("self"), *ends, graph.constant(axes), graph.constant([-1] * len(axes))
    )


def _padded(call: Call) -> Value:
    """torch names the last axis first, ONNX all first sides, then all second ones."""
    pairs = [tuple(call["pad"][place : place + 2]) for place in range(0, len(call["pad"]), 2)]
    pairs += [(0, 0)] * (call.like("self").dim() - len(pairs))
    before, after = ([pair[side] for pair in reversed(pairs)] for side in (0, 1))
    fill = call.graph.constant(call["value"] or 0, call.made.dtype)
    return call.graph.node("Pad", call.tensor("self"), call.sizes([*before, *after]), fill)


def _scattered(call: Call) -> Value:
    """Put one number where the index says."""
    graph, index = call.graph, call.tensor("index")
    value = graph.node("Expand", graph.constant(call["value"], call.made.dtype), graph.node("Shape", index))
    return graph.node(
        "ScatterElements", call.tensor("self"), index, value, attributes={"axis": call.axis("dim")}
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


def _size(call: Call) -> Value:
    axis = call.axis("dim")
    return call.graph.node("Shape", call.tensor("self"), attributes={"start": axis, "end": axis + 1})


def _like(call: Call) -> Sequence[Any] | None:
    return None


def _given_size(call: Call) -> Sequence[Any]:
    sizes: Sequence[Any] = call["size"]
    return sizes


OPERATORS: dict[str, Write] = {
    **{name: _unary(kind) for name, kind in SAME.items()},
    **{name: _arithmetic(kind) for name, kind in ARITHMETIC.items()},
    **{name: _comparison(kind) for name, kind in COMPARISONS.items()},
    **{name: _logic(kind) for name, kind in LOGIC.items()},
    **dict.fromkeys(UNCHANGED, _unchanged),
    **dict.fromkeys(("to", "_to_copy"), _converted),
    "ne": _not_equal,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": _clamp,
    "pow": _power,
    "square": _square,
    "rsub": _reversed_difference,
    "lerp": _between,
    "softplus": _softplus,
    "masked_fill": _masked_fill,
    "where": _where,
    **dict.fromkeys(("matmul",), _product("self", "other")),
    **dict.fromkeys(("mm", "bmm"), _product("self", "mat2")),
    "linear": _linear,
    "lstm_cell": _lstm_cell,
    "gru_cell": _gru_cell,
    "addmm": _add_product,
    "einsum": _einsum,
    **dict.fromkeys(("convolution", "conv1d", "conv2d"), _convolution),
    **dict.fromkeys(("cdist", "_cdist_forward"), _distances),
    **dict.fromkeys(("softmax", "_softmax"), _softmax("Softmax")),
    **dict.fromkeys(("log_softmax", "_log_softmax"), _softmax("LogSoftmax")),
    "sum": _reduction("ReduceSum"),
    "mean": _reduction("ReduceMean"),
    "amax": _reduction("ReduceMax"),
    "amin": _reduction("ReduceMin"),
    "logsumexp": _reduction("ReduceLogSumExp"),
    "any": _any,
    "linalg_vector_norm": _norm,
    "layer_norm": _layer_norm,
    "cumsum": _cumulative_sum,
    "sort": _sorted,
    "argmax": _argmax,
    **dict.fromkeys(("view", "_unsafe_view"), _view),
    "reshape": _view,
    **dict.fromkeys(("unflatten", "flatten"), _regrouped),
    "mT": _matrix_transposed,
    "expand": _expand,
    "expand_as": _expanded_as,
    "transpose": _transpose,
    "permute": _permute,
    "t": _t,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "cat": _concatenated,
    "stack": _stacked,
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _split),
    "unbind": _unbound,
    "slice": _sliced,
    "select": _selected,
    "index_select": _rows,
    "embedding": _embedding,
    "repeat_interleave": _repeated,
    "gather": _gathered,
    "flip": _flipped,
    **dict.fromkeys(("pad", "constant_pad_nd"), _padded),
    "scatter": _scattered,
    "zeros_like": _filled(0, _like),
    "ones_like": _filled(1, _like),
    "full_like": _filled(None, _like),
    "new_zeros": _filled(0, _given_size),
    "new_ones": _filled(1, _given_size),
    "zeros": _filled(0, _given_size),
    "ones": _filled(1, _given_size),
    "full": _filled(None, _given_size),
    "arange": _range,
    "sym_size": _size,
}
