"""The commands `train`, `check` and `average`."""

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from seq2attn.cli.options import DEVICE, OVERRIDES, OWN_RUN, RECIPE, OwnRunPath, cli, formats
from seq2attn.cli.sharing import PROCESSES

if TYPE_CHECKING:
    from seq2attn.training.loop import Progress


def _numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> list[int] | None:
    """Return the different numbers of a list with commas."""
    if value is None:
        return None
    try:
        numbers = [int(part) for part in value.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"expected numbers, as in 1,2,3; got {value!r}") from error
    if len({*numbers}) < len(numbers):
        raise click.BadParameter(f"expected each seed once, got {value}")
    return numbers


@cli.command()
@RECIPE
@OVERRIDES
@click.option("--run", type=OwnRunPath(), help="The folder of the run.  [default: runs/NAME]")
@click.option("--resume", is_flag=True, help="Resume the run in this folder exactly where it stopped.")
@click.option(
    "--resume-or-start", is_flag=True, help="Resume the run in this folder; start it if there is none."
)
@click.option(
    "--seeds",
    metavar="1,2,3",
    callback=_numbers,
    help="Train with each of these seeds, one after another, in runs NAME-seed1, NAME-seed2, ...",
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
    seeds: list[int] | None,
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
    seq2attn train quickstart --seeds 1,2,3
    """
    if seeds is not None:
        if "RANK" in os.environ:
            raise click.UsageError("--seeds trains one run after another: leave out --processes")
        _train_seeds(context, recipe, overrides, run, seeds, resume or resume_or_start, form, device)
        return
    from seq2attn.metrics import score_lines
    from seq2attn.runs.evaluation import signature
    from seq2attn.runs.training_run import train
    from seq2attn.runtime.process import is_first

    trained = train(recipe, run, overrides, "auto" if resume_or_start else resume, device)
    if not is_first():
        context.exit(128 + trained.progress.interrupted if trained.progress.interrupted else 0)
    if trained.progress.interrupted:
        command = ["seq2attn", "train", recipe, *overrides, "--run", str(trained.run), "--device", device]
        several = ["--processes", os.environ["WORLD_SIZE"]] if "RANK" in os.environ else []
        _stop(context, trained.progress, [*command, *several, "--resume"])
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


def _train_seeds(
    context: click.Context,
    recipe: str,
    overrides: tuple[str, ...],
    run: str | None,
    seeds: list[int],
    resume: bool,
    form: str,
    device: str,
) -> None:
    """Train with several seeds; print the scores of each run, then mean and standard deviation.

    With resume, finished runs are only scored, one that was stopped goes on, and the others start.
    """
    from seq2attn.runs.seed_runs import SeedRuns, train_seeds

    finished = []
    for trained in train_seeds(recipe, seeds, run, overrides, "auto" if resume else False, device):
        if trained.progress.interrupted:
            command = ["seq2attn", "train", recipe, *overrides, *([] if run is None else ["--run", run])]
            command += ["--seeds", ",".join(map(str, seeds)), "--device", device, "--resume"]
            _stop(context, trained.progress, command)
        finished.append(trained)
        click.echo(f"the run is in {trained.run}", err=True)
    runs = SeedRuns(seeds, finished)
    click.echo(json.dumps(runs.to_json(), indent=2) if form == "json" else str(runs))


def _stop(context: click.Context, progress: "Progress", command: list[str]) -> None:
    """Say how an interrupted training goes on, and exit."""
    click.echo(
        f"stopped after step {progress.step}, everything is saved; resume with: {shlex.join(command)}",
        err=True,
    )
    context.exit(128 + progress.interrupted)


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
