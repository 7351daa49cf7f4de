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
    hub,
    imports,
    score,
    segment,
    serve,
    show,
    tag,
    train,
    translate,
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
    "hub",
    "imports",
    "score",
    "segment",
    "serve",
    "show",
    "tag",
    "train",
    "translate",
]
