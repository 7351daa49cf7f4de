"""A whole training run: from a recipe to a scored model in a run folder."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch

from seq2attn.data import Examples
from seq2attn.errors import require_type
from seq2attn.metrics import METRICS, Score
from seq2attn.recipe import AnyRecipe, LocatedFault, RecipeError, assignments, read
from seq2attn.recipe.wording import shown
from seq2attn.runs.evaluation import best, read_examples, validator
from seq2attn.runtime.devices import pick_device
from seq2attn.runtime.locks import locked
from seq2attn.tasks.loading import learn, reopen
from seq2attn.tasks.task import Task
from seq2attn.training.advice import advice
from seq2attn.training.display import Display
from seq2attn.training.loop import (
    Progress,
    Report,
    Trainer,
    average_last,
    epoch_steps,
    fit,
    total_steps,
)
from seq2attn.training.run_folder import LOCK, RunError, RunFolder, require_empty
from seq2attn.training.version_file import Version, environment
from seq2attn.training.weights import load_weights
from seq2attn.version import __version__

MAX_NAMED = 5  # changed keys in an error message
# The keys of `training` that may change when a run is resumed: those that limit its length.
MAY_CHANGE = ("max_steps", "max_epochs", "max_minutes", "early_stopping")


class Trained(NamedTuple):
    """The result of training: the run's path, the model with its best weights, and its scores."""

    run: Path
    progress: Progress
    model: Any  # the predictor of the task: a Translator, Summarizer, Recognizer or Categorizer
    scores: list[Score]  # on the test set; empty if the recipe has none, or training was interrupted

    def __repr__(self) -> str:
        numbers = [score.number for score in self.scores]
        stopped = ["interrupted"] if self.progress.interrupted else []
        summary = ", ".join([f"{self.progress.step:,} updates", *stopped, *numbers])
        return f"Trained({str(self.run)!r}: {summary})"


def train(
    recipe: str | Path | AnyRecipe | Mapping[str, Any],
    run: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    resume: bool = False,
    device: str = "auto",
    display: Display | None = None,
) -> Trained:
    """Train the model of a recipe in a new run folder (`runs/NAME` by default), or resume an existing run.

    At the end the best weights are loaded and, if the recipe has a test set, scored on it. With resume=True
    training continues exactly where it stopped. If it fails before anything is saved, there is no new folder.

    recipe: the name of one that ships, a file, its sections in a dict, or what `read` has returned.
    overrides: as on the command line, ["training.max_epochs=3"], or {"training.max_epochs": 3}.
    """
    recipe = _recipe(recipe, overrides)
    require_extras(recipe)
    path = Path(run or Path("runs") / recipe.name)
    torch_device = pick_device(device)
    with contextlib.ExitStack() as context:
        context.enter_context(_seeded(recipe))
        shown = context.enter_context(display or Display())
        folder = context.enter_context(_resumable(path, recipe, shown)) if resume else None
        if folder is None:
            require_empty(path)
        task = reopen(folder) if folder else learn(recipe)
        training, dev = read_examples(task, "train", shown), read_examples(task, "dev", shown)
        # The test set is read now, so that an unreadable file is reported before training.
        test = None if recipe.data.test is None else read_examples(task, "test", shown)
        if folder is None:
            task = task.fitted(training)
            folder = context.enter_context(_new_run(path, task, training, shown))
        else:
            _require_same_data(folder, training)
        model, settings, loader = task.build(), recipe.training, task.loader(training, training=True)
        total = total_steps(settings, loader)
        trainer = Trainer(model, task.objective(model, True), settings, torch_device, total, recipe.seed)
        for line in advice(settings, total, epoch_steps(settings, loader), task.units.examples):
            shown.say(f"note: {line}")
        parameters = sum(parameter.numel() for parameter in model.parameters())
        shown.say(f"{len(training):,} {task.units.examples}, {parameters:,} parameters, on {torch_device}")
        validate = validator(task, model, dev, torch_device)
        # Only then, so that a resume that fails changes nothing.
        resumed = partial(folder.replace_recipe, _with_limits(folder.recipe, recipe))
        progress = fit(folder, trainer, loader, validate, _report(shown, folder, recipe), resumed)
        predictor = task.predictor(model, torch_device)
        if progress.interrupted:
            return Trained(path, progress, predictor, [])
        load_weights(model, folder.load_weights("best"), folder.path)
        shown.say(f"best: {best(folder)}")
        if test is None:
            return Trained(path, progress, predictor, [])
        evaluation = task.evaluate(predictor, test, settings.metrics)
        return Trained(path, progress, predictor, list(evaluation.scores.values()))


def _recipe(recipe: str | Path | AnyRecipe | Mapping[str, Any], overrides: object) -> AnyRecipe:
    """Return the recipe that `train` was called with."""
    kinds = "a recipe: the name of one that ships, a path, a dict of its sections, or a Recipe"
    require_type(recipe, (str, Path, Mapping, AnyRecipe), kinds)
    listed = assignments(overrides)
    if not isinstance(recipe, AnyRecipe):
        return read(recipe, listed)
    if listed:
        raise RecipeError(
            [LocatedFault("recipe", 0, "", "a Recipe cannot have overrides: give them to `read`")]
        )
    return recipe


