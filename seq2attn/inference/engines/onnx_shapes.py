"""Operators that give the numbers of a tensor other places, as ONNX."""

from seq2attn.inference.engines.onnx_call import Call, Write
from seq2attn.inference.engines.onnx_graph import Value


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


def _size(call: Call) -> Value:
    axis = call.axis("dim")
    return call.graph.node("Shape", call.tensor("self"), attributes={"start": axis, "end": axis + 1})


SHAPES: dict[str, Write] = {
    **dict.fromkeys(("view", "reshape"), _view),
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
    "pad": _padded,
    "scatter": _scattered,
    "sym_size": _size,
}
