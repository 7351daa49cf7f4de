"""The command `heatmap`: draw the attention weights of a sentence or an image."""

from pathlib import Path
from typing import Any

import click

from seq2attn.cli.inputs import refuse_inputs
from seq2attn.cli.options import (
    BEAM,
    CHECKPOINT,
    DECODING,
    DEVICE,
    RUN,
    cli,
    refuse,
)

# Listed here so that help need not import torch; a test compares this list with the registry.
METHODS = ("attention", "norms", "rollout", "gradient", "integrated", "occlusion")


def _number_or_all(context: click.Context, parameter: click.Parameter, value: str | None) -> int | str | None:
    """Return a number, or `all`."""
    if value is None or value == "all":
        return value
    try:
        return int(value)
    except ValueError as error:
        raise click.BadParameter(f"expected a number from 0, or all; got {value!r}") from error


def _pixel(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Return the two numbers of x,y."""
    if value is None:
        return None
    try:
        x, y = map(int, value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"expected two numbers, as in 14,9; got {value!r}") from error
    return x, y


@cli.command()
@RUN
@click.argument("sentence", metavar="SENTENCE|IMAGE", required=False)
@click.option(
    "--target",
    help="Show the weights for this translation instead of the model's own; of an image, Grad-CAM of this "
    "label; of a generated image, its class.",
)
@click.option("--seed", type=int, help="Show the image that is generated with this seed, in place of IMAGE.")
@click.option(
    "-o",
    "--output",
    default="heatmap.png",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The file to write: .png, .svg or .pdf; of an image also .json, the numbers.",
)
@click.option("--pieces", is_flag=True, help="Show subword pieces instead of words.")
@click.option("--self", "self_attention", is_flag=True, help="Show the self-attention of the source.")
@click.option(
    "--layer",
    metavar="INTEGER|all",
    callback=_number_or_all,
    help="Layer, from 0; -1 = the last; all = a grid.  [default: that of alignments, mostly the last but "
    "one]",
)
@click.option(
    "--head",
    metavar="INTEGER|all",
    callback=_number_or_all,
    help="Attention head, from 0; -1 = the last; all = a grid.  [default: the mean of all heads]",
)
@click.option(
    "--scale",
    type=click.Choice(["fixed", "auto", "range"]),
    help="The weight of the last colour: 1, or with auto the largest weight; range, of images: colours from "
    "the smallest to the largest weight.  [default: fixed; auto for what sums to 1 over an image, and for "
    "Grad-CAM]",
)
@click.option("--right-to-left", is_flag=True, help="Write the source words from right to left.")
@click.option(
    "--map",
    "kind",
    type=click.Choice(["pooling", "place", "channel", "affinity", "rollout", "gradcam", "all"]),
    help="Which maps of an image: weights of the pooling or of a detector's queries, of places, of channels, "
    "of positions for a position (affinity), attention rollout, or Grad-CAM, which only classification has.  "
    "[default: pooling, or else place, or else gradcam]",
)
@click.option("--at", metavar="NAME", help="Only maps with this in their name, or in that of their module.")
@click.option(
    "--query",
    metavar="X,Y",
    callback=_pixel,
    help="The pixel whose affinities are shown, counted from 0 in the image as it is in its file, upright.  "
    "[default: the mean of all positions]",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    help="What a translation owes to its source: weights or norms of attention, rollout through the encoder, "
    "input x gradient, integrated gradients, occlusion.  [default: attention]",
)
@BEAM
@CHECKPOINT
@DEVICE
@click.pass_context
def heatmap(
    context: click.Context,
    run: Path,
    sentence: str | None,
    target: str | None,
    seed: int | None,
    output: Path,
    pieces: bool,
    self_attention: bool,
    layer: Any,
    head: Any,
    scale: Any,
    right_to_left: bool,
    kind: str | None,
    at: str | None,
    query: tuple[int, int] | None,
    method: str | None,
    checkpoint: str,
    device: str,
) -> None:
    """Draw the attention weights of SENTENCE; or, if RUN was trained for images, those of IMAGE.

    The heat map has a row for each word of the translation, or for each tag of a tagger. The darker a cell,
    the larger its weight; exactly 0 is white. Maps of an image are drawn over it, with the range of their
    weights. If RUN generates images, --seed shows where generator and discriminator look.

    \b
    seq2attn heatmap runs/quickstart "Ich habe Hunger." -o hunger.png
    seq2attn heatmap runs/quickstart "Ich habe Hunger." --target "I am hungry." -o hunger.svg
    seq2attn heatmap runs/multi30k_transformer "A dog runs." --layer all --head all -o heads.pdf
    seq2attn heatmap runs/multi30k_transformer "A dog runs." --self --head all
    seq2attn heatmap runs/quickstart "Ich habe Hunger." --method integrated -o owed.png
    seq2attn heatmap runs/conll2003 "Angela Merkel was born in Hamburg." -o hamburg.png
    seq2attn heatmap runs/digits seven.png --map all -o seven.pdf
    seq2attn heatmap runs/mnist_scenes_queries scene.png -o queries.png
    seq2attn heatmap runs/mnist_sagan --seed 3 --query 14,9
    """
    from seq2attn.errors import Seq2attnError
    from seq2attn.inference.image_generator import ImageGenerator
    from seq2attn.inference.predictor import PlotOptions
    from seq2attn.tasks.loading import load

    if (sentence is None) == (seed is None):
        raise click.UsageError("give either a SENTENCE or IMAGE, or, for a generated image, --seed")
    if target is not None:
        refuse(context, ("beam",), "a given translation is not searched for")
    if sentence is not None:
        refuse_inputs([output], [sentence])
    decoding, given = context.meta.get(DECODING, {}), sentence if seed is None else seed
    options = PlotOptions(
        target, pieces, layer, head, self_attention, scale, right_to_left, kind, at, query, method
    )
    predictor = load(run, checkpoint, device)
    if seed is not None and not isinstance(predictor, ImageGenerator):
        raise Seq2attnError(f"--seed is for models that generate images, and {run} is for {predictor.task}")
    result = predictor.plot(given, output, options, decoding)
    click.echo(f"{result}\n{output}")
