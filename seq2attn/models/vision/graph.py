"""A network of images that is written as a graph: rows with names, each of which reads rows above it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from seq2attn.layers.convolution import strided
from seq2attn.layers.graph_modules import RowModule
from seq2attn.models.vision.backbone import Backbone, Features

IMAGE = ""  # the name by which rows read the image


class GraphRow(NamedTuple):
    """A row of a network: its name, its module, and the names of the rows that it reads, all above it."""

    name: str
    module: RowModule
    sources: tuple[str, ...]


class GraphNetwork(Backbone):
    """A network of rows. The tensors of a row are named after it (`rows.c5. ...`), so that weights fit by
    name, whatever stands between the rows.

    outputs: the names of the rows that are returned, from fine to coarse.
    """

    def __init__(self, rows: Sequence[GraphRow], outputs: Sequence[str]) -> None:
        super().__init__()
        self.rows = nn.ModuleDict({row.name: row.module for row in rows})
        self.sources = {row.name: row.sources for row in rows}
        self.outputs = list(outputs)
        self.shapes = {row.name: row.module.shape for row in rows}
        self.sizes = [self.shapes[name].channels for name in outputs]
        self.strides = [self.shapes[name].stride for name in outputs]

    def forward(self, images: Tensor, mask: Tensor | None = None) -> list[Features]:
        """See the base class: the features of the outputs. Images may have any size."""
        made = dict(self.each(images, mask))
        return [made[name] for name in self.outputs]

    def each(self, images: Tensor, mask: Tensor | None = None) -> Iterator[tuple[str, Features]]:
        """Yield the name and the features of each row, in their order."""
        height, width = images.shape[2:]
        made, masks = {IMAGE: images}, dict[int, Tensor | None]()
        for name, module in self.rows.items():
            stride = self.shapes[name].stride
            if stride not in masks:
                masks[stride] = None if mask is None else strided(mask, stride)
            grid = -(-height // stride), -(-width // stride)
            inputs = [made[source] for source in self.sources[name]]
            made[name] = module(inputs, grid, masks[stride])
            yield name, Features(made[name], masks[stride])
