"""Plans of networks that are written as a graph: which row reads which, after all edits, and their shapes.

A plan is made of rows as they are written, and notes every fault. What is wrong in one row does not hide what
is wrong in another: a row that cannot be made has no shape, and rows that read it are not judged.
"""

import contextlib
import math
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from seq2attn.attention.blocks import BLOCKS
from seq2attn.attention.blocks.block import keeping_channels
from seq2attn.errors import Seq2attnError
from seq2attn.layers.convolution import Blocks
from seq2attn.layers.graph_modules import MODULES, RowBlock, RowModule, Shape, Style
from seq2attn.recipe.sections import Fault, Part
from seq2attn.recipe.seq2seq_model import TOO_LARGE
from seq2attn.recipe.wording import unknown

# What the module of a row may be: those of graphs, and every attention block.
ROW_MODULES: Mapping[str, type] = ChainMap(BLOCKS, MODULES)
CHANNELS = 3  # of images, where a plan only looks for faults
_TAKEN = nn.ModuleDict()  # has the names that no row can have


class WrittenRow(NamedTuple):
    """A row as it is written."""

    name: str | None
    module: Part | None  # None: it has faults
    reads: Sequence[int | str]  # names, or -1
    path: str  # of its section; empty: in a graph that ships


class WrittenEdit(NamedTuple):
    """A row to be put behind or before another."""

    row: WrittenRow
    after: str | None
    before: str | None


class WrittenReplacement(NamedTuple):
    """A module to be put in the place of rows."""

    rows: Sequence[str]
    module: Part
    path: str


class Written(NamedTuple):
    """A graph as it is written: rows of its own, or edits of another."""

    rows: Sequence[WrittenRow] = ()
    replaced: Sequence[WrittenReplacement] = ()
    inserted: Sequence[WrittenEdit] = ()
    outputs: Sequence[str] = ()

    def wired(self, base: "Plan | None" = None) -> "Plan":
        """Return the plan of rows after all edits, without shapes."""
        plan = base or Plan()
        plan.write(self.rows)
        if base is None:
            plan.outputs = plan.nodes[-1:]
        for edit in self.replaced:
            plan.replace(edit.rows, edit.module, edit.path)
        if self.outputs:
            plan.choose(self.outputs, "outputs")
        plan.insert(self.inserted)
        return plan


class Scale(NamedTuple):
    """What multiplies the repeats and the sizes of rows."""

    depth: float = 1.0
    width: float = 1.0
    divisor: int = 1  # of sizes, which are rounded up

    def options(self, module: type[RowModule], options: dict[str, Any]) -> dict[str, Any]:
        """Return the options of a row as its module is made with."""
        scaled = {key: options[key] for key in module.scaled if options.get(key) is not None}
        if "size" in scaled:  # rounded first: 0.1875 x 1024 must not become 193 by the last bit
            size = round(scaled["size"] * self.width, 6)
            scaled["size"] = max(1, math.ceil(size / self.divisor)) * self.divisor
        if scaled.get("repeat", 1) > 1:
            scaled["repeat"] = max(1, round(scaled["repeat"] * self.depth))
        return {**options, **scaled}


@dataclass(eq=False)
class Node:
    """A row of a plan. `reads` has None for what could not be found."""

    name: str
    module: Part | None
    reads: list["Node | None"]
    path: str = ""
    shape: Shape | None = None

    @property
    def known_shape(self) -> Shape:
        """Return the shape. Seq2attnError if a fault has hidden it."""
        if self.shape is None:
            raise Seq2attnError(f"row {self.name} has no shape: see the faults of its graph")
        return self.shape

    def make(self, inputs: Sequence[Shape], scale: Scale, style: "PlannedStyle") -> RowModule:
        """Return the module. Seq2attnError if it cannot read what it should."""
        if self.module is None:
            raise Seq2attnError(f"row {self.name} has faults")
        if self.module.name in BLOCKS:
            return RowBlock(inputs, self.module.make(BLOCKS, inputs[0].channels), self.name)
        kind = MODULES[self.module.name]
        return kind(inputs, style.of(self), **scale.options(kind, self.module.options))


