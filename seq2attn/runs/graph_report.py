"""What the rows of a graph are like: shapes, parameters and multiply-adds, found without computing."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from seq2attn.errors import Seq2attnError
from seq2attn.models.vision.factory import build_graph
from seq2attn.recipe import AnyRecipe, Section
from seq2attn.recipe.graph import GraphRecipe

SIDES = (640, 640)  # height and width of an image, where nothing else is said


class RowReport(NamedTuple):
    """A row: its name, module and the rows that it reads; shape of its features; its cost for one image."""

    name: str
    module: str
    reads: tuple[str, ...]  # the image: none
    channels: int
    height: int
    width: int
    parameters: int
    multiply_adds: int  # of convolutions and matrix products
    output: bool

    def to_json(self) -> dict[str, Any]:
        """Return the row as values by name."""
        return {**self._asdict(), "reads": list(self.reads)}


def graph_of(recipe: AnyRecipe) -> GraphRecipe:
    """Return the graph of a recipe. Seq2attnError if its network is none."""
    graph = _graph_in(recipe.model)
    if graph is None:
        raise Seq2attnError(
            f"the network of {recipe.name} is not written as a graph: expected a backbone with kind: graph"
        )
    return graph


def _graph_in(section: Any) -> GraphRecipe | None:
    if isinstance(section, GraphRecipe) or not isinstance(section, Section):
        return section if isinstance(section, GraphRecipe) else None
    inner = (_graph_in(getattr(section, key)) for key in type(section).model_fields)
    return next((graph for graph in inner if graph is not None), None)


def describe(graph: GraphRecipe, channels: int, height: int, width: int) -> list[RowReport]:
    """Return all rows of a graph, for an image of this many channels and pixels. Nothing is computed: the
    network is on the meta device."""
    with torch.device("meta"):
        network = build_graph(graph, channels).eval()
        image = torch.empty(1, channels, height, width, device="meta")
    modules = {node.name: "" if node.module is None else node.module.name for node in graph.plan().nodes}
    reports, rows = list[RowReport](), network.each(image)
    for name, module in network.rows.items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            states = next(rows)[1].states
        reports.append(
            RowReport(
                name,
                modules[name],
                tuple(source for source in network.sources[name] if source),
                states.shape[1],
                states.shape[2],
                states.shape[3],
                sum(parameter.numel() for parameter in module.parameters()),
                counter.get_total_flops() // 2,
                name in network.outputs,
            )
        )
    return reports


def lines(reports: Sequence[RowReport], total: str = "total") -> list[str]:
    """Return a table of rows with their totals; a star stands at outputs. total: the name of that line."""
    cells = [("row", "module", "reads", "channels", "grid", "parameters", "multiply-adds")]
    for before, row in zip([None, *reports], reports, strict=False):
        last = () if before is None else (before.name,)
        cells.append(
            (
                row.name + "*" * row.output,
                row.module,
                "" if row.reads == last else ", ".join(row.reads),
                f"{row.channels:,}",
                f"{row.height}x{row.width}",
                f"{row.parameters:,}",
                f"{row.multiply_adds:,}",
            )
        )
    totals = (sum(row.parameters for row in reports), sum(row.multiply_adds for row in reports))
    cells.append((total, "", "", "", "", f"{totals[0]:,}", f"{totals[1]:,}"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number < 3 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
