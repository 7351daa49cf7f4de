"""An ONNX graph that is written node by node.

Values of a graph are known by their names (str). Where an operator takes numbers, they are written as
constants.
"""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2attn.inference.engines.engine import EngineError

OPSET, IR_VERSION = 18, 10
Value = str  # the name of a tensor in a graph


def import_onnx() -> Any:
    """Return the module onnx. EngineError if it or onnxruntime is not installed."""
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise EngineError(
            "the engine onnx needs the packages onnx and onnxruntime: pip install 'seq2attn[onnx]'"
        ) from error
    return onnx


class Attributes(TypedDict, total=False):
    """The attributes of operators, with their names in ONNX."""

    axis: int
    direction: str
    end: int
    epsilon: float
    equation: str
    group: int
    hidden_size: int
    keepdims: int
    largest: int
    linear_before_reset: int
    num_outputs: int
    pads: list[int]
    perm: list[int]
    start: int
    to: int


class OnnxGraph:
    """A graph that grows: `node` adds an operator, `constant` a tensor."""

    def __init__(self) -> None:
        self._onnx = import_onnx()
        self._nodes: list[Any] = []
        self._tensors: dict[Value, NDArray[Any]] = {}
        self._constants: dict[tuple[Any, ...], Value] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, dtype: torch.dtype, shape: Sequence[str | int | None]) -> Value:
        """Add an input; the sizes of its axes are numbers, or names of sizes that vary; None: any."""
        self._inputs.append(self._described(name, dtype, shape))
        return name

    def output(self, name: str, value: Value, dtype: torch.dtype, shape: Sequence[str | int | None]) -> None:
        """Let a value be an output of this name."""
        self._nodes.append(self._onnx.helper.make_node("Identity", [value], [name]))
        self._outputs.append(self._described(name, dtype, shape))

    def node(self, operator: str, *inputs: Value, attributes: Attributes | None = None) -> Value:
        """Add an operator with one output, and return that."""
        return self.nodes(operator, 1, *inputs, attributes=attributes)[0]

    def nodes(
        self, operator: str, count: int, *inputs: Value, attributes: Attributes | None = None
    ) -> list[Value]:
        """Add an operator with some outputs, and return these."""
        names = [f"v{len(self._nodes)}_{place}" for place in range(count)]
        self._nodes.append(self._onnx.helper.make_node(operator, list(inputs), names, **(attributes or {})))
        return names

    def weight(self, tensor: Tensor) -> Value:
        """Add a tensor of the model."""
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        return self._tensor(f"w{len(self._tensors)}", array)

    def constant(self, value: Any, dtype: torch.dtype = torch.int64) -> Value:
        """Return a number, or a list of numbers, as a tensor; the same one for the same number."""
        array = torch.tensor(value, dtype=dtype, device="cpu").numpy()
        key = array.tobytes(), str(array.dtype), array.shape
        if key not in self._constants:
            self._constants[key] = self._tensor(f"c{len(self._tensors)}", array)
        return self._constants[key]

    def transposed(self, value: Value) -> Value:
        """Return a matrix transposed. One that is stored is stored so, as quantization expects it."""
        if value in self._tensors:
            return self._tensor(f"{value}_transposed", np.ascontiguousarray(self._tensors[value].T))
        return self.node("Transpose", value, attributes={"perm": [1, 0]})

    def cast(self, value: Value, dtype: torch.dtype) -> Value:
        """Return a value in another type."""
        return self.node("Cast", value, attributes={"to": self._type(dtype)})

    def model(self, name: str) -> Any:
        """Return the finished model, as onnx has it."""
        helper = self._onnx.helper
        used = {value for node in self._nodes for value in node.input}
        tensors = [
            self._onnx.numpy_helper.from_array(array, value)
            for value, array in self._tensors.items()
            if value in used
        ]
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, tensors)
        opsets = [helper.make_opsetid("", OPSET)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="seq2attn")
        self._onnx.checker.check_model(made)
        return made

    def _tensor(self, name: str, array: NDArray[Any]) -> Value:
        self._tensors[name] = array
        return name

    def _described(self, name: str, dtype: torch.dtype, shape: Sequence[str | int | None]) -> Any:
        return self._onnx.helper.make_tensor_value_info(name, self._type(dtype), list(shape))

    def _type(self, dtype: torch.dtype) -> int:
        numpy_type = torch.empty(0, dtype=dtype, device="cpu").numpy().dtype
        found: int = self._onnx.helper.np_dtype_to_tensor_dtype(numpy_type)
        return found
