"""Networks that are written as graphs, made small."""

from typing import Any

import torch

from seq2attn.models.vision.factory import build_backbone
from seq2attn.models.vision.graph import GraphNetwork
from seq2attn.recipe.graph import GraphRecipe

ROWS: list[dict[str, Any]] = [  # of the form of YOLOv5: down to 1/8 of the size and up again
    {"name": "stem", "module": "conv", "size": 8, "kernel": 6, "stride": 2},
    {"name": "p2", "module": "conv", "size": 16, "stride": 2},
    {"name": "c2", "module": "c3", "size": 16, "repeat": 2},
    {"name": "p3", "module": "conv", "size": 24, "stride": 2},
    {"name": "c3", "module": "c2f", "size": 24},
    {"name": "sppf", "module": "sppf", "size": 24},
    {"name": "up", "module": "upsample"},
    {"name": "join", "module": "concat", "from": [-1, "c2"]},
    {"name": "n2", "module": "c3", "size": 16, "shortcut": False},
    {"name": "down", "module": "conv", "size": 24, "stride": 2},
    {"name": "n3", "module": "shortcut", "from": [-1, "c2"]},
]


def graph(**keys: Any) -> GraphRecipe:
    """Return the recipe of a graph: these rows, unless others or a base are given."""
    own = {} if {"rows", "base"} & keys.keys() else {"rows": ROWS, "outputs": ["n2", "n3"]}
    return GraphRecipe.model_validate({"kind": "graph", **own, **keys})


def network(**keys: Any) -> GraphNetwork:
    """Return the network of such a recipe, in evaluation."""
    torch.manual_seed(5)
    built = build_backbone(graph(**keys), 3)
    if not isinstance(built, GraphNetwork):
        raise TypeError(f"expected a graph, got {built!r:.60}")
    return built.eval()
