"""The command `score`: metrics of a run, or of texts in files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from seq2attn.cli.completion import run_folders
from seq2attn.cli.inputs import lines
from seq2attn.cli.options import (
    BEAM,
    CHECKPOINT,
    COVERAGE_PENALTY,
    DECODING,
    DEVICE,
    LENGTH_PENALTY,
    MAX_LENGTH_RATIO,
    RunPath,
    cli,
    engine_options,
    formats,
)
from seq2attn.cli.sharing import PROCESSES
from seq2attn.errors import Seq2attnError

if TYPE_CHECKING:
    from seq2attn.metrics import Score

# Listed here so that help need not import the metrics; a test compares this list with the registry.
METRICS = (
    "For texts: bleu, bleu-zh, bleu-char, chrf, chrf++, ter, exact, wer, per, g2p-wer, exprate, "
    "exprate-1, exprate-2, token-er, rouge-1, rouge-2, rouge-l, rouge-lsum; for tags: f1, precision, recall, "
    "tag-accuracy; for labels of texts: accuracy, macro-f1; for labels of images: top-1, top-5; for boxes: "
    "ap, ap50, ap75, ap-small, ap-medium, ap-large, ar-1, ar-10, ar-100, ar-small, ar-medium, ar-large; for "
    "masks: miou, miou-image, dice, dice-image, pixel-accuracy; for generated images: frechet, kernel, "
    "sample-precision, sample-recall, class-entropy. May be repeated.  [default: the recipe's]"
)


@cli.command()
@click.argument("run", required=False, type=RunPath(path_type=Path), shell_complete=run_folders)
@click.option(
    "--data",
    type=click.Choice(["dev", "test"]),
    default="test",
    show_default=True,
    help="The data set to score.",
)
@click.option(
    "--source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Score RUN on this file: one text a line (for a tagger, words separated by spaces; for images, a "
    "file), or .jsonl.",
)
@click.option("--key", default="source", show_default=True, help="Key of the texts if --source is JSONL.")
@click.option(
    "--hypotheses",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Score the texts of this file, without RUN.",
)
@click.option(
    "--references",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="References for --source or --hypotheses: each line is a text, tags separated by spaces, or a "
    "label. May be repeated.",
)
@click.option("--metric", "metrics", multiple=True, help=METRICS)
@click.option(
    "--features",
    metavar="RUN",
    type=RunPath(exists=True, file_okay=False),
    help="Run of image classification by whose features generated images are compared.  [default: the "
    "recipe's]",
)
@BEAM
@MAX_LENGTH_RATIO
@LENGTH_PENALTY
@COVERAGE_PENALTY
@formats("text; json: each score with its signature.", "json")
@CHECKPOINT
@DEVICE
@engine_options
@PROCESSES
@click.pass_context
def score(
    context: click.Context,
    run: Path | None,
    data: Literal["dev", "test"],
    source: Path | None,
    key: str,
    hypotheses: Path | None,
    references: tuple[Path, ...],
    metrics: tuple[str, ...],
    features: str | None,
    form: str,
    checkpoint: str,
    device: str,
    engine: str,
    quantize: str | None,
) -> None:
    """Score RUN, or texts, with signatures and 95 % bootstrap intervals.

    The metrics of RUN are those of its task. Translations get BLEU, chrF and TER; summaries get ROUGE, beside
    baselines that need no model; tags get F1, precision and recall, over all types and for each type in the
    format of conlleval; labels of texts get accuracy and macro-F1; captions get BLEU, and formulas expression
    rates, beside the most frequent text; labels of images get top-1 and top-5 accuracy, beside the most
    frequent label, and the accuracy of each class; boxes get average precision; masks get mean IoU, accuracy
    of pixels and Dice, beside the most frequent class, and the IoU and Dice of each class. Generated images
    are compared with real ones, beside other real ones (training images), which are the floor.

    \b
    seq2attn score runs/quickstart
    seq2attn score runs/quickstart --source in.de --references out.en --beam 10
    seq2attn score --hypotheses mine.txt --references gold.txt --metric exact --format json
    """
    if (run is None) == (hypotheses is None):
        raise click.UsageError("give either a RUN, or --hypotheses and --references")
    if (source is not None or hypotheses is not None) != bool(references):
        raise click.UsageError(
            "--references goes with --source or --hypotheses, and each of these needs --references"
        )
    from seq2attn.runtime.process import is_first

    if run is None:
        if is_first():
            _score_texts(hypotheses, references, metrics, form)
        return
    from seq2attn.cli.documents import documents
    from seq2attn.runs.evaluation import GivenTexts, no_value, score_run

    given = None
    if source is not None:
        by_file = [(str(file), list(lines((file,)))) for file in references]
        given = GivenTexts(str(source), list(documents((source,), key, whole=False)), by_file)
        for name, sentences in by_file:
            _require_equal(source, given.sources, name, sentences)
    options = context.meta.get(DECODING, {})
    scored = score_run(run, metrics, data, given, options, checkpoint, device, features, engine, quantize)
    if not is_first():
        return
    for line in no_value(scored.evaluation.undefined):
        click.echo(f"seq2attn: note: {line}", err=True)
    rows = {**scored.baselines, "": list(scored.evaluation.scores.values())}
    _print(rows, scored.evaluation.tables, scored.signature, form)


def _score_texts(
    hypotheses: Path | None, references: Sequence[Path], metrics: Sequence[str], form: str
) -> None:
    """Score the lines of a file."""
    from seq2attn.metrics import DEFAULT, score, tables

    texts = list(lines(() if hypotheses is None else (hypotheses,)))
    gold, metrics = [list(lines((file,))) for file in references], metrics or DEFAULT
    for file, sentences in zip(references, gold, strict=True):
        _require_equal(hypotheses, texts, file, sentences)
    scores = score(texts, gold, metrics)
    if any(found.name == "BLEU" and not found.value for found in scores) and _are_short(texts):
        note = "note: no text has 4 words, and BLEU counts sequences of 4: use chrf, or exact"
        click.echo(f"seq2attn: {note}", err=True)
    _print({"": scores}, tables(texts, gold, metrics), None, form)


def _require_equal(first: object, texts: "Sequence[str]", other: object, sentences: "Sequence[str]") -> None:
    """Raise Seq2attnError unless two files have the same number of lines."""
    if len(texts) != len(sentences):
        raise Seq2attnError(
            f"{first} has {len(texts):,} lines and {other} {len(sentences):,}: line n of one belongs to "
            "line n of the other"
        )


def _are_short(texts: "Sequence[str]") -> bool:
    """Return whether no text has the 4 words that BLEU needs."""
    return all(len(text.split()) < 4 for text in texts)


def _print(
    rows: "dict[str, list[Score]]", tables: "Mapping[str, Any]", signature: str | None, form: str
) -> None:
    """Print scores by the name of the baseline ('' for the run itself), then the tables."""
    from seq2attn.metrics import score_lines

    if form == "json":
        listed = {name: [score.to_json() for score in scores] for name, scores in rows.items()}
        report = {"signature": signature, "scores": listed.pop("")}
        report |= {name: table.to_json() for name, table in tables.items()}
        click.echo(json.dumps(report | ({"baselines": listed} if listed else {}), indent=2))
        return
    for line in score_lines((name, score) for name, scores in rows.items() for score in scores):
        click.echo(line)
    for table in tables.values():
        click.echo(table)
    if signature:
        click.echo(signature)
