"""The command `heatmap`: draw the attention weights of a sentence."""

from pathlib import Path

import click

from seq2attn.cli.options import (
    BEAM,
    CHECKPOINT,
    DECODING,
    DEVICE,
    RUN,
    cli,
)


@cli.command()
@RUN
@click.argument("sentence")
@click.option("--target", help="Show the weights for this translation instead of the model's own.")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The file to write: .png, .svg or .pdf.",
)
@click.option("--pieces", is_flag=True, help="Show subword pieces instead of words.")
@click.option(
    "--layer",
    type=int,
    help="Decoder layer of a Transformer, from 0; -1 = the last.  [default: that of alignments, mostly the "
    "last but one]",
)
@click.option(
    "--head", type=int, help="Attention head, from 0; -1 = the last.  [default: the mean of all heads]"
)
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
    """Draw the attention weights of SENTENCE.

    The heat map has a row for each word of the translation, or for each tag of a tagger.

    \b
    seq2attn heatmap runs/quickstart "Ich habe Hunger." -o hunger.png
    seq2attn heatmap runs/quickstart "Ich habe Hunger." --target "I am hungry." -o hunger.svg
    seq2attn heatmap runs/conll2003 "Angela Merkel was born in Hamburg." -o hamburg.png
    """
    from seq2attn.inference.predictor import PlotOptions
    from seq2attn.tasks.loading import load

    decoding = context.meta.get(DECODING, {})
    options = PlotOptions(target, pieces, layer, head)
    result = load(run, checkpoint, device).plot(sentence, output, options, decoding)
    click.echo(f"{result}\n{output}")
