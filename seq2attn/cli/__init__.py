"""The command line. Commands import torch and other large libraries only when they run, so help is quick."""

from seq2attn.cli import (
    align,
    bench,
    caption,
    detect,
    export,
    generate,
    graph,
    heatmap,
    score,
    segment,
    show,
    tag,
    train,
    translate,
    view,
)
from seq2attn.cli.options import cli

__all__ = [
    "align",
    "bench",
    "caption",
    "cli",
    "detect",
    "export",
    "generate",
    "graph",
    "heatmap",
    "score",
    "segment",
    "show",
    "tag",
    "train",
    "translate",
    "view",
]
