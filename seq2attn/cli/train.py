"""The commands `train`, `check` and `average`."""

import json
import shlex
from pathlib import Path

import click

from seq2attn.cli.options import DEVICE, OVERRIDES, OWN_RUN, RECIPE, cli, formats
from seq2attn.cli.sharing import PROCESSES


@cli.command()
@RECIPE
@OVERRIDES
@click.option("--run", type=click.Path(), help="The folder of the run.  [default: runs/NAME]")
@click.option("--resume", is_flag=True, help="Resume the run in this folder exactly where it stopped.")
@click.option(
    "--resume-or-start", is_flag=True, help="Resume the run in this folder; start it if there is none."
)
@formats("text; json: each score with its signature.", "json")
@DEVICE
@PROCESSES
@click.pass_context
def train(
    context: click.Context,
    recipe: str,
    overrides: tuple[str, ...],
    run: str | None,
    resume: bool,
    resume_or_start: bool,
    form: str,
    device: str,
) -> None:
    """Train the model of RECIPE.

    RECIPE is a file, or the name of a recipe that ships.

    \b
    seq2attn train recipes/quickstart.yaml
    seq2attn train quickstart model.decoder.attention.score=general --run runs/general
    seq2attn train quickstart --resume
    seq2attn train wmt_transformer --processes 4
    """
    from seq2attn.metrics import score_lines
    from seq2attn.runs.evaluation import signature
    from seq2attn.runs.training_run import train
    from seq2attn.runtime.distributed import is_first

    trained = train(recipe, run, overrides, "auto" if resume_or_start else resume, device)
    if not is_first():
        context.exit(128 + trained.progress.interrupted if trained.progress.interrupted else 0)
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
    from seq2attn.runs.dry_run import check
    from seq2attn.runs.recipe_argument import recipe_of

    report = check(recipe_of(recipe, overrides), pairs, device)
    if form == "json":
        rows = [{"about": heading, "text": text} for heading, text in report]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for heading, text in report:
        click.echo(f"{heading:<11} {text}")


@cli.command()
@OWN_RUN
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
