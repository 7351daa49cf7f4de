"""Commands that label: tag, classify."""

import json
import sys
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from seq2attn.cli.inputs import FILES, lines
from seq2attn.cli.options import CHECKPOINT, DEVICE, RUN, cli, formats

if TYPE_CHECKING:
    from seq2attn.inference.recognizer import Recognizer

Item = TypeVar("Item")


@cli.command()
@RUN
@FILES
@formats("text: an entity a line; conll: a word and its tag a line; json: all of a line.", "conll", "json")
@click.option("--words", is_flag=True, help="Lines are words already, with white space between.")
@click.option(
    "--conll",
    is_flag=True,
    help="FILES are CoNLL, words in the first column: print their lines with one more column, the tag (bio).",
)
@CHECKPOINT
@DEVICE
def tag(
    run: Path, files: tuple[Path, ...], form: str, words: bool, conll: bool, checkpoint: str, device: str
) -> None:
    """Find the entities in FILES, or in standard input, line by line.

    Of each entity it prints, with tabs between: the number of its line (from 1; of several files also which,
    as in news.txt:3), its first character and the one behind its last (from 0), its type, its probability,
    and its text.

    \b
    echo "Angela Merkel was born in Hamburg." | seq2attn tag runs/conll2003_pooling
    seq2attn tag runs/conll2003_pooling news.txt --format json > entities.jsonl
    seq2attn tag runs/conll2003_pooling eng.testb --conll > tagged.conll
    """
    if conll and (words or form == "json"):
        raise click.UsageError(
            "--conll says what is read and what is printed: leave --words and --format out"
        )
    from seq2attn.tasks.loading import load_for

    recognizer = load_for("tag", run, checkpoint, device)
    if conll:
        _tag_again(recognizer, files)
        return
    for some in _chunks(_numbered(files), not files):
        read = [recognizer.read(text, "spaces" if words else None) for _, text in some]
        for (number, _), found in zip(some, recognizer.label(read, weights=False), strict=True):
            if form == "json":
                click.echo(json.dumps(found.to_json(), ensure_ascii=False))
            elif form == "conll":
                click.echo(found.conll(), nl=False)
            else:
                for one in found.entities:
                    text = " ".join(one.text.split())  # a tab would be another column
                    cells = number, one.start, one.end, one.type, f"{one.probability:.3f}", text
                    click.echo("\t".join(map(str, cells)))


def _tag_again(recognizer: "Recognizer", files: tuple[Path, ...]) -> None:
    """The lines of CoNLL files with a tag behind each, after what parts their columns."""
    from seq2attn.metrics.entities import parted

    for some in _chunks(_sentences(files), not files):
        words = [[parted(line)[0] for line in sentence] for sentence in some]
        for sentence, found in zip(some, recognizer.tag(words, weights=False), strict=True):
            for line, one in zip(sentence, found.tags, strict=True):
                click.echo(line.rstrip(" \t") + ("\t" if "\t" in line else " ") + one)
            click.echo()


@cli.command()
@RUN
@FILES
@formats("text; json: all of a line, with the probability of each label.", "json")
@CHECKPOINT
@DEVICE
def classify(run: Path, files: tuple[Path, ...], form: str, checkpoint: str, device: str) -> None:
    """Label each line of FILES, or of standard input: its label, a tab, its probability.

    An empty line is labelled, too, from no words: what comes out has a line for each that came in.

    \b
    echo "Where is the station?" | seq2attn classify runs/languages
    """
    from seq2attn.tasks.loading import load_for

    categorizer = load_for("classify", run, checkpoint, device)
    for some in _chunks(lines(files), not files):
        for found in categorizer.classify(some, weights=False):
            plain = f"{found.label}\t{found.probability:.3f}"
            click.echo(json.dumps(found.to_json(), ensure_ascii=False) if form == "json" else plain)


def _numbered(files: tuple[Path, ...]) -> Iterator[tuple[str, str]]:
    """Lines, each after its number in its file; of several files also after which."""
    for file in files or (Path("-"),):
        which = f"{file}:" if len(files) > 1 else ""
        for number, line in enumerate(lines((file,)), 1):
            yield f"{which}{number}", line


def _sentences(files: tuple[Path, ...]) -> Iterator[list[str]]:
    """The lines of each sentence of CoNLL files; a blank one, or the end of the file, ends it."""
    for file in files or (Path("-"),):
        sentence: list[str] = []
        for line in chain(lines((file,)), [""]):
            if line.strip():
                sentence.append(line)
            elif sentence:
                yield sentence
                sentence = []


def _chunks(items: Iterator[Item], from_input: bool) -> Iterator[list[Item]]:
    """Some at a time; one at a time where somebody types them."""
    from seq2attn.inference.recognizer import CHUNK

    size = 1 if from_input and sys.stdin.isatty() else CHUNK
    while some := list(islice(items, size)):
        yield some
