"""The command that measures: score."""

import json
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from seq2attn.cli.inputs import lines
from seq2attn.cli.options import (
    BEAM,
    CHECKPOINT,
    COVERAGE_PENALTY,
    DECODING,
    DEVICE,
    LENGTH_PENALTY,
    cli,
    formats,
)
from seq2attn.errors import Seq2attnError

if TYPE_CHECKING:
    from seq2attn.metrics import References, Score
    from seq2attn.metrics.entities import EntityReport

# Named here, since help is quick only without the metrics themselves; a test compares the two.
METRICS = (
    "Of texts: bleu, bleu-zh, bleu-char, chrf, chrf++, ter, exact, wer, per, g2p-wer, rouge-1, rouge-2, "
    "rouge-l, rouge-lsum; of tagged words: f1, precision, recall, tag-accuracy; of labelled texts: accuracy, "
    "macro-f1. May be given again.  [default: the recipe's]"
)


ENTITIES = {"f1", "precision", "recall"}  # metrics that are told by type, too


class Measured(NamedTuple):
    """Scores, those of entities also by type, how they were made, and what needs no model, by name."""

    scores: "list[Score]"
    types: "EntityReport | None"
    made: str | None
    beside: "dict[str, list[Score]]"


@cli.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Choice(["dev", "test"]), default="test", show_default=True, help="Which set."
)
@click.option(
    "--source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Score what RUN makes of this file instead, a text a line (of a tagger: words with spaces between).",
)
@click.option(
    "--hypotheses",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Score this file; needs no RUN.",
)
@click.option(
    "--references",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="For --source or --hypotheses, line by line: a text, the tags with spaces between, or a label.",
)
@click.option("--metric", "metrics", multiple=True, help=METRICS)
@BEAM
@LENGTH_PENALTY
@COVERAGE_PENALTY
@formats("text; json: each number with its own signature.", "json")
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
    """The metrics of a run's task with their signatures and 95 % bootstrap intervals.

    BLEU, chrF and TER of translations, ROUGE of summaries (beside baselines that need no model), F1 of tags
    (of all types together, and of each in the form of conlleval).

    \b
    seq2attn score runs/quickstart
    seq2attn score runs/quickstart --source in.de --references out.en --beam 10
    seq2attn score --hypotheses mine.txt --references gold.txt --metric exact --format json
    """
    if (run is None) == (hypotheses is None):
        raise click.UsageError("give either a RUN, or --hypotheses and --references")
    if (source is not None or hypotheses is not None) != bool(references):
        raise click.UsageError("--references goes with --source or --hypotheses, and they with it")
    if hypotheses is not None:
        from seq2attn.metrics import DEFAULT

        gold: References = [list(lines((file,))) for file in references]
        _print(Measured(*_scored(list(lines((hypotheses,))), gold, metrics or DEFAULT), None, {}), form)
    elif run is not None:
        given = None if source is None else (source, references)
        decoding = context.meta.get(DECODING, {})
        _print(_of_run(run, data, given, metrics, decoding, checkpoint, device), form)


def _of_run(
    run: Path,
    data: Literal["dev", "test"],
    given: tuple[Path, tuple[Path, ...]] | None,
    metrics: tuple[str, ...],
    decoding: dict[str, object],
    checkpoint: str,
    device: str,
) -> Measured:
    """What a run scores on its own data, or on files that are given: a source and its references."""
    from seq2attn.runs.evaluation import baselines, held_out, measured, signature
    from seq2attn.tasks.loading import load

    chosen, predictor = measured(run, metrics), load(run, checkpoint, device)
    predictor.adopt(decoding)
    if given is None:
        sources, gold = held_out(run, data)
    else:
        sources = [predictor.as_data(line) for line in lines((given[0],))]
        if predictor.task == "tagging":
            _check_tags(given[0], sources, given[1])
        gold = [list(lines((file,))) for file in given[1]]
    said, made = [str(one) for one in predictor.stream(sources)], signature(run, predictor, checkpoint)
    beside = baselines(sources, gold, chosen) if predictor.task == "summarization" else {}
    return Measured(*_scored(said, gold, chosen), made, beside)


def _scored(
    hypotheses: list[str], references: "References", metrics: Sequence[str]
) -> "tuple[list[Score], EntityReport | None]":
    """The scores; and what entities of each type score, where they are measured."""
    from seq2attn.metrics import score
    from seq2attn.metrics.entities import report

    scores = score(hypotheses, references, metrics)
    return scores, report(hypotheses, references) if ENTITIES & {*metrics} else None


def _check_tags(source: Path, sources: list[str], references: tuple[Path, ...]) -> None:
    """Seq2attnError where there is not a tag for each word."""
    from seq2attn.metrics.entities import parted
    from seq2attn.text.word_vocabulary import split_words

    for file in references:
        for number, (words, tags) in enumerate(zip_longest(sources, lines((file,)), fillvalue=""), 1):
            wanted, came = len(split_words(words)), len(parted(tags))
            if wanted != came:
                raise Seq2attnError(
                    f"{file}:{number}: expected a tag for each of the {wanted} words in {source}:{number}, "
                    f"got {came}: a line has the words or the tags of a whole sentence, with spaces between "
                    "(a CoNLL file, a word a line, is scored as data.test of a recipe)"
                )


def _print(measured: Measured, form: str) -> None:
    from seq2attn.metrics import score_lines

    if form == "json":
        others = {name: [one.to_json() for one in some] for name, some in measured.beside.items()}
        report = {"signature": measured.made, "scores": [one.to_json() for one in measured.scores]}
        types = {"entities": measured.types.to_json()} if measured.types else {}
        click.echo(json.dumps(report | types | ({"baselines": others} if others else {}), indent=2))
        return
    rows = {**measured.beside, "": measured.scores}
    for line in score_lines((whose, one) for whose, some in rows.items() for one in some):
        click.echo(line)
    if measured.types:
        click.echo(measured.types)
    if measured.made:
        click.echo(measured.made)
