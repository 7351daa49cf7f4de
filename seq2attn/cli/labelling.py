"""Commands that label: tag, classify."""

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click

from seq2attn.cli.group import CHECKPOINT, DEVICE, RUN, cli
from seq2attn.cli.using import FILES, lines


@cli.command()
@RUN
@FILES
@click.option(
    "--format",
    "form",
    type=click.Choice(["spans", "conll", "json"]),
    default="spans",
    show_default=True,
    help="spans: an entity a line; conll: a word and its tag a line; json: all of a line.",
)
@click.option("--words", is_flag=True, help="Lines are words already, with white space between.")
@CHECKPOINT
@DEVICE
def tag(run: Path, files: tuple[Path, ...], form: str, words: bool, checkpoint: str, device: str) -> None:
    """Find the entities in FILES, or in standard input, line by line.

    Of each entity it prints, with tabs between: the number of its line (from 1), its first character and the
    one behind its last (from 0), its type, its probability, and its text.

    \b
    echo "Angela Merkel was born in Hamburg." | seq2attn tag runs/conll2003_pooling
    seq2attn tag runs/conll2003_pooling news.txt --format json > entities.jsonl
    """
    from seq2attn.tasks import load_for

    recognizer = load_for("tag", run, checkpoint, device)
    recognizer.words = "spaces" if words else recognizer.words
    for some, first in _chunks(lines(files), not files):
        for number, found in enumerate(recognizer.tag(some, weights=False), first):
            if form == "json":
                click.echo(json.dumps(found.to_json(), ensure_ascii=False))
            elif form == "conll":
                click.echo(found.conll(), nl=False)
            else:
                for one in found.entities:
                    cells = number, one.start, one.end, one.type, f"{one.probability:.3f}", one.text
                    click.echo("\t".join(map(str, cells)))


@cli.command()
@RUN
@FILES
@click.option("--json", "form", is_flag=True, help="Print JSON, with the probability of each label.")
@CHECKPOINT
@DEVICE
def classify(run: Path, files: tuple[Path, ...], form: bool, checkpoint: str, device: str) -> None:
    """Label each line of FILES, or of standard input: its label, a tab, its probability.

    \b
    echo "Where is the station?" | seq2attn classify runs/languages
    """
    from seq2attn.tasks import load_for

    categorizer = load_for("classify", run, checkpoint, device)
    for some, _ in _chunks(lines(files), not files):
        for found in categorizer.classify(some, weights=False):
            plain = f"{found.label}\t{found.probability:.3f}"
            click.echo(json.dumps(found.to_json(), ensure_ascii=False) if form else plain)


def _chunks(texts: Iterator[str], from_input: bool) -> Iterator[tuple[list[str], int]]:
    """Lines, some at a time, and the number of the first; a line at a time where somebody types them."""
    from seq2attn.recognizer import CHUNK

    size, first = 1 if from_input and sys.stdin.isatty() else CHUNK, 1
    while some := list(islice(texts, size)):
        yield some, first
        first += len(some)