def require_extras(recipe: AnyRecipe) -> None:
    """Raise RunError if the recipe needs a package that is not installed."""
    if recipe.training.tensorboard:
        try:
            import_module("torch.utils.tensorboard")
        except ImportError as error:
            raise RunError("training.tensorboard needs TensorBoard: pip install tensorboard") from error


def average_run(run: str | Path, count: int, device: str = "auto") -> RunFolder:
    """Average the last `count` kept weights of a run into weights/average-N.safetensors."""
    display = Display()
    with _locked(Path(run), display):
        return _average_run(RunFolder.open(run), count, device, display)


def _average_run(folder: RunFolder, count: int, device: str, display: Display) -> RunFolder:
    kept = len(folder.last_weights(folder.recipe.training.keep_last))
    if count < 1 or kept < count:
        raise RunError(
            f"cannot average the last {count} weights: {folder.path} keeps {kept}; "
            "train with training.keep_last at least as large"
        )
    task, torch_device = reopen(folder), pick_device(device)
    model, dev = task.build(), read_examples(task, "dev", display)
    trainer = Trainer(model, task.objective(model), task.recipe.training, torch_device, None)
    average_last(folder, trainer, count, validator(task, model, dev, torch_device), display)
    return folder


@contextlib.contextmanager
def _locked(path: Path, display: Display) -> Iterator[None]:
    """Lock a run's folder until the end of the context. RunError if it is none."""
    folder = RunFolder.open(path)  # or the lock would be left in a folder that is no run
    with locked(path / LOCK, display.say):
        folder.sweep()
        yield


@contextlib.contextmanager
def _new_run(path: Path, task: Task[Any], training: Examples, display: Display) -> Iterator[RunFolder]:
    """Make the folder of a new run, and lock it. It is removed if training fails before anything is saved."""
    version = Version(seq2attn=__version__, data=training.fingerprint, environment=environment())
    folder = RunFolder.create(path, task.recipe, version, task.files())
    with _locked(path, display):
        try:
            yield folder
        except BaseException:
            if not folder.has_begun():
                shutil.rmtree(path, ignore_errors=True)
            raise


@contextlib.contextmanager
def _resumable(path: Path, recipe: AnyRecipe, display: Display) -> Iterator[RunFolder]:
    """Open a run to be resumed, and lock it. RunError unless it was begun with this recipe."""
    with _locked(path, display):
        folder = RunFolder.open(path)
        _require_same_recipe(folder, recipe)
        yield folder


def _require_same_recipe(folder: RunFolder, recipe: AnyRecipe) -> None:
    """RunError unless a run was begun with this recipe. The keys of MAY_CHANGE may differ."""
    path = folder.path
    begun = folder.recipe
    was, now = begun.model_dump(mode="json"), recipe.fitted_as(begun).model_dump(mode="json")
    for tree in (was, now):
        for key in MAY_CHANGE:
            tree["training"].pop(key)
    if changed := list(_changes(was, now)):
        others = f"; and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
        raise RunError(
            f"{path} was begun with another recipe: {'; '.join(changed[:MAX_NAMED])}{others}. Continue with "
            f"`seq2attn train {path}/recipe.yaml --run {path} --resume`, or train in a new folder"
        )


def _with_limits(begun: AnyRecipe, recipe: AnyRecipe) -> AnyRecipe:
    """Return the recipe of a run with the limits of another, which may have changed."""
    limits = {key: getattr(recipe.training, key) for key in MAY_CHANGE}
    return begun.model_copy(update={"training": begun.training.model_copy(update=limits)})


def _changes(was: Any, now: Any, path: str = "") -> Iterator[str]:
    """Yield the keys that differ between two trees, with the old and the new value."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*was, *now]):
            yield from _changes(was.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif was != now:
        yield f"{path} was {shown(was)}, now {shown(now)}"


def _require_same_data(folder: RunFolder, training: Examples) -> None:
    """RunError unless a run was begun with these training data."""
    if folder.version.data != training.fingerprint:
        raise RunError(
            f"the training data are not those with which {folder.path} was begun (fingerprint "
            f"{training.fingerprint}, then {folder.version.data}): restore them, or train in a new folder"
        )


@contextlib.contextmanager
def _seeded(recipe: AnyRecipe) -> Iterator[None]:
    """Seed torch, and use deterministic algorithms, if the recipe says so, until the end of the context."""
    torch.manual_seed(recipe.seed)
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if recipe.training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def _report(display: Display, folder: RunFolder, recipe: AnyRecipe) -> Report:
    """Return a function that sends records to the terminal and, if the recipe says so, to TensorBoard."""
    write_to_board = _tensorboard(folder.target("tensorboard")) if recipe.training.tensorboard else None

    def report(record: dict[str, Any]) -> None:
        display(record)
        if write_to_board is not None and "step" in record:
            write_to_board(record)

    return report


def _tensorboard(path: Path) -> Report:
    """Return a function that writes the numbers of a record to TensorBoard files in a folder."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(path))

    def write(record: dict[str, Any]) -> None:
        group = "training" if "norm" in record else "dev"
        for name in ("loss", *record.get("parts", ()), "norm", "learning_rate", "perplexity", *METRICS):
            if name in record:
                writer.add_scalar(f"{group}/{name}", record[name], record["step"])

    return write
