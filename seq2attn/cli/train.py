"""The commands `train`, `check`, `average` and `bench`."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from seq2attn.cli.options import DEVICE, OVERRIDES, RECIPE, RUN, cli, formats
from seq2attn.errors import Seq2attnError


@cli.command()
@RECIPE
@OVERRIDES
@click.option("--run", type=click.Path(path_type=Path), help="The folder of the run.  [default: runs/NAME]")
@click.option("--resume", is_flag=True, help="Resume the run in this folder exactly where it stopped.")
@formats("text; json: each score with its signature.", "json")
@DEVICE
@click.pass_context
def train(
    context: click.Context,
    recipe: str,
    overrides: tuple[str, ...],
    run: Path | None,
    resume: bool,
    form: str,
    device: str,
) -> None:
    """Train the model of RECIPE.

    RECIPE is a file, or the name of a recipe that ships.

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
        command = ["seq2attn", "train", recipe, *overrides, "--run", str(trained.run), "--device", device]
        again = shlex.join([*command, "--resume"])
        click.echo(
            f"stopped after step {trained.progress.step}, everything is saved; resume with: {again}", err=True
        )
        context.exit(128 + trained.progress.interrupted)
    settings = signature(trained.run, trained.model)
    if form == "json":
        scores = [score.to_json() for score in trained.scores]
        report = {"run": str(trained.run), "updates": trained.progress.step, "signature": settings}
        click.echo(json.dumps({**report, "scores": scores}, indent=2))
        return
    for line in score_lines(("", score) for score in trained.scores):
        click.echo(line)
    if trained.scores:
        click.echo(settings)
    click.echo(f"the run is in {trained.run}", err=True)


@cli.command()
@RECIPE
@OVERRIDES
@click.option(
    "--pairs",
    type=click.IntRange(1),
    default=50_000,
    show_default=True,
    help="Read at most this many examples of each training corpus.",
)
@formats("text; json: the lines of the report, each with what it is about.", "json")
@DEVICE
def check(recipe: str, overrides: tuple[str, ...], pairs: int, form: str, device: str) -> None:
    """Check RECIPE before training.

    Reports all faults of the recipe at once. If there are none, reads the data, learns the vocabulary, builds
    the model, tries an update, and estimates memory and time.

    \b
    seq2attn check recipes/wmt_transformer.yaml
    seq2attn check my.yaml data.train.0.limit=1000
    """
    from seq2attn.recipe import read
    from seq2attn.runs.dry_run import check

    report = check(read(recipe, overrides), pairs, device)
    if form == "json":
        rows = [{"about": heading, "text": text} for heading, text in report]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for heading, text in report:
        click.echo(f"{heading:<11} {text}")


@cli.command()
@RUN
@click.option(
    "--last", type=click.IntRange(1), required=True, help="How many of the last saved weights to average."
)
@formats("text; json: the file and the best weights.", "json")
@DEVICE
def average(run: Path, last: int, form: str, device: str) -> None:
    """Average the last weights of RUN. The average becomes `best` if it scores better on the dev set.

    \b
    seq2attn average runs/quickstart --last 5
    seq2attn translate runs/quickstart --checkpoint average in.de
    """
    from seq2attn.runs.training_run import average_run

    folder = average_run(run, last, device)
    file, best = str(folder.path / "weights" / str(folder.version.average)), folder.version.best
    click.echo(json.dumps({"average": file, "best": best}) if form == "json" else f"{file}; best: {best}")


@cli.group()
def bench() -> None:
    """Train variants of a recipe and compare them."""


@bench.command()
@RECIPE
@OVERRIDES
@click.option("--scorers", help="Scorers, or all. Options in braces: 'dot, {name: general, rank: 8}'.")
@click.option("--normalizers", help="Normalizers, or all, in the same form.")
@click.option("--also", multiple=True, metavar="KEY=VALUE", help="Another variant. May be repeated.")
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Trainings of each variant, with different seeds.",
)
@click.option(
    "--budget", type=click.FloatRange(0, min_open=True), help="Minutes of training for each variant."
)
@click.option(
    "--gold",
    type=click.Path(exists=True, path_type=Path),
    help="Gold word alignments of the test set, for AER.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The folder for runs, table and figure.  [default: runs/bench-NAME]",
)
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
        lambda line: click.echo(line, err=True),
    )
    (folder / "table.md").write_text(table(rows), encoding="utf-8")
    measured = json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False)
    click.echo(f"{measured}\n" if form == "json" else table(rows), nl=False)
    if any(not row.failed for row in rows):
        figure(rows, folder / "table.png")
    click.echo(f"rows, table and figure are in {folder}", err=True)
    context.exit(int(any(row.failed for row in rows)))


def _parts(option: str, text: str | None, choices: list[str]) -> list[Any]:
    """Return the parts in a comma-separated YAML list. Seq2attnError for a name that is not in choices."""
    import yaml

    from seq2attn.recipe.wording import FROM_PLUGINS, unknown

    if text is None or text == "all":
        return choices if text else []
    if not text.strip():
        raise Seq2attnError(f"{option} is empty: give names separated by commas, or all")
    try:
        parts = list(yaml.safe_load(f"[{text}]"))
    except yaml.YAMLError as error:
        raise Seq2attnError(
            f"{option}: expected names separated by commas, as in 'dot, {{name: general, rank: 8}}'; "
            f"got {text!r}"
        ) from error
    for part in parts:
        name = part.get("name") if isinstance(part, dict) else part
        if name not in choices:
            raise Seq2attnError(f"{option}: {unknown(str(name), choices, more=FROM_PLUGINS)}")
    return parts
