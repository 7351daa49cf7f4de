"""The commands `graph RECIPE` and `graph import`: what a network's graph is made of, and graphs of others."""

import json
from pathlib import Path

import click

from seq2attn.cli.options import OVERRIDES, RECIPE, Commands, cli, formats


class _Graph(Commands):
    """A group whose first word may be a recipe: `graph yolo` is `graph show yolo`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See the base class."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["show", *args]
        return super().parse_args(ctx, args)


@cli.group(cls=_Graph)
def graph() -> None:
    """Show the rows of a network that is written as a graph, or import one.

    \b
    seq2attn graph my.yaml                        the same as: seq2attn graph show my.yaml
    seq2attn graph import yolov5s.yaml
    """


@graph.command()
@RECIPE
@OVERRIDES
@click.option(
    "--size",
    type=(click.IntRange(1), click.IntRange(1)),
    metavar="HEIGHT WIDTH",
    help="Of the image, in pixels.  [default: data.size of the recipe, or 640 640]",
)
@formats("text; json: each row with its values.", "json")
def show(recipe: str, overrides: tuple[str, ...], size: tuple[int, int] | None, form: str) -> None:
    """Print the rows of RECIPE's network: shapes, parameters, multiply-adds.

    RECIPE is a file, the name of a recipe that ships, or the name of a graph that ships. A star stands at the
    rows that the network returns. Nothing is computed, and no data are read. Multiply-adds are those of
    convolutions and matrix products, for one image. The head of a recipe's model is no row: its size depends
    on the classes of the data, and `check` counts it, too.

    \b
    seq2attn graph show my.yaml --size 256 320
    seq2attn graph show my.yaml "model.backbone.insert=[{after: c5, module: cbam}]"
    seq2attn graph show yolov5s
    """
    from seq2attn.recipe import read
    from seq2attn.recipe.graph import shipped_graph, shipped_graphs
    from seq2attn.runs.graph_report import SIDES, describe, graph_of, lines

    if recipe in shipped_graphs() and not Path(recipe).exists():
        if overrides:
            raise click.UsageError(f"{recipe} is a graph, not a recipe: it takes no KEY=VALUE")
        rows, total = describe(shipped_graph(recipe), 3, *(size or SIDES)), "total"
    else:
        whole = read(recipe, overrides, check_files=False)
        rows = describe(graph_of(whole), whole.data.num_channels, *(size or whole.data.shape or SIDES))
        total = "total without the head"
    if form == "json":
        click.echo(json.dumps([row.to_json() for row in rows], indent=2))
        return
    for line in lines(rows, total):
        click.echo(line)


@graph.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--scale", help="Which of the file's scales, if it has several: n, s, m, l, x.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The file to write.  [default: standard output]"
)
def import_(file: Path, scale: str | None, output: Path | None) -> None:
    """Read FILE with rows [from, number, module, args], as YOLOv5 has them, and print them with names.

    What is printed is the section `backbone` of a recipe. Outputs are the rows that the file's head reads.

    \b
    seq2attn graph import yolov5s.yaml
    seq2attn graph import yolov8.yaml --scale n -o backbone.yaml
    """
    from seq2attn.recipe.graph_import import import_graph, written
    from seq2attn.runtime import files

    text = written(import_graph(file, scale))
    if output is None:
        click.echo(text, nl=False)
    else:
        files.write(output, text.encode())
