"""An operator of a traced program, as those who write it as ONNX see it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from seq2attn.inference.engines.onnx_graph import OnnxGraph, Value


class Call:
    """An operator with its arguments, by their names in torch.

    Numbers that depend on the shapes of inputs are values of one number, (1,) and int64.
    """

    def __init__(self, graph: OnnxGraph, node: fx.Node, values: Mapping[fx.Node, Any]) -> None:
        self.graph, self.node, self._values = graph, node, values
        schema = node.target._schema  # type: ignore[union-attr]
        self.name: str = schema.name.removeprefix("aten::")
        self._given = {one.name: one.default_value for one in schema.arguments if one.has_default_value()}
        self._given |= {one.name: given for one, given in zip(schema.arguments, node.args, strict=False)}
        self._given |= node.kwargs

    @property
    def made(self) -> Tensor:
        """The (fake) tensor that the operator returns; the first one, if there are several."""
        made: Any = self.node.meta["val"]
        return made[0] if isinstance(made, tuple | list) else made  # type: ignore[no-any-return]

    def __getitem__(self, name: str) -> Any:
        """Return an argument that is no tensor; None if it is not given."""
        return self._given.get(name)

    def like(self, name: str) -> Tensor:
        """Return a (fake) tensor of the shape and the type of an argument."""
        given = self._given[name]
        made: Tensor = given.meta["val"] if isinstance(given, fx.Node) else torch.tensor(given, device="cpu")
        return made

    def axis(self, name: str, of: str = "self", added: int = 0) -> int:
        """Return an argument that is an axis of a tensor, counted from 0; added: axes that it gets."""
        axis: int = self._given[name]
        return axis % (self.like(of).dim() + added)

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> Value:
        """Return the value of an argument that is a tensor or a number, in this type; None: in its own."""
        return self.value(self._given[name], dtype)

    def value(self, given: Any, dtype: torch.dtype | None = None) -> Value:
        """Return the value of a tensor or number, in this type; None: in its own."""
        if not isinstance(given, fx.Node):
            return self.graph.constant(given, dtype or torch.get_default_dtype())
        own = given.meta["val"]
        own_dtype = own.dtype if isinstance(own, Tensor) else torch.int64
        value: Value = self._values[given]
        return value if dtype in (None, own_dtype) else self.graph.cast(value, dtype or own_dtype)

    def sizes(self, given: Sequence[Any]) -> Value:
        """Return numbers, of which some may depend on shapes, as one value (n,)."""
        if all(isinstance(size, int) for size in given):
            return self.graph.constant(list(given))
        parts = [
            self._values[one] if isinstance(one, fx.Node) else self.graph.constant([one]) for one in given
        ]
        return parts[0] if len(parts) == 1 else self.graph.node("Concat", *parts, attributes={"axis": 0})

    def size(self, given: Any) -> Value:
        """Return a number, which may depend on shapes, as a value (1,)."""
        return self.sizes([given])


Write = Callable[[Call], Any]  # writes an operator, and returns its value, or a list of its values
