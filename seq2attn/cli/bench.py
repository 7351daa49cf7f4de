"""The commands `bench attention` and `bench blocks`."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seq2attn.cli.options import OVERRIDES, RECIPE, cli, formats
from seq2attn.errors import Seq2attnError

if TYPE_CHECKING:
    from seq2attn.runs.comparison import Row


@cli.group()
def bench() -> None:
    """Train variants of a recipe and compare them."""


BUDGET = click.option(
    "--budget", type=click.FloatRange(0, min_open=True), help="Minutes of training for each variant."
)
OUT = click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="The folder for runs, table and figure.  [default: runs/bench-NAME]",
)


def seeds_option(default: int) -> Callable[..., Any]:
    """Return the option --seeds."""
    return click.option(
        "--seeds",
        type=click.IntRange(1),
        default=default,
        show_default=True,
        help="Trainings of each variant, with different seeds.",
    )


@bench.command()
@RECIPE
@OVERRIDES
@click.option("--scorers", help="Scorers, or all. Options in braces: 'dot, {name: general, rank: 8}'.")
@click.option("--normalizers", help="Normalizers, or all, in the same form.")
@click.option("--also", multiple=True, metavar="KEY=VALUE", help="Another variant. May be repeated.")
@seeds_option(1)
@BUDGET
@click.option(
    "--gold",
    type=click.Path(exists=True, path_type=Path),
    help="Gold word alignments of the test set, for AER.",
)
@click.option(
    "--faithful",
    is_flag=True,
    help="Also measure whether the model needs the words that attention names: comprehensiveness and "
    "sufficiency, beside orders by occlusion and at random.",
)
@OUT
@formats("text: a table in Markdown; json: the measurements of each training.", "json")
@click.pass_context
def attention(
    context: click.Context,
    recipe: str,
    overrides: tuple[str, ...],
    scorers: str | None,
    normalizers: str | None,
    also: tuple[str, ...],
    seeds: int,
    budget: float | None,
    gold: Path | None,
    faithful: bool,
    out: Path | None,
    form: str,
) -> None:
    """Train RECIPE with different attentions and compare them.

    Each combination of --scorers and --normalizers is a variant, and so is each --also; without any of them,
    the recipe is trained as it is. Numbers in brackets are 95 % intervals; with several --seeds, the lowest
    and the highest value. Run the same command again to resume it.

    \b
    seq2attn bench attention copy_additive --scorers "additive, dot" --normalizers "softmax, monotonic"
    seq2attn bench attention my.yaml --scorers all --budget 3 --seeds 2 --out runs/bench
    seq2attn bench attention g2p_additive --scorers "additive, dot" --faithful
    seq2attn bench attention my.yaml --also "model.decoder.latent=marginal model.decoder.top=4"
    """
    from seq2attn.attention.normalizers import NORMALIZERS
    from seq2attn.attention.scorers import SCORERS
    from seq2attn.recipe import read
    from seq2attn.runs.attention_bench import compare, figure, table, variants

    basis = read(recipe, overrides)
    scorer_parts = _parts("--scorers", scorers, list(SCORERS))
    normalizer_parts = _parts("--normalizers", normalizers, list(NORMALIZERS))
    folder = out or Path("runs") / f"bench-{basis.name}"
    rows = compare(
        recipe,
        variants(basis, scorer_parts, normalizer_parts, also),
        folder,
        seeds,
        budget,
        gold,
        overrides,
        partial(click.echo, err=True),
        faithful,
    )
    measured = [row.to_json() for row in rows]
    _finish(context, rows, folder, table(rows), measured if form == "json" else None, figure)


@bench.command()
@RECIPE
@OVERRIDES
@click.option(
    "--blocks",
    required=True,
    help="Blocks, or all. Options in braces: 'se, {block: se, ratio: 8, stages: [3]}'.",
)
@click.option("--at", help="Place of the blocks that do not name one in braces.  [default: each at its own]")
@seeds_option(3)
@BUDGET
@OUT
@formats("text: a table in Markdown; json: the measurements of each training, and what they say.", "json")
@click.pass_context
def blocks(
    context: click.Context,
    recipe: str,
    overrides: tuple[str, ...],
    blocks: str,
    at: str | None,
    seeds: int,
    budget: float | None,
    out: Path | None,
    form: str,
) -> None:
    """Train RECIPE, of a network for images, with different attention blocks and with none, and compare them.

    Each block takes the place of the recipe's blocks. The table has mean and standard deviation over the
    seeds, and the mean difference to the network without blocks that was trained with the same seeds: same
    data in the same order, changed in the same way. Numbers in brackets are its 95 % interval; if it contains
    0, these trainings do not tell a block from none. Run the same command again to resume it.

    \b
    seq2attn bench blocks digits --blocks "se, eca, cbam"
    seq2attn bench blocks my.yaml --blocks "{block: nonlocal, score: dot}, se" --at after --seeds 5
    seq2attn bench blocks digits training.max_epochs=2 --blocks all --out runs/blocks
    """
    from seq2attn.attention.blocks import BLOCKS
    from seq2attn.recipe import read
    from seq2attn.runs.block_bench import NONE, compare, figure, summary, table, variants

    basis = read(recipe, overrides)
    compared = variants(basis, _parts("--blocks", blocks, list(BLOCKS), "block", (NONE,)), at)
    folder = out or Path("runs") / f"bench-{basis.name}"
    rows = compare(recipe, compared, folder, seeds, budget, overrides, partial(click.echo, err=True))
    measured = {"rows": [row.to_json() for row in rows], "summary": summary(rows)}
    _finish(context, rows, folder, table(rows), measured if form == "json" else None, figure)


def _finish(
    context: click.Context,
    rows: "Sequence[Row]",
    folder: Path,
    table: str,
    measured: Any,
    figure: "Callable[[Sequence[Row], Path], None]",
) -> None:
    """Write table and figure, print the table or, if there are any, the measurements; exit with 1 if a row
    failed."""
    (folder / "table.md").write_text(table, encoding="utf-8")
    text = table if measured is None else json.dumps(measured, indent=2, ensure_ascii=False) + "\n"
    click.echo(text, nl=False)
    if any(not row.failed for row in rows):
        figure(rows, folder / "table.png")
    click.echo(f"rows, table and figure are in {folder}", err=True)
    context.exit(int(any(row.failed for row in rows)))


def _parts(
    option: str, text: str | None, choices: list[str], key: str = "name", also: tuple[str, ...] = ()
) -> list[Any]:
    """Return the parts in a comma-separated YAML list. Seq2attnError for a name that is not in choices.

    key: of the name of a part with options; also: further valid names.
    """
    import yaml

    from seq2attn.recipe.wording import from_plugins, unknown

    if text is None or text == "all":
        return choices if text else []
    if not text.strip():
        raise Seq2attnError(f"{option} is empty: give names separated by commas, or all")
    try:
        parts = list(yaml.safe_load(f"[{text}]"))
    except yaml.YAMLError as error:
        raise Seq2attnError(
            f"{option}: expected names separated by commas, as in '{choices[0]}, {{{key}: {choices[1]}}}'; "
            f"got {text!r}"
        ) from error
    for part in parts:
        name = part.get(key) if isinstance(part, dict) else part
        name = name.get("name") if isinstance(name, dict) else name
        if name not in (*choices, *also):
            raise Seq2attnError(f"{option}: {unknown(str(name), choices, more=from_plugins())}")
    return parts
