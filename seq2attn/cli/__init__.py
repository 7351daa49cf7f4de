"""The command line: each command calls the function of its name. Heavy imports wait for their command."""

from seq2attn.cli import heatmap, score, show, tag, train, translate
from seq2attn.cli.options import cli

__all__ = ["cli", "heatmap", "score", "show", "tag", "train", "translate"]
