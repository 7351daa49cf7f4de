"""Operators that compute a number from several ones, as ONNX: products, cells, sums, norms, orders."""

import torch

from seq2attn.inference.engines.onnx_call import Call, Write
from seq2attn.inference.engines.onnx_graph import Value

# ---- products ------------------------------------------------------------------------------------------


def _product(left: str, right: str) -> Write:
    return lambda call: call.graph.node("MatMul", call.tensor(left), call.tensor(right))


def _affine(call: Call, x: Value, weight: str, bias: str) -> Value:
    """x W^T [+ b]."""
    product = call.graph.node("MatMul", x, call.graph.transposed(call.tensor(weight)))
    return product if call[bias] is None else call.graph.node("Add", product, call.tensor(bias))


def _linear(call: Call) -> Value:
    return _affine(call, call.tensor("input"), "weight", "bias")


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


PRODUCTS: dict[str, Write] = {
    "matmul": _product("self", "other"),
    **dict.fromkeys(("mm", "bmm"), _product("self", "mat2")),
    "linear": _linear,
    "lstm_cell": _lstm_cell,
    "gru_cell": _gru_cell,
    "einsum": _einsum,
    **dict.fromkeys(("conv1d", "conv2d"), _convolution),
    "cdist": _distances,
    "softmax": _softmax("Softmax"),
    "log_softmax": _softmax("LogSoftmax"),
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
}
