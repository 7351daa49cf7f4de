"""A whole training run: from a recipe to a scored model in a run folder."""

import contextlib
import inspect
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from seq2attn.data.examples import ExampleSet
from seq2attn.errors import Seq2attnError, require_type
from seq2attn.metrics import METRICS, Score
from seq2attn.recipe import AnyRecipe
from seq2attn.recipe.wording import shown
from seq2attn.runs.evaluation import best, read_examples, validator
from seq2attn.runs.recipe_argument import recipe_of
from seq2attn.runtime.devices import autocast, pick_device
from seq2attn.runtime.locks import locked
from seq2attn.tasks.loading import learn, reopen
from seq2attn.tasks.task import Task
from seq2attn.training.advice import advice
from seq2attn.training.display import Display
from seq2attn.training.loop import (
    Progress,
    Record,
    Report,
    TrainingError,
    average_last,
    epoch_steps,
    fit,
    total_steps,
)
from seq2attn.training.run_folder import LOCK, RunError, RunFolder, require_empty
from seq2attn.training.trainer import Trainer
from seq2attn.training.version_file import Version, environment
from seq2attn.training.weights import load_weights
from seq2attn.version import __version__

MAX_NAMED = 5  # changed keys in an error message
# The keys of `training` that may change when a run is resumed: those that limit its length.
MAY_CHANGE = ("max_steps", "max_epochs", "max_minutes", "early_stopping")
Callback = Callable[[dict[str, Any]], object]  # what it returns is ignored


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
    *,
    data: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
) -> Trained:
    """Train the model of a recipe in a new run folder (`runs/NAME` by default), or resume an existing run.

    At the end the best weights are loaded and, if the recipe has a test set, scored on it. With resume=True
    training continues exactly where it stopped. If it fails before anything is saved, there is no new folder.

    recipe: the name of one that ships, a file, its sections in a dict, or what `read` has returned.
    overrides: as on the command line, ["training.max_epochs=3"], or {"training.max_epochs": 3}.
    data: the recipe's train, dev or test: rows (pairs, dicts, a dataset; docs/python.md), kept in the cache.
    callbacks: functions that are called with each record of log.jsonl. What one raises ends training.
    """
    call = _calling(callbacks)
    recipe = recipe_of(recipe, overrides, data)
    require_extras(recipe)
    path = _run_path(run, recipe)
    torch_device = pick_device(device)
    with contextlib.ExitStack() as context:
        context.enter_context(_modes(recipe, torch_device))
        shown = context.enter_context(display or Display())
        folder = context.enter_context(_resumable(path, recipe, shown)) if resume else None
        if folder is None:
            require_empty(path)
        shown.show("making the vocabulary from data.train")
        task = reopen(folder) if folder else learn(recipe)
        training, dev = read_examples(task, "train", shown), read_examples(task, "dev", shown)
        # The test set is read now, so that an unreadable file is reported before training.
        test = None if recipe.data.test is None else read_examples(task, "test", shown)
        if folder is None:
            task = task.fitted(training)
            folder = context.enter_context(_new_run(path, task, training, shown))
        else:
            _require_same_data(folder, training)
            task = task.with_recipe(_with_limits(folder.recipe, recipe))
        settings, loader, model = task.recipe.training, task.loader(training, training=True), task.build()
        total = total_steps(settings, loader)
        trainer = Trainer(model, task.objective(model, True), settings, torch_device, total, recipe.seed)
        shown.say(_what_is_trained(task, len(training), trainer, epoch_steps(settings, loader)))
        validate = validator(task, model, dev, torch_device)
        # Only then, so that a resume that fails changes nothing.
        resumed = partial(folder.replace_recipe, task.recipe)
        with _what_is_saved(folder):
            progress = fit(folder, trainer, loader, validate, _report(shown, folder, task), call, resumed)
        predictor = task.predictor(model, torch_device)
        scores = list[Score]()
        if not progress.interrupted:
            load_weights(model, folder.load_weights("best"), folder.path)
            shown.say(f"best: {best(folder)}")
            if test is not None:
                scores += task.evaluate(predictor, test, settings.metrics).scores.values()
        return Trained(path, progress, predictor, scores)


def _run_path(run: object, recipe: AnyRecipe) -> Path:
    """Return the path of a run, runs/NAME if none is given. Seq2attnError for what is no path of a folder."""
    if run is None:
        return Path("runs") / recipe.name
    require_type(run, (str, Path), "run as the path of a folder")
    if run == "":
        raise RunError("run: expected a folder, got an empty text")
    return Path(cast("str | Path", run))


