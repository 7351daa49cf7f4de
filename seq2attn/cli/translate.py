"""Commands that use runs: translate, summarize, heatmap."""

import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from seq2attn.cli.inputs import FILES, lines
from seq2attn.cli.options import (
    BEAM,
    CHECKPOINT,
    COVERAGE_PENALTY,
    DECODING,
    DEVICE,
    LENGTH_PENALTY,
    PRECISION,
    RUN,
    cli,
    decoding_option,
    formats,
)

if TYPE_CHECKING:
    from seq2attn.inference.results import Translation
    from seq2attn.inference.translator import Translator


def writing(command: Callable[..., None]) -> Callable[..., None]:
    """The options of commands that write text."""
    options: list[Callable[[Callable[..., None]], Callable[..., None]]] = [
        BEAM,
        LENGTH_PENALTY,
        COVERAGE_PENALTY,
        decoding_option("--nbest", int, "Print so many texts for each."),
        decoding_option("--min-length", int, "Fewest pieces of what is written."),
        decoding_option("--max-length", int, "Most pieces of what is written."),
        decoding_option("--no-repeat-ngram", int, "No n-gram of so many pieces twice."),
        decoding_option("--replace-unknown", bool, "Unknown pieces become the source word looked at most."),
        decoding_option("--sample", bool, "Draw at random."),
        decoding_option("--top-k", int, "Sample from the k likeliest pieces."),
        decoding_option("--top-p", float, "Sample from the likeliest pieces of this total probability."),
        decoding_option("--temperature", float, "Of sampling."),
        decoding_option("--seed", int, "Of sampling."),
        decoding_option("--batch-tokens", int, "Source tokens times beam that are worked on at once."),
        click.option("--scores", is_flag=True, help="Print each text's score before it, and a tab."),
        CHECKPOINT,
        DEVICE,
        PRECISION,
        click.pass_context,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@cli.command()
@RUN
@FILES
@formats("text; pharaoh: and its alignment behind a tab; json: all, with the source.", "pharaoh", "json")
@writing
def translate(
    context: click.Context,
    run: Path,
    files: tuple[Path, ...],
    scores: bool,
    form: str,
    checkpoint: str,
    device: str,
    precision: str,
) -> None:
    """Translate FILES, or standard input, line by line to standard output, in order.

    \b
    echo "Wo ist der Bahnhof?" | seq2attn translate runs/quickstart
    seq2attn translate runs/quickstart in.de --beam 10 --nbest 3 --scores > out.en
    seq2attn translate runs/quickstart in.de --format pharaoh | cut -f 2
    """
    from seq2attn.tasks.loading import load_for

    translator = load_for("translate", run, checkpoint, device, precision)
    interactive = not files and sys.stdin.isatty()
    _write(context, translator, lines(files), scores, form, interactive)


@cli.command()
@RUN
@FILES
@click.option("--key", default="source", show_default=True, help="Where documents are in JSONL, dotted.")
@click.option("--whole", is_flag=True, help="A file is one document; if not, a line is one.")
@formats("text; json: all, with the source, the alignment and what was copied.", "json")
@writing
def summarize(
    context: click.Context,
    run: Path,
    files: tuple[Path, ...],
    scores: bool,
    key: str,
    whole: bool,
    form: str,
    checkpoint: str,
    device: str,
    precision: str,
) -> None:
    """Summarize FILES, or standard input, to standard output, a summary a line, in order.

    A document is a line; or a row of a .jsonl file, a text or a list of sentences.

    \b
    seq2attn summarize runs/samsum dialogues.jsonl --key dialogue > summaries.txt
    seq2attn summarize runs/samsum chat.txt --whole --no-repeat-ngram 3
    """
    from seq2attn.cli.documents import documents
    from seq2attn.tasks.loading import load_for

    summarizer = load_for("summarize", run, checkpoint, device, precision)
    interactive = not files and not whole and sys.stdin.isatty()
    _write(context, summarizer, documents(files, key, whole), scores, form, interactive)


def _write(
    context: click.Context,
    translator: "Translator",
    texts: Iterable[str],
    scores: bool,
    form: str,
    interactive: bool,
) -> None:
    """What a model writes for each text, as it comes; in JSON with the text and its number, from 1."""
    from seq2attn.inference.results import Translation
    from seq2attn.inference.translator import CHUNK

    decoding = translator.settings(context.meta.get(DECODING, {}))
    chunk, given = 1 if interactive else CHUNK, deque[str]()

    def read() -> Iterator[str]:
        for text in texts:
            given.append(text)
            yield text

    stream = translator.stream(read(), decoding, alignment=form != "text", chunk=chunk)
    for number, found in enumerate(stream, 1):
        lacking, source = decoding.nbest - len(found.nbest), given.popleft()
        for one in (*found.nbest, *[Translation.empty(found.source)] * lacking):  # as many lines for each
            if form == "json":
                entry = {"number": number, "source": source, **one.to_json()}
                entry.pop("nbest", None)
                click.echo(json.dumps(entry, ensure_ascii=False))
            else:
                click.echo(_line(one, scores, form))


def _line(one: "Translation", scores: bool, form: str) -> str:
    columns = [f"{one.score:.4f}"] if scores else []
    columns.append(" ".join(one.text.split("\n")))  # a model may say a line feed by its byte
    if form == "pharaoh":
        columns.append(one.pharaoh())
    return "\t".join(columns)
