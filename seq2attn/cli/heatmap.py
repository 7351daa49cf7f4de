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
from seq2attn.errors import Seq2attnError

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
    from seq2attn.inference.translator import Translator
    from seq2attn.tasks.loading import load

    predictor = load(run, checkpoint, device)
    if not isinstance(predictor, Translator):
        settings = {"target": target, "pieces": pieces or None, "layer": layer, "head": head}
        if given := [name for name, value in settings.items() if value is not None]:
            raise Seq2attnError(f"--{given[0]} is for models that write text, and {run} labels words")
        predictor.adopt(context.meta.get(DECODING, {}))
        (found,) = predictor.label([predictor.read(sentence)], weights=True)
        found.plot(output)
    else:
        predictor.adopt({**context.meta.get(DECODING, {}), "nbest": 1})
        if layer is not None or head is not None:
            predictor.alignment_layer, predictor.alignment_head = layer, head
        if target is None:
            (found,) = predictor.stream([sentence], alignment=True)
        else:
            found = predictor.align(sentence, target)
        found.plot(output, pieces=pieces)
    click.echo(f"{found}\n{output}")