class PlannedStyle(NamedTuple):
    """The norm of all rows, and the blocks inside the bottlenecks of rows by their module."""

    norm: str
    inside: Mapping[str, Sequence[Part]]

    def of(self, node: Node) -> Style:
        """Return the style of a row."""
        parts = self.inside.get("" if node.module is None else node.module.name, ())

        def inside(channels: int) -> Blocks:
            blocks = [keeping_channels(part.make(BLOCKS, channels)) for part in parts]
            return Blocks(blocks, f"row {node.name}, inside")

        return Style(self.norm, inside)


IMAGE = Node("", None, [], shape=Shape(CHANNELS, 1))  # is read by the first row


@dataclass(eq=False)
class Plan:
    """The rows of a graph in their order, those that it returns, and its faults."""

    nodes: list[Node] = field(default_factory=list)
    outputs: list[Node] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    lost: bool = False  # whether a row that is read, or an output, could not be found

    def fault(self, path: str, message: str) -> None:
        """Note a fault."""
        self.faults.append(Fault(path, message))

    # ---- rows ---------------------------------------------------------------------------------------

    def write(self, rows: Sequence[WrittenRow]) -> None:
        """Add rows, in their order."""
        below = {row.name for row in rows if row.name is not None}
        last, named = IMAGE, ""
        for row in rows:
            reads = [self._read(row, reference, last, below) for reference in row.reads]
            name = self._name(row, named, below)
            node = Node(name, row.module, reads, row.path)
            self.nodes.append(node)
            last, named = node, row.name or named

    def _name(self, row: WrittenRow, after: str, others: set[str]) -> str:
        """Return the name of a row; without one of its own, it is called after the row above that has one.
        Empty if its module is not known."""
        if row.name is None:
            kind = "" if row.module is None else row.module.name
            return self._free(f"{after}_{kind}" if after else kind, others) if kind else ""
        if hasattr(_TAKEN, row.name):
            self.fault(
                f"{row.path}.name", f"no row can be called {row.name}, a name of PyTorch: take another"
            )
        elif any(node.name == row.name for node in self.nodes):
            self.fault(f"{row.path}.name", f"another row is called {row.name}, too: names must differ")
        return row.name

    def _free(self, name: str, others: set[str]) -> str:
        used = {node.name for node in self.nodes} | others
        numbers = (f"{name}_{number}" for number in range(2, len(used) + 3))
        return next(free for free in (name, *numbers) if free not in used)

    def _read(self, row: WrittenRow, reference: int | str, last: Node, below: set[str]) -> Node | None:
        """Return the row that a reference means."""
        if reference == -1:
            return last
        found = next((node for node in self.nodes if node.name == reference), None)
        if found is None and reference in below:
            self.fault(f"{row.path}.from", f"row {reference} stands below: a row reads rows above it")
        elif found is None:
            self.fault(f"{row.path}.from", self._unknown(str(reference)))
        self.lost |= found is None
        return found

    def _unknown(self, name: str) -> str:
        return unknown(name, [node.name for node in self.nodes if node.name], "row ")

    def _find(self, name: str, path: str) -> Node | None:
        found = next((node for node in self.nodes if node.name == name), None)
        if found is None:
            self.fault(path, self._unknown(name))
            self.lost = True
        return found

    # ---- edits --------------------------------------------------------------------------------------

    def replace(self, names: Sequence[str], module: Part, path: str) -> None:
        """Put another module in the place of rows, which keep their names and what they read."""
        for number, name in enumerate(names):
            if (node := self._find(name, f"{path}.rows.{number}")) is not None:
                node.module, node.path = module, path

    def insert(self, edits: Sequence[WrittenEdit]) -> None:
        """Put rows between others. All that read a row, by name or as the row before, read what is inserted
        after it; a second one stands behind the first."""
        ends: dict[str, Node] = {}
        for edit in edits:
            key = "after" if edit.after is not None else "before"
            there = self._find(edit.after or edit.before or "", f"{edit.row.path}.{key}")
            if there is None:
                continue
            kind = "" if edit.row.module is None else edit.row.module.name
            default = f"{there.name}_{kind}" if key == "after" else f"{kind}_{there.name}"
            name = self._name(edit.row, "", set()) if edit.row.name else self._free(default, set())
            node = Node(name, edit.row.module, [], edit.row.path)
            if key == "after":
                end = ends.get(there.name, there)
                for other in self.nodes:
                    other.reads = [node if read is end else read for read in other.reads]
                self.outputs = [node if output is end else output for output in self.outputs]
                node.reads, ends[there.name] = [end], node
                self.nodes.insert(self.nodes.index(end) + 1, node)
            elif len(there.reads) == 1:
                node.reads, there.reads = there.reads, [node]
                self.nodes.insert(self.nodes.index(there), node)
            else:
                self.fault(
                    f"{edit.row.path}.before", f"row {there.name} reads several: insert after one of them"
                )

    def choose(self, outputs: Sequence[str], path: str) -> None:
        """Let rows be those that the network returns."""
        found = [self._find(name, f"{path}.{number}") for number, name in enumerate(outputs)]
        self.outputs = [node for node in found if node is not None]

    def finish(self, scale: Scale, style: PlannedStyle) -> None:
        """Find the shapes of all rows, and leave out those that nothing reads."""
        self._measure(scale, style)
        self._prune()

    def _prune(self) -> None:
        """Leave out what nothing reads: rows of a graph that ships silently, others with a fault. If a row
        that is read could not be found, it may be any of them."""
        if self.lost:
            return
        needed, waiting = set[Node](), list(self.outputs)
        while waiting:
            node = waiting.pop()
            if node not in needed:
                needed.add(node)
                waiting += [read for read in node.reads if read is not None and read is not IMAGE]
        for node in self.nodes:
            if node not in needed and node.path:
                self.fault(node.path, f"nothing that leads to outputs reads row {node.name}")
        self.nodes = [node for node in self.nodes if node in needed]

    # ---- shapes -------------------------------------------------------------------------------------

    def _measure(self, scale: Scale, style: PlannedStyle) -> None:
        """Find the shape of each row, and what does not fit, by making it without memory."""
        for node in self.nodes:
            if node.module is None:
                continue
            least, most = reads_of(node.module)
            count, kind = len(node.reads), node.module.name
            if count < least or (most is not None and count > most):
                several = f"{least} rows" if least == most else f"at least {least} rows"
                wanted = f"{several}: from: [-1, NAME]" if least > 1 else "one row: concat joins several"
                self.fault(
                    f"{node.path}.from".lstrip("."), f"{kind} reads {wanted}; got {count} in row {node.name}"
                )
                continue
            shapes = [None if read is None else read.shape for read in node.reads]
            inputs = [shape for shape in shapes if shape is not None]
            if len(inputs) < len(shapes):
                continue
            try:  # only the constructors know what fits
                with torch.device("meta"), contextlib.suppress(*TOO_LARGE):
                    node.shape = node.make(inputs, scale, style).shape
            except Seq2attnError as error:
                read = ", ".join(_shown(node) for node in node.reads if node is not None)
                self.fault(f"{node.path}.module".lstrip("."), f"row {node.name}: {error} (it reads {read})")
        strides = [node.shape.stride for node in self.outputs if node.shape is not None]
        if strides != sorted(strides):
            names = ", ".join(f"{node.name} 1/{node.shape.stride}" for node in self.outputs if node.shape)
            self.fault("outputs", f"go from fine to coarse: these are {names} of the image's size")


def reads_of(module: Part) -> tuple[int, int | None]:
    """Return the least and the largest number of rows that a module reads; None: any."""
    kind = MODULES.get(module.name)
    return (1, 1) if kind is None else kind.reads


def _shown(node: Node) -> str:
    if node.shape is None:
        return node.name
    name = "the image" if node is IMAGE else node.name
    return f"{name}: {node.shape.channels} channels, 1/{node.shape.stride} of the size"
