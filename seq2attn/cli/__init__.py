"""The command line. Commands import torch and other large libraries only when they run, so help is quick."""

from seq2attn.cli import bench, caption, export, heatmap, score, show, tag, train, translate
from seq2attn.cli.options import cli

__all__ = ["bench", "caption", "cli", "export", "heatmap", "score", "show", "tag", "train", "translate"]