def _what_is_trained(task: Task[Any], examples: int, trainer: Trainer, per_epoch: int) -> str:
    """Return the size of data and model in a line, after a line for each piece of advice."""
    units, parameters = task.units.examples, sum(part.numel() for part in trainer.model.parameters())
    notes = [f"note: {line}" for line in advice(trainer.recipe, trainer.total, per_epoch, units)]
    return "\n".join([*notes, f"{examples:,} {units}, {parameters:,} parameters, on {trainer.device}"])


def _calling(callbacks: object) -> Report:
    """Return a function that calls each callback with a record of its own. Seq2attnError if one cannot be."""
    expected = "callbacks as a list of functions that take a record (a dict)"
    require_type(callbacks, (list, tuple), expected)
    listed = cast("Sequence[Callback]", callbacks)
    for callback in listed:
        require_type(callback, Callable, expected)  # type: ignore[arg-type]
        try:
            inspect.signature(callback).bind({})
        except TypeError as error:
            raise Seq2attnError(f"expected {expected}, got {callback!r:.60} ({error})") from error
        except ValueError:  # written in C, and without a signature
            pass

    def call(record: Record) -> None:
        for callback in listed:
            callback(dict(record))

    return call


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
def _new_run(path: Path, task: Task[Any], training: ExampleSet, display: Display) -> Iterator[RunFolder]:
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
def _what_is_saved(folder: RunFolder) -> Iterator[None]:
    """Add to an error of training what the folder of the run has of it."""
    try:
        yield
    except TrainingError as error:
        saved = "Nothing is saved"
        if folder.has_begun() and (state := folder.load_state()) is not None:
            saved = f"The training until step {state['progress']['step']:,} is saved"
        raise TrainingError(f"{error}. {saved}") from error


@contextlib.contextmanager
def _resumable(path: Path, recipe: AnyRecipe, display: Display) -> Iterator[RunFolder]:
    """Open and lock a run to be resumed. RunError unless it is complete and was begun with this recipe."""
    with _locked(path, display):
        folder = RunFolder.open(path)
        _require_same_recipe(folder, recipe)
        folder.require_weights()
        yield folder


def _require_same_recipe(folder: RunFolder, recipe: AnyRecipe) -> None:
    """RunError unless a run was begun with this recipe. The keys of MAY_CHANGE may differ."""
    path = folder.path
    begun = folder.recipe
    was, now = begun.model_dump(mode="json"), recipe.fitted_as(begun).model_dump(mode="json")
    for tree in (was, now):
        for key in MAY_CHANGE:
            tree["training"].pop(key)
    if changed := [f"{key} was {shown(old)}, now {shown(new)}" for key, old, new in changes(was, now)]:
        others = f"; and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
        raise RunError(
            f"{path} was begun with another recipe: {'; '.join(changed[:MAX_NAMED])}{others}. Continue with "
            f"`seq2attn train {path}/recipe.yaml --run {path} --resume`, or train in a new folder"
        )


def _with_limits(begun: AnyRecipe, recipe: AnyRecipe) -> AnyRecipe:
    """Return the recipe of a run with the limits of another, which may have changed."""
    limits = {key: getattr(recipe.training, key) for key in MAY_CHANGE}
    return begun.model_copy(update={"training": begun.training.model_copy(update=limits)})


def changes(was: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the keys that differ between two trees, with the old and the new value."""
    corpora = isinstance(was, list) and any(isinstance(item, dict) for item in was)
    if corpora and isinstance(now, list) and len(was) == len(now):
        was, now = dict(enumerate(was)), dict(enumerate(now))
    if isinstance(was, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*was, *now]):
            yield from changes(was.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif was != now:
        yield path, was, now


def _require_same_data(folder: RunFolder, training: ExampleSet) -> None:
    """RunError unless a run was begun with these training data."""
    if folder.version.data != training.fingerprint:
        raise RunError(
            f"the training data are not those with which {folder.path} was begun (fingerprint "
            f"{training.fingerprint}, then {folder.version.data}): restore them, or train in a new folder"
        )


@contextlib.contextmanager
def _modes(recipe: AnyRecipe, device: torch.device) -> Iterator[None]:
    """Set the modes of torch that training needs until the end of the context, whatever they were.

    Seeds torch; uses deterministic algorithms if the recipe says so; gradients on, autocast off (the recipe
    has its own).
    """
    torch.manual_seed(recipe.seed)
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if recipe.training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        with torch.inference_mode(False), torch.enable_grad(), autocast(device, "fp32"):
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def _report(display: Display, folder: RunFolder, task: Task[Any]) -> Report:
    """Return a function that sends records to the terminal and, if the recipe says so, to TensorBoard."""
    board = task.recipe.training.tensorboard
    write_to_board = _tensorboard(folder.target("tensorboard")) if board else None

    def report(record: dict[str, Any]) -> None:
        display({**record, "unit": task.units.targets})
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
