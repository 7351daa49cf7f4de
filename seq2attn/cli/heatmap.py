"""The command that draws: heatmap."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from seq2attn.cli.options import (
    BEAM,
    CHECKPOINT,
    DECODING,
    DEVICE,
    RUN,
    cli,
)

if TYPE_CHECKING:
    pass


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
    """Draw which source word each word of the translation looked at; of a tagger, which word each tag did.

    \b
    seq2attn heatmap runs/quickstart "Ich habe Hunger." -o hunger.png
    seq2attn heatmap runs/quickstart "Ich habe Hunger." --target "I am hungry." -o hunger.svg
    seq2attn heatmap runs/conll2003 "Angela Merkel was born in Hamburg." -o hamburg.png
    """
    from seq2attn.inference.predictor import PlotOptions
    from seq2attn.tasks.loading import load

    predictor = load(run, checkpoint, device).configured(context.meta.get(DECODING, {}))
    result = predictor.plot(sentence, output, PlotOptions(target, pieces, layer, head))
    click.echo(f"{result}\n{output}")
