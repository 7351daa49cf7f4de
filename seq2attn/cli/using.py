"""Commands that use runs: translate, score, heatmap."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from seq2attn.cli.group import (
    BEAM,
    CHECKPOINT,
    COVERAGE_PENALTY,
    DECODING,
    DEVICE,
    LENGTH_PENALTY,
    RUN,
    cli,
    decoding_option,
)
from seq2attn.errors import Seq2attnError

if TYPE_CHECKING:
    from seq2attn.metrics import References
    from seq2attn.results import Translation


@cli.command()
@RUN
@click.argument(
    "files", nargs=-1, type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
)
@BEAM
@LENGTH_PENALTY
@COVERAGE_PENALTY
@decoding_option("--nbest", int, "Print so many translations of each line.")
@decoding_option("--min-length", int, "Fewest pieces of a translation.")
@decoding_option("--max-length", int, "Most pieces of a translation.")
@decoding_option("--no-repeat-ngram", int, "No n-gram of so many pieces twice.")
@decoding_option("--replace-unknown", bool, "Unknown pieces become the source word looked at most.")
@decoding_option("--sample", bool, "Draw translations at random.")
@decoding_option("--top-k", int, "Sample from the k likeliest pieces.")
@decoding_option("--top-p", float, "Sample from the likeliest pieces of this total probability.")
@decoding_option("--temperature", float, "Of sampling.")
@decoding_option("--seed", int, "Of sampling.")
@decoding_option("--batch-tokens", int, "Source tokens times beam that are worked on at once.")
@click.option("--scores", is_flag=True, help="Print each translation's score before it, and a tab.")
@click.option(
    "--alignments", type=click.Choice(["pharaoh", "json"]), help="Print alignments: a column, or JSON."
)
@CHECKPOINT
@DEVICE
@click.pass_context
def translate(
    context: click.Context,
    run: Path,
    files: tuple[Path, ...],
    scores: bool,
    alignments: str | None,
    checkpoint: str,
    device: str,
) -> None:
    """Translate FILES, or standard input, line by line to standard output, in order.

    \b
    echo "Wo ist der Bahnhof?" | seq2attn translate runs/quickstart
    seq2attn translate runs/quickstart in.de --beam 10 --nbest 3 --scores > out.en
    seq2attn translate runs/quickstart in.de --alignments pharaoh | cut -f 2
    """
    from seq2attn.results import Translation
    from seq2attn.translator import CHUNK, load

    translator = load(run, checkpoint, device)
    decoding = translator.settings(context.meta.get(DECODING, {}))
    interactive = not files and sys.stdin.isatty()
    found = translator.stream(
        _lines(files), decoding, alignment=alignments is not None, chunk=1 if interactive else CHUNK
    )
    for translation in found:
        lacking = decoding.nbest - len(translation.nbest)  # every sentence has as many lines
        for one in (*translation.nbest, *[Translation.empty(translation.source)] * lacking):
            click.echo(_line(one, scores, alignments))


def _lines(files: tuple[Path, ...]) -> Iterator[str]:
    """The lines of files, or of standard input; only a line feed ends one."""
    for file in files or (Path("-"),):
        with click.open_file(str(file), "rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    yield line.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    name = "standard input" if str(file) == "-" else file
                    raise Seq2attnError(
                        f"{name}:{number}: expected UTF-8, got the byte {error.object[error.start]:#x} "
                        f"at position {error.start + 1} of the line"
                    ) from error


def _line(one: "Translation", scores: bool, alignments: str | None) -> str:
    if alignments == "json":
        return json.dumps(
            {key: value for key, value in one.to_json().items() if key != "nbest"}, ensure_ascii=False
        )
    columns = [f"{one.score:.4f}"] if scores else []
    columns.append(" ".join(one.text.split("\n")))  # a model may say a line feed by its byte
    if alignments == "pharaoh":
        columns.append(one.pharaoh())
    return "\t".join(columns)


@cli.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Choice(["dev", "test"]), default="test", show_default=True, help="Which set."
)
@click.option("--source", type=click.Path(exists=True, path_type=Path), help="Translate this file instead.")
@click.option(
    "--hypotheses", type=click.Path(exists=True, path_type=Path), help="Score this file; needs no RUN."
)
@click.option(
    "--references",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="For --source or --hypotheses.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    help="bleu, chrf, ter, exact, wer, per, ...; may be given again.  [default: the recipe's]",
)
@BEAM
@LENGTH_PENALTY
@COVERAGE_PENALTY
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@CHECKPOINT
@DEVICE
@click.pass_context
def score(
    context: click.Context,
    run: Path | None,
    data: Literal["dev", "test"],
    source: Path | None,
    hypotheses: Path | None,
    references: tuple[Path, ...],
    metrics: tuple[str, ...],
    form: str,
    checkpoint: str,
    device: str,
) -> None:
    """BLEU, chrF and TER (or others) with their signatures and 95 % bootstrap intervals.

    \b
    seq2attn score runs/quickstart
    seq2attn score runs/quickstart --source in.de --references out.en --beam 10
    seq2attn score --hypotheses mine.txt --references gold.txt --metric exact --format json
    """
    if (run is None) == (hypotheses is None):
        raise click.UsageError("give either a RUN, or --hypotheses and --references")
    if (source is not None or hypotheses is not None) != bool(references):
        raise click.UsageError("--references goes with --source or --hypotheses, and they with it")
    made = None
    gold: References = [list(_lines((file,))) for file in references]
    if run is None or hypotheses is not None:
        from seq2attn.metrics import DEFAULT, score

        scores = score(list(_lines((cast(Path, hypotheses),))), gold, metrics or DEFAULT)
    else:
        from seq2attn.checkpoint import RunFolder
        from seq2attn.runs import held_out, score_pairs, signature
        from seq2attn.translator import load

        translator = load(run, checkpoint, device)
        translator.decoding = translator.settings(context.meta.get(DECODING, {}))
        if source is None:
            sources, gold = held_out(run, translator, data)
        else:
            sources = list(_lines((source,)))
        scores = score_pairs(
            translator, sources, gold, metrics or RunFolder.open(run).recipe.training.metrics
        )
        made = signature(run, translator, checkpoint)
    if form == "json":
        click.echo(json.dumps({"signature": made, "scores": [one.to_json() for one in scores]}, indent=2))
        return
    for line in (*scores, *([made] if made else [])):
        click.echo(line)


@cli.command()
@RUN
@click.argument("sentence")
@click.option("--target", help="Align with this translation instead of the model's own.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="A .png, .svg or .pdf file."
)
@click.option("--pieces", is_flag=True, help="By pieces instead of words.")
@click.option(
    "--layer", type=int, help="Of a Transformer, from 0 (-1 = the last).  [default: the one before the last]"
)
@click.option("--head", type=int, help="From 0 (-1 = the last).  [default: the mean of all]")
@BEAM
@CHECKPOINT
@DEVICE
@click.pass_context
def heatmap(
    context: click.Context,
    run: Path,
    sentence: str,
    target: str | None,
    output: Path,
    pieces: bool,
    layer: int | None,
    head: int | None,
    checkpoint: str,
    device: str,
) -> None:
    """Draw which source word each word of the translation looked at.

    \b
    seq2attn heatmap runs/quickstart "Ich habe Hunger." -o hunger.png
    seq2attn heatmap runs/quickstart "Ich habe Hunger." --target "I am hungry." -o hunger.svg
    """
    from seq2attn.translator import load

    translator = load(run, checkpoint, device)
    translator.decoding = translator.settings({**context.meta.get(DECODING, {}), "nbest": 1})
    translator.alignment_layer, translator.alignment_head = layer, head
    if target is None:
        (aligned,) = translator.stream([sentence], translator.decoding, alignment=True)
    else:
        aligned = translator.align(sentence, target)
    aligned.plot(output, pieces=pieces)
    click.echo(f"{aligned.text}\n{output}")
