"""The command line: each command calls the function of its name. Heavy imports wait for their command."""

from seq2attn.cli import labelling, listing, making, scoring, using
from seq2attn.cli.group import cli

__all__ = ["cli", "labelling", "listing", "making", "scoring", "using"]
