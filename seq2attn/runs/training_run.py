"""A whole training run: from a recipe to a scored model in a run folder."""

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from rich.console import Console
from torch import nn

from seq2attn.data.examples import ExampleSet
from seq2attn.errors import Seq2attnError, require_type
from seq2attn.metrics import METRICS, Score
from seq2attn.recipe import AnyRecipe
from seq2attn.runs.evaluation import best, left_out, no_value, read_examples, validator
from seq2attn.runs.initial_weights import unused_note
from seq2attn.runs.opening import built, following, locked_run, opened
from seq2attn.runs.recipe_argument import recipe_of
from seq2attn.runtime.devices import autocast, pick_device
from seq2attn.runtime.distributed import Group, joined, require_equal
from seq2attn.tasks.loading import reopen
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
from seq2attn.training.onlooker import to_json
from seq2attn.training.run_folder import RunError, RunFolder
from seq2attn.training.samples import sample, save_sample
from seq2attn.training.trainer import Trainer
from seq2attn.training.weights import load_weights

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
    resume: bool | Literal["auto"] = False,
    device: str = "auto",
    display: Display | None = None,
    *,
    data: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
) -> Trained:
    """Train the model of a recipe in a new run folder (`runs/NAME` by default), or resume an existing run.

    At the end the best weights are loaded and, if the recipe has a test set, scored on it. With resume=True
    training continues exactly where it stopped, with "auto" it does so if there is a run in the folder. If it
    fails before anything is saved, there is no new folder.

    Processes that torchrun has started train the model together, with the same result (docs/scale.md).

    recipe: the name of one that ships, a file, its sections in a dict, or what `read` has returned.
    overrides: as on the command line, ["training.max_epochs=3"], or {"training.max_epochs": 3}.
    data: the recipe's train, dev or test: rows (pairs, dicts, a dataset; docs/python.md), kept in the cache.
    callbacks: functions that are called with each record of log.jsonl. What one raises ends training.
    """
    call = _calling(callbacks)
    recipe = recipe_of(recipe, overrides, data)
    require_extras(recipe)
    path = _run_path(run, recipe)
    with contextlib.ExitStack() as context:
        group = context.enter_context(joined())
        torch_device = pick_device(device)
        context.enter_context(_modes(recipe, torch_device))
        shown = context.enter_context(_display(display, group))
        begun = partial(opened, path, recipe, resume, shown, torch_device)
        source = begun() if group.first else following(path, group, shown)
        folder, task, training, dev, test, start = context.enter_context(source)
        if group.first:
            group.announce(to_json(folder, task.recipe))
        group.meet()  # others may still read and tokenise what this one has in its cache
        require_equal(group, "training data", training.fingerprint)
        settings, loader = task.recipe.training, task.loader(training, True, group)
        model = built(task, start, shown)
        total, objective = total_steps(settings, loader), task.objective(model, True)
        trainer = Trainer(model, objective, settings, torch_device, total, recipe.seed, group)
        shown.say(_what_is_trained(task, training, dev, trainer, epoch_steps(settings, loader)))
        validate = validator(task, model, dev, torch_device, group)
        predictor = task.predictor(model, torch_device)
        # Only then, so that a resume that fails changes nothing.
        resumed = partial(_resumed, folder, task.recipe, group, shown)
        with _what_is_saved(folder):
            report, illustrate = _shown(group, shown, folder, task, predictor)
            call = call if group.first else _silent
            progress = fit(folder, trainer, loader, validate, report, call, resumed, illustrate)
        if progress.interrupted:
            return Trained(path, progress, predictor, [])
        model, predictor = _whole(trainer, task, predictor)
        load_weights(model, group.from_first(partial(folder.load_weights, "best")), folder.path)
        shown.say(f"best: {best(folder)}")
        return Trained(path, progress, predictor, _scores(task, predictor, test, group, shown))


def _resumed(folder: RunFolder, recipe: AnyRecipe, group: Group, shown: Display, progress: Progress) -> None:
    """Keep the recipe with which training goes on; say so if that is by another number of processes."""
    folder.replace_recipe(recipe)
    if progress.processes not in (0, group.size):
        before, now = (f"{n} process{'es' * (n > 1)}" for n in (progress.processes, group.size))
        shown.say(
            f"note: {before} trained until update {progress.step:,}, and {now} from here on: the result is "
            f"that of {before} to rounding, not to the bit"
        )


