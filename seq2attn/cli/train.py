"""Commands that make runs: train, check, average, bench."""

import shlex
from pathlib import Path
from typing import Any

import click

from seq2attn.cli.options import DEVICE, OVERRIDES, RECIPE, RUN, cli
from seq2attn.errors import Seq2attnError


@cli.command()
@RECIPE
@OVERRIDES
@click.option("--run", type=click.Path(path_type=Path), help="The run's folder.  [default: runs/NAME]")
@click.option("--resume", is_flag=True, help="Go on exactly where the run in the folder stopped.")
@DEVICE
@click.pass_context
def train(
    context: click.Context,
    recipe: str,
    overrides: tuple[str, ...],
    run: Path | None,
    resume: bool,
    device: str,
) -> None:
    """Train what RECIPE says (a file, or the name of one that ships).

    \b
    seq2attn train recipes/quickstart.yaml
    seq2attn train quickstart model.decoder.attention.score=general --run runs/general
    seq2attn train quickstart --resume
    """
    from seq2attn.metrics import score_lines
    from seq2attn.runs.evaluation import signature
    from seq2attn.runs.training_run import train

    trained = train(recipe, run, overrides, resume, device)
    if trained.progress.interrupted:
        words = ["seq2attn", "train", recipe, *overrides, "--run", str(trained.run), "--device", device]
        again = shlex.join([*words, "--resume"])
        click.echo(f"stopped after step {trained.progress.step}, all saved; go on with: {again}", err=True)
        context.exit(128 + trained.progress.interrupted)
    for line in score_lines(("", score) for score in trained.scores):
        click.echo(line)
    if trained.scores:
        click.echo(signature(trained.run, trained.model))
    click.echo(f"the run is in {trained.run}", err=True)


@cli.command()
@RECIPE
@OVERRIDES
@click.option(
    "--pairs",
    type=click.IntRange(1),
    default=50_000,
    show_default=True,
    help="Read at most so many of each training corpus.",
)
@DEVICE
def check(recipe: str, overrides: tuple[str, ...], pairs: int, device: str) -> None:
    """Try RECIPE before training: faults, data, vocabulary, model, one step, memory and time.

    \b
    seq2attn check recipes/wmt_transformer.yaml
    seq2attn check my.yaml data.train.0.limit=1000
    """
    from seq2attn.recipe import read
    from seq2attn.runs.dry_run import check

    for line in check(read(recipe, overrides), pairs, device):
        click.echo(line)


@cli.command()
@RUN
@click.option("--last", type=click.IntRange(1), required=True, help="So many of the last kept weights.")
@DEVICE
def average(run: Path, last: int, device: str) -> None:
    """Average the last weights of RUN; they become its best if they score better on the dev set.

    \b
    seq2attn average runs/quickstart --last 5
    seq2attn translate runs/quickstart --checkpoint average in.de
    """
    from seq2attn.runs.training_run import average_run

    folder = average_run(run, last, device)
    click.echo(f"{folder.path / 'weights' / folder.version.average}; best: {folder.version.best}")


@cli.group()
def bench() -> None:
    """Compare variants of a recipe."""


@bench.command()
@RECIPE
@OVERRIDES
@click.option("--scorers", help="Names (options in braces: 'dot, {name: general, rank: 8}'), or all.")
@click.option("--normalizers", help="The same of normalizers.")
@click.option("--also", multiple=True, metavar="KEY=VALUE", help="One more variant; may be given again.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Trainings of each.")
@click.option("--budget", type=click.FloatRange(0, min_open=True), help="Minutes of training for each.")
@click.option("--gold", type=click.Path(exists=True, path_type=Path), help="Word alignments of the test set.")
@click.option("--out", type=click.Path(path_type=Path), help="Where all goes.  [default: runs/bench-NAME]")
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
    out: Path | None,
) -> None:
    """Train each attention from the same RECIPE and compare them; call it again to go on where it stopped.

    \b
    seq2attn bench attention copy_additive --scorers "additive, dot" --normalizers "softmax, monotonic"
    seq2attn bench attention my.yaml --scorers all --budget 3 --seeds 2 --out runs/bench
    seq2attn bench attention my.yaml --also "model.decoder.latent=marginal model.decoder.top=4"
    """
    from seq2attn.attention.normalizers import NORMALIZERS
    from seq2attn.attention.scorers import SCORERS
    from seq2attn.recipe import read
    from seq2attn.runs.attention_bench import compare, figure, table, variants

    basis = read(recipe, overrides)
    some = _parts("--scorers", scorers, list(SCORERS))
    others = _parts("--normalizers", normalizers, list(NORMALIZERS))
    place = out or Path("runs") / f"bench-{basis.name}"
    rows = compare(
        recipe,
        variants(basis, some, others, also),
        place,
        seeds,
        budget,
        gold,
        overrides,
        lambda line: click.echo(line, err=True),
    )
    (place / "table.md").write_text(table(rows), encoding="utf-8")
    click.echo(table(rows), nl=False)
    if any(not row.failed for row in rows):
        figure(rows, place / "table.png")
    click.echo(f"rows, table and figure are in {place}", err=True)
    context.exit(int(any(row.failed for row in rows)))


def _parts(option: str, text: str | None, every: list[str]) -> list[Any]:
    """The names (and options) in a list as YAML has it. Seq2attnError for a name that is not of every one."""
    import yaml

    from seq2attn.recipe.wording import unknown

    if text is None or text == "all":
        return every if text else []
    if not text.strip():
        raise Seq2attnError(f"{option} names nothing: give names with commas between, or all")
    try:
        parts = list(yaml.safe_load(f"[{text}]"))
    except yaml.YAMLError as error:
        raise Seq2attnError(
            f"{option}: expected names with commas between, as in 'dot, {{name: general, rank: 8}}'; "
            f"got {text!r}"
        ) from error
    for part in parts:
        name = part.get("name") if isinstance(part, dict) else part
        if name not in every:
            raise Seq2attnError(f"{option}: {unknown(str(name), every)}")
    return parts
