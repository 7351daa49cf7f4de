"""The command `generate`: new images."""

import json
from pathlib import Path

import click

from seq2attn.cli.options import CHECKPOINT, DEVICE, PRECISION, RUN, cli, formats, refuse


@cli.command()
@RUN
@click.option(
    "-o",
    "--output",
    default="sheet.png",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The file to write, a sheet of all images (.png); or an existing folder, for a file for each.",
)
@click.option(
    "--count",
    type=int,
    default=64,
    show_default=True,
    help="Number of images; with --interpolate, of rows times --columns.",
)
@click.option("--columns", type=click.IntRange(1), default=8, show_default=True, help="Columns of the sheet.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the random vectors.")
@click.option("--class", "label", help="Class of all images, for conditional models.  [default: all in turn]")
@click.option(
    "--truncation",
    type=float,
    help="Largest number in the random vectors: 0.5 makes images that are more alike and better.  [default: "
    "none]",
)
@click.option("--interpolate", is_flag=True, help="Let each row lead from one image to another.")
@formats("text: the files; json: one object for each image, with its file, class and random vector.", "json")
@CHECKPOINT
@DEVICE
@PRECISION
@click.pass_context
def generate(
    context: click.Context,
    run: Path,
    output: Path,
    count: int,
    columns: int,
    seed: int,
    label: str | None,
    truncation: float | None,
    interpolate: bool,
    form: str,
    checkpoint: str,
    device: str,
    precision: str,
) -> None:
    """Generate images with RUN.

    An image depends on the seed and on its number, whatever the count is.

    \b
    seq2attn generate runs/mnist_sagan -o sheet.png --count 64 --seed 1
    seq2attn generate runs/mnist_sagan --class 7 --count 16
    seq2attn generate runs/mnist_sagan --interpolate -o between.png
    """
    from seq2attn.tasks.loading import load_for
    from seq2attn.views.pictures import write
    from seq2attn.views.sheets import png, sheet

    if not output.is_dir() and output.suffix.lower() != ".png":
        raise click.UsageError(f"--output is a file that ends in .png, or an existing folder; got {output}")
    if output.is_dir() and not interpolate:
        refuse(context, ("columns",), "a folder has no sheet")
    if interpolate and (count < 1 or count % columns):
        raise click.UsageError(
            f"--interpolate fills rows: expected --count as a multiple of --columns, {columns}; got {count}"
        )
    generator = load_for("generate", run, checkpoint, device, precision)
    if interpolate:
        images = generator.interpolate(count // columns, columns, seed, label, truncation=truncation)
    else:
        images = generator.generate(count, seed, label, truncation=truncation)
    if output.is_dir():
        width = len(str(len(images) - 1))
        files = [image.save(output / f"{number:0{width}}.png") for number, image in enumerate(images)]
    else:
        sheet_file = write(output, lambda: png(sheet([image.pixels for image in images], columns)))
        files = [sheet_file] * len(images)
    if form == "json":
        for file, image in zip(files, images, strict=True):
            click.echo(json.dumps({"file": str(file), **image.to_json()}, ensure_ascii=False))
    else:
        for file in dict.fromkeys(files):
            click.echo(file)
