"""The viewer: results and their attention as one HTML file that needs no network."""

from seq2attn.views.viewer.document import (
    Entry,
    Group,
    Item,
    Layer,
    MapOfImage,
    Output,
    Picture,
    Side,
    Step,
    TreeNode,
)
from seq2attn.views.viewer.packing import ViewError
from seq2attn.views.viewer.page import Page

__all__ = [
    "Entry",
    "Group",
    "Item",
    "Layer",
    "MapOfImage",
    "Output",
    "Page",
    "Picture",
    "Side",
    "Step",
    "TreeNode",
    "ViewError",
]
