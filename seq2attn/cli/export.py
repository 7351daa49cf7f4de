"""The command `export`: the model of a run for another program."""

import json
from pathlib import Path

import click

from seq2attn.cli.inputs import lines
from seq2attn.cli.options import CHECKPOINT, ENGINES, QUANTIZE, RUN, cli, formats, refuse

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@cli.command()
@RUN
@click.argument("engine", type=click.Choice(ENGINES[1:]))
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="The folder, which must not exist."
)
@QUANTIZE
@click.option(
    "--check",
    type=click.IntRange(0),
    default=200,
    show_default=True,
    help="Compare the outputs of this many sentences of the test set, or of the dev set; 0 = none.",
)
@click.option("--source", type=FILE, help="Compare the outputs of these lines instead.")
@click.option("--references", type=FILE, help="Their references, for BLEU.")
@formats("text; json: the report.", "json")
@CHECKPOINT
@click.pass_context
def export(
    context: click.Context,
    run: Path,
    engine: str,
    out: Path,
    quantize: str | None,
    check: int,
    source: Path | None,
    references: Path | None,
    form: str,
    checkpoint: str,
) -> None:
    """Write the model of RUN to a folder, for the program ENGINE, and compare its search with torch's.

    Prints how many best hypotheses are the same, or as good by torch's scores, the largest difference of
    log-probabilities, and BLEU and speed of both. The exit status is 1 if fewer than 99.5 % are as good in
    float32, or if none could be compared.

    \b
    seq2attn export runs/multi30k_transformer ctranslate2 -o exported
    seq2attn export runs/multi30k_transformer ctranslate2 -o small --quantize int8 --source in.en
    seq2attn export runs/multi30k_additive onnx -o exported
    """
    from seq2attn.runs.exporting import Sentences, export_run

    if references is not None and source is None:
        raise click.UsageError("--references goes with --source")
    given = None
    if source is not None:
        refuse(context, ("check",), "--source is compared in the place of a data set")
        gold = None if references is None else list(lines((references,)))
        given = Sentences(list(lines((source,))), gold)
    parity = export_run(run, engine, out, quantize, checkpoint, check, given)
    if form == "json":
        click.echo(
            json.dumps({"folder": str(out), "parity": None if parity is None else parity.to_json()}, indent=2)
        )
    else:
        click.echo("\n".join([f"exported to {out}", *(() if parity is None else parity.lines())]))
    if parity is not None and not (parity.compared and (quantize or parity.sufficient)):
        context.exit(1)