def _whole(trainer: Trainer, task: Task[Any], predictor: Any) -> tuple[nn.Module, Any]:
    """Return the model that was trained, and its predictor; in the place of a sharded one, a new one."""
    if not trainer.sharded:
        return trainer.model, predictor
    model = task.build()
    return model, task.predictor(model, trainer.device)


def _scores(
    task: Task[Any], predictor: Any, test: ExampleSet | None, group: Group, shown: Display
) -> list[Score]:
    """Return the scores of a model on the test set, if there is one."""
    if test is None:
        return []
    evaluation = task.evaluate(predictor, test, task.recipe.training.metrics, group=group)
    for line in no_value(evaluation.undefined):
        shown.say(f"note: data.test: {line}")
    return [*evaluation.scores.values()]


def _display(display: Display | None, group: Group) -> Display:
    """Return what shows the progress; only the first process of a group does."""
    if group.first:
        return display or Display()
    return Display(Console(quiet=True))


def _silent(record: object) -> None:
    """Take no note of a record."""


def _run_path(run: object, recipe: AnyRecipe) -> Path:
    """Return the path of a run, runs/NAME if none is given. Seq2attnError for what is no path of a folder."""
    if run is None:
        return Path("runs") / recipe.name
    require_type(run, (str, Path), "run as the path of a folder")
    if run == "":
        raise RunError("run: expected a folder, got an empty text")
    return Path(cast("str | Path", run))


def _what_is_trained(
    task: Task[Any], training: ExampleSet, dev: ExampleSet, trainer: Trainer, per_epoch: int
) -> str:
    """Return the size of data and model in a line, after a line for each piece of advice and for each metric
    that has no value on the dev set. RunError if that is the one that chooses the best weights."""
    units, parameters = task.units.examples, sum(part.numel() for part in trainer.model.parameters())
    notes = [
        f"note: {line}"
        for line in (
            *advice(trainer.recipe, trainer.device, trainer.total, per_epoch, units, trainer.group.size),
            *left_out(task, dev),
        )
    ]
    return "\n".join([*notes, f"{len(training):,} {units}, {parameters:,} parameters, on {trainer.device}"])


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
    with locked_run(Path(run), display):
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
def _modes(recipe: AnyRecipe, device: torch.device) -> Iterator[None]:
    """Set the modes of torch that training needs until the end of the context, whatever they were.

    Seeds torch; uses deterministic algorithms if the recipe says so; gradients on, autocast off (the recipe
    has its own).
    """
    autocast(device, recipe.training.precision)  # raises now if the device does not support it
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


def _shown(
    group: Group, display: Display, folder: RunFolder, task: Task[Any], predictor: Any
) -> tuple[Report, Callable[[int], None]]:
    """Return what shows records, and what draws the picture of a validation: the first process alone writes
    to the terminal and to the run's folder."""
    if not group.first:
        return _silent, _silent
    return _report(display, folder, task, predictor.model), _illustrator(task, folder, predictor)


def _report(display: Display, folder: RunFolder, task: Task[Any], model: nn.Module) -> Report:
    """Return a function that sends records to the terminal and, if the recipe says so, to TensorBoard."""
    board = task.recipe.training.tensorboard
    write_to_board = _tensorboard(folder) if board else None

    def report(record: dict[str, Any]) -> None:
        if unused := record.get("unused"):
            display.say(f"note: {unused_note(unused, model)}")
        display({**record, "unit": task.units.targets})
        if write_to_board is not None and "step" in record:
            write_to_board(record)

    return report


def _illustrator(task: Task[Any], folder: RunFolder, predictor: Any) -> Callable[[int], None]:
    """Return a function that writes the picture of a validation, if the task has one, to the run's folder."""

    def illustrate(step: int) -> None:
        picture = task.illustration(predictor)
        if picture is not None:
            save_sample(folder, step, picture)

    return illustrate


def _tensorboard(folder: RunFolder) -> Report:
    """Return a function that writes the numbers of a record, and the picture of a validation, to TensorBoard
    files in a run's folder."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder.target("tensorboard")))

    def write(record: dict[str, Any]) -> None:
        group = "training" if "norm" in record else "dev"
        for name in ("loss", *record.get("parts", ()), "norm", "learning_rate", "perplexity", *METRICS):
            if name in record:
                writer.add_scalar(f"{group}/{name}", record[name], record["step"])
        picture = sample(folder, record["step"]) if group == "dev" else None
        if picture is not None:
            writer.add_image("dev/samples", picture, record["step"], dataformats="HWC")

    return write
