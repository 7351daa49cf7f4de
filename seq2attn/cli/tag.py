"""The commands that label: `tag` and `classify`."""

import json
from collections.abc import Iterator
from itertools import chain, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from seq2attn.cli.inputs import FILES, Pipe, chunks, lines
from seq2attn.cli.options import CHECKPOINT, DEVICE, RUN, cli, formats
from seq2attn.cli.sharing import PROCESSES, print_lines

if TYPE_CHECKING:
    from seq2attn.inference.recognizer import Recognizer


@cli.command()
@RUN
@FILES
@formats(
    "text: one entity a line; conll: a word and its tag a line; json: one object for each input line.",
    "conll",
    "json",
)
@click.option("--words", is_flag=True, help="The input is tokenized: words separated by white space.")
@click.option(
    "--conll",
    is_flag=True,
    help="FILES are CoNLL, words in the first column. Print their lines with the tag (bio) as last "
    "column; blank lines, comments and -DOCSTART- stay as they are.",
)
@CHECKPOINT
@DEVICE
@PROCESSES
def tag(
    run: Path, files: tuple[Path, ...], form: str, words: bool, conll: bool, checkpoint: str, device: str
) -> None:
    """Find the named entities in FILES, or in standard input.

    Prints for each entity, separated by tabs: its line (from 1; with several files as news.txt:3), its start
    and end in characters (from 0, end exclusive), its type, its probability and its text.

    \b
    echo "Angela Merkel was born in Hamburg." | seq2attn tag runs/conll2003_pooling
    seq2attn tag runs/conll2003_pooling news.txt --format json > entities.jsonl
    seq2attn tag runs/conll2003_pooling eng.testb --conll > tagged.conll
    """
    if conll and (words or form == "json"):
        raise click.UsageError("--conll defines input and output: leave out --words and --format")
    from seq2attn.inference.recognizer import CHUNK
    from seq2attn.tasks.loading import load_for
    from seq2attn.text.words import words as split_words

    recognizer, pipe = load_for("tag", run, checkpoint, device), Pipe.open(files)
    if conll:
        _add_tags(recognizer, files)
        return

    def tagged(first: int, numbered: list[tuple[str, str]]) -> Iterator[str]:
        sentences = [recognizer.read(text, "spaces" if words else None) for _, text in numbered]
        for (number, _), annotation in zip(numbered, recognizer.label(sentences, weights=False), strict=True):
            if form == "json":
                yield json.dumps(annotation.to_json(), ensure_ascii=False)
            elif form == "conll":
                yield annotation.conll().removesuffix("\n")
            else:
                for entity in annotation.entities:
                    text = " ".join(split_words(entity.text))  # without tabs, which separate the columns
                    probability = f"{entity.probability:.3f}"
                    cells = number, entity.start, entity.end, entity.type, probability, text
                    yield "\t".join(map(str, cells))

    print_lines(chunks(_numbered_lines(files, pipe), CHUNK, pipe), tagged)


def _add_tags(recognizer: "Recognizer", files: tuple[Path, ...]) -> None:
    """Print the lines of CoNLL files with the tag as a last column, separated like the others. Lines between
    sentences stay as they are."""
    from seq2attn.inference.recognizer import CHUNK
    from seq2attn.metrics.entities import parted
    from seq2attn.text.word_vocabulary import split_words

    def tagged(first: int, blocks: "list[Block]") -> Iterator[str]:
        words = [[parted(line)[0] for line in sentence] for _, sentence, _ in blocks]
        annotations = recognizer.tag(words, weights=False)
        for (comments, sentence, end), annotation in zip(blocks, annotations, strict=True):
            lines = (
                line.rstrip(" \t") + ("\t" if "\t" in line else " ") + tag
                for line, tag in zip(sentence, split_words(str(annotation)), strict=True)
            )
            yield from (*comments, *lines, end)

    pipe = Pipe.open(files)
    print_lines(chunks(_conll_blocks(files, pipe), CHUNK, pipe), tagged)


@cli.command()
@RUN
@FILES
@formats("text; json: one object for each input, with the probability of every label.", "json")
@CHECKPOINT
@DEVICE
@PROCESSES
def classify(run: Path, files: tuple[Path, ...], form: str, checkpoint: str, device: str) -> None:
    """Classify each line of FILES, or of standard input; or, if RUN was trained for images, each of FILES.

    Prints the label, a tab, and its probability; for images, then a tab and the file. Empty lines get a
    label, too: there is one line of output for each line of input.

    \b
    echo "Where is the station?" | seq2attn classify runs/languages
    seq2attn classify runs/digits one.png two.png
    """
    from seq2attn.inference import image_input, recognizer
    from seq2attn.inference.image_categorizer import ImageCategorizer
    from seq2attn.tasks.loading import load_for

    predictor, pipe = load_for("classify", run, checkpoint, device), Pipe.open(files)
    of_images = isinstance(predictor, ImageCategorizer)
    if of_images and not files:
        raise click.UsageError("this model labels images: give their files")

    def labelled(first: int, given: list[str]) -> Iterator[str]:
        # A categorizer of texts streams the tokenized lines of data sets: these are not tokenized.
        results = predictor.stream(given) if of_images else predictor.classify(given, weights=False)
        for category in results:
            plain = [category.label, f"{category.probability:.3f}", *([category.name] if of_images else [])]
            yield json.dumps(category.to_json(), ensure_ascii=False) if form == "json" else "\t".join(plain)

    if of_images:
        print_lines(chunks(map(str, files), image_input.CHUNK, None), labelled)
    else:
        print_lines(chunks(lines(files, pipe), recognizer.CHUNK, pipe), labelled)


def _numbered_lines(files: tuple[Path, ...], pipe: Pipe | None) -> Iterator[tuple[str, str]]:
    """Yield lines with their numbers: 3; or, if there are several files, news.txt:3."""
    for file in files or (Path("-"),):
        prefix = f"{file}:" if len(files) > 1 else ""
        for number, line in enumerate(lines((file,), pipe), 1):
            yield f"{prefix}{number}", line


# A part of a CoNLL file: comments, a sentence if there is one, and the blank line or -DOCSTART- that ends it.
Block = tuple[list[str], list[str], str]


def _conll_blocks(files: tuple[Path, ...], pipe: Pipe | None) -> Iterator[Block]:
    """Yield the parts of CoNLL files. If no blank line ends a file, one is added."""
    from seq2attn.data.labelled import Layout, ends_sentence

    for file in files or (Path("-"),):
        rows, layout = list[bytes](), Layout([])
        for line in chain((line.encode() for line in lines((file,), pipe)), [None]):
            if line is not None and not ends_sentence(line):
                rows.append(line)
            elif line is not None or rows:
                if any(not row.startswith(b"#") for row in rows):
                    layout = Layout(rows)
                comments = list(takewhile(layout.is_comment, rows))
                texts = [row.decode() for row in rows]
                yield texts[: len(comments)], texts[len(comments) :], (line or b"").decode()
                rows = []
