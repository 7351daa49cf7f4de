"""Whole runs: from a recipe to a scored model."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from seq2attn.data import Examples
from seq2attn.metrics import METRICS, Score
from seq2attn.recipe import AnyRecipe, LocatedFault, RecipeError, read, write
from seq2attn.runs.evaluation import best, read_examples, validator
from seq2attn.runtime.devices import pick_device
from seq2attn.tasks.loading import learn, reopen
from seq2attn.tasks.task import Task
from seq2attn.training.display import Display
from seq2attn.training.loop import (
    Progress,
    Report,
    Trainer,
    average_last,
    fit,
    total_steps,
)
from seq2attn.training.run_folder import RunError, RunFolder, Version, load_weights, require_empty
from seq2attn.version import __version__

# What may change when a run goes on: how long it lasts.
MAY_CHANGE = ("max_steps", "max_epochs", "max_minutes", "early_stopping")


class Trained(NamedTuple):
    """What training leaves: the model with its best weights, and what it scores."""

    run: Path
    progress: Progress
    model: Any  # a Translator, Recognizer or Categorizer, as the task is
    scores: list[Score]  # on the test set; empty if the recipe names none, or training was interrupted


def train(
    recipe: str | Path | AnyRecipe,
    run: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    device: str = "auto",
    display: Display | None = None,
) -> Trained:
    """Train what a recipe says, in a new run folder (`runs/NAME` by default), or go on with `resume`.

    overrides: as on the command line, ["training.max_epochs=3"]. Ends with the best weights loaded, scored on
    the test set where the recipe names one. A second call with resume=True goes on exactly where the first
    stopped, whatever stopped it.
    """
    if isinstance(recipe, str | Path):
        recipe = read(recipe, [overrides] if isinstance(overrides, str) else overrides)
    elif overrides:
        raise RecipeError(
            [LocatedFault("recipe", 0, "", "a Recipe is read already: give overrides to `read`")]
        )
    path = Path(run or Path("runs") / recipe.name)
    folder = _begun(path, recipe) if resume else None
    if folder is None:
        require_empty(path)
    place = pick_device(device)
    with _settled(recipe), display or Display() as shown:
        task = reopen(folder) if folder else learn(recipe)
        training, dev = read_examples(task, "train", shown), read_examples(task, "dev", shown)
        # what cannot be read is found now, not at the end
        test = None if recipe.data.test is None else read_examples(task, "test", shown)
        folder = _same_data(folder, training) if folder else _new(path, task, training)
        model, settings, loader = task.build(), recipe.training, task.loader(training, training=True)
        total = total_steps(settings, loader)
        trainer = Trainer(model, task.objective(model, True), settings, place, total, recipe.seed)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        shown.say(f"{len(training):,} {task.units.examples}, {parameters:,} parameters, on {place}")
        validate = validator(task, model, dev, place)
        progress = fit(folder, trainer, loader, validate, _report(shown, folder, recipe))
        predictor = task.predictor(model, place)
        if progress.interrupted:
            return Trained(path, progress, predictor, [])
        load_weights(model, folder.load_weights("best"), folder.path)
        shown.say(f"best: {best(folder)}")
        if test is None:
            return Trained(path, progress, predictor, [])
        evaluation = task.evaluate(predictor, test, settings.metrics)
        return Trained(path, progress, predictor, list(evaluation.scores.values()))


def average_run(run: str | Path, count: int, device: str = "auto") -> RunFolder:
    """Average the last `count` kept weights of a run into weights/average-N.safetensors."""
    folder = RunFolder.open(run)
    there = len(folder.last_weights(count))
    if count < 1 or there < count:
        raise RunError(
            f"cannot average the last {count} weights: {folder.path} keeps {there}; "
            "train with training.keep_last at least as large"
        )
    task, place = reopen(folder), pick_device(device)
    model, dev = task.build(), read_examples(task, "dev", Display())
    trainer = Trainer(model, task.objective(model), task.recipe.training, place, None)
    average_last(folder, trainer, count, validator(task, model, dev, place), Display())
    return folder


def _new(path: Path, task: Task[Any], training: Examples) -> RunFolder:
    """A run's folder, made when all that can be wrong with its data has been found."""
    version = Version(seq2attn=__version__, data=training.fingerprint)
    return RunFolder.create(path, task.recipe, version, task.files())


def _begun(path: Path, recipe: AnyRecipe) -> RunFolder:
    """The folder of a run that goes on; its recipe may have changed in how long it lasts."""
    folder = RunFolder.open(path)
    was, now = folder.recipe.model_dump(mode="json"), recipe.model_dump(mode="json")
    for one in (was, now):
        for key in MAY_CHANGE:
            one["training"].pop(key)
    changed = [key for key in now if was[key] != now[key]]
    if changed:
        raise RunError(
            f"{path} was begun with another recipe: {', '.join(changed)} differ from its recipe.yaml. "
            f"Go on with `seq2attn train {path}/recipe.yaml --run {path} --resume`, or train in a new folder"
        )
    write(recipe, path / "recipe.yaml")  # it may last longer now
    return folder


def _same_data(folder: RunFolder, training: Examples) -> RunFolder:
    """A run goes on with the data that it began with."""
    if folder.version.data != training.fingerprint:
        raise RunError(
            f"the training data are not those with which {folder.path} was begun (fingerprint "
            f"{training.fingerprint}, then {folder.version.data}): restore them, or train in a new folder"
        )
    return folder


@contextlib.contextmanager
def _settled(recipe: AnyRecipe) -> Iterator[None]:
    """Everything random is settled before anything is built; torch's algorithms are then as they were."""
    torch.manual_seed(recipe.seed)
    before = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    if recipe.training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)


def _report(display: Display, folder: RunFolder, recipe: AnyRecipe) -> Report:
    """Records go to the terminal, and to TensorBoard where the recipe wants it."""
    board = _board(folder.path) if recipe.training.tensorboard else None

    def report(record: dict[str, Any]) -> None:
        display(record)
        if board is not None and "step" in record:
            board(record)

    return report


def _board(path: Path) -> Callable[[dict[str, Any]], None]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RunError(
            "training.tensorboard needs it installed: pip install seq2attn[tensorboard]"
        ) from error
    writer = SummaryWriter(str(path / "tensorboard"))

    def write(record: dict[str, Any]) -> None:
        kind = "training" if "norm" in record else "dev"
        for name in ("loss", *record.get("parts", ()), "norm", "learning_rate", "perplexity", *METRICS):
            if name in record:
                writer.add_scalar(f"{kind}/{name}", record[name], record["step"])

    return write
