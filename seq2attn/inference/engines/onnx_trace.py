"""Modules of torch as parts of an ONNX graph: they are traced, and written operator by operator."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from seq2attn.inference.engines.engine import EngineError
from seq2attn.inference.engines.onnx_call import Call
from seq2attn.inference.engines.onnx_graph import OnnxGraph, Value
from seq2attn.inference.engines.onnx_operators import OF_SIZES, OPERATORS


class Traced:
    """A module, traced with examples of its inputs; it returns a tuple of tensors.

    varying: of each input, the axes whose sizes vary, by the name of the size.
    """

    def __init__(
        self, module: nn.Module, inputs: Sequence[Tensor], varying: Sequence[Mapping[int, str]]
    ) -> None:
        names = sorted({name for axes in varying for name in axes.values()})
        dims = {name: torch.export.Dim(name, min=2) for name in names}
        shapes = tuple({axis: dims[name] for axis, name in axes.items()} for axes in varying)
        try:
            with torch.no_grad():
                self._program = torch.export.export(module, (tuple(inputs),), dynamic_shapes=(shapes,))
        except Exception as error:  # whatever torch raises: this model cannot be traced
            raise EngineError(f"torch cannot trace the model for onnx: {error}") from error
        self._module = self._program.graph_module
        self._inputs = [str(name) for name in self._program.graph_signature.user_inputs]

    def write(self, graph: OnnxGraph, inputs: Sequence[Value], outputs: Sequence[int]) -> list[Value]:
        """Write what some of the outputs need to a graph, whose values are the inputs. Return the outputs."""
        given: dict[str, Value] = dict(zip(self._inputs, inputs, strict=True))
        return self._write(graph, self._module, given, outputs)

    def read_by(self, outputs: Sequence[int]) -> list[int]:
        """Return the inputs that some of the outputs depend on, in order."""
        needed = {node.name for node in _needed(self._module, outputs)}
        return [place for place, name in enumerate(self._inputs) if name in needed]

    def _write(
        self, graph: OnnxGraph, module: fx.GraphModule, given: dict[str, Value], outputs: Sequence[int]
    ) -> list[Value]:
        values: dict[fx.Node, Any] = {}
        for node in _needed(module, outputs):
            if node.op == "placeholder":
                value = given.get(node.name)
                values[node] = graph.weight(self._weight(node.name)) if value is None else value
            elif node.op == "call_function":
                values[node] = self._written(graph, module, node, values)
            elif node.op != "get_attr":
                raise EngineError(f"onnx has no form for {node.op} {node.target}")
        returned = _returned(module)
        return [values[returned[place]] for place in outputs]

    def _written(
        self, graph: OnnxGraph, module: fx.GraphModule, node: fx.Node, values: Mapping[fx.Node, Any]
    ) -> Any:
        """Write one node, and return its value, or its values."""
        target: Any = node.target
        if target is operator.getitem:
            return values[node.args[0]][node.args[1]]  # type: ignore[index]
        if target in OF_SIZES:
            parts = [values[one] if isinstance(one, fx.Node) else graph.constant([one]) for one in node.args]
            return graph.node(OF_SIZES[target], *parts)
        if str(target) == "wrap_with_autocast":  # what is computed in full precision, as all is here
            inner, *inputs = cast("tuple[fx.Node, ...]", node.args[4:])
            part = cast(fx.GraphModule, module.get_submodule(str(inner.target)))
            names = [one.name for one in part.graph.nodes if one.op == "placeholder"]
            given = dict(zip(names, (values[one] for one in inputs), strict=True))
            return self._write(graph, part, given, range(len(_returned(part))))
        if not hasattr(target, "_schema"):
            raise EngineError(f"onnx has no form for {target}")
        call = Call(graph, node, values)
        if call.name not in OPERATORS:
            raise EngineError(f"onnx has no form here for the operator {target}")
        return OPERATORS[call.name](call)

    def _weight(self, name: str) -> Tensor:
        signature = self._program.graph_signature
        if name in signature.inputs_to_parameters:
            return cast(Tensor, self._program.state_dict[signature.inputs_to_parameters[name]])
        if name in signature.inputs_to_buffers:
            target = signature.inputs_to_buffers[name]
            found = self._program.state_dict.get(target)
            return cast(Tensor, self._program.constants[target] if found is None else found)
        return cast(Tensor, self._program.constants[signature.inputs_to_lifted_tensor_constants[name]])


def _returned(module: fx.GraphModule) -> Sequence[fx.Node]:
    returned: Any = module.graph.output_node().args[0]
    return returned if isinstance(returned, tuple | list) else (returned,)


def _needed(module: fx.GraphModule, outputs: Sequence[int]) -> list[fx.Node]:
    """Return the nodes that some outputs are computed from, in order."""
    returned, found = _returned(module), set[fx.Node]()
    open_nodes = [returned[place] for place in outputs]
    while open_nodes:
        node = open_nodes.pop()
        if node not in found:
            found.add(node)
            open_nodes += node.all_input_nodes
    return [node for node in module.graph.nodes if node in found]
