"""Whole runs: from a recipe to a scored model."""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from seq2attn import __version__
from seq2attn.baselines import BASELINES
from seq2attn.checkpoint import RunError, RunFolder, Version, put_weights, vacant
from seq2attn.data import Examples, Role
from seq2attn.display import Display
from seq2attn.metrics import LOWER_IS_BETTER, METRICS, SLOW, References, Score, score, transposed
from seq2attn.models import out_of_memory, pick_device
from seq2attn.recipe import AnyRecipe, LocatedFault, RecipeError, read, write
from seq2attn.recipe.training import MEASURES
from seq2attn.recipe.wording import unknown
from seq2attn.tasks import Face, Task, learn, reopen
from seq2attn.training import (
    Learner,
    Progress,
    Report,
    TrainingError,
    Validate,
    average_last,
    fit,
    total_steps,
)

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
        vacant(path)
    place = pick_device(device)
    with _settled(recipe), display or Display() as shown:
        task = reopen(folder) if folder else learn(recipe)
        training, dev = examples(task, "train", shown), examples(task, "dev", shown)
        # what cannot be read is found now, not at the end
        test = None if recipe.data.test is None else examples(task, "test", shown)
        folder = _same_data(folder, training) if folder else _new(path, task, training)
        model, settings, feed = task.build(), recipe.training, task.feed(training, training=True)
        learner = Learner(model, task.objective(model, True), settings, place, total_steps(settings, feed))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        shown.say(f"{len(training):,} {task.counted}, {parameters:,} parameters, on {place}")
        validate = validator(task, model, dev, place)
        progress = fit(folder, learner, feed, validate, _report(shown, folder, recipe))
        face = task.face(model, place)
        if progress.interrupted:
            return Trained(path, progress, face, [])
        put_weights(model, folder.load_weights("best"), folder.path)
        shown.say(f"best: {best(folder)}")
        if test is None:
            return Trained(path, progress, face, [])
        scores = score_pairs(face, *_sides(test), settings.metrics)
        return Trained(path, progress, face, scores)


def examples(task: Task[Any], role: Role, display: Display) -> Examples:
    """The tokenised examples of train, dev or test; what was left out is said."""
    found = task.examples(role)
    if str(found.report):
        display.say(f"data.{role}: {found.report}")
    return found


def validator(task: Task[Any], model: nn.Module, dev: Examples, device: torch.device) -> Validate:
    """The scores of a model on the dev set: loss and perplexity per unit, and the recipe's metrics."""
    settings = task.recipe.training
    metrics = [name for name in settings.metrics if name not in SLOW]
    measured: list[str] = list(
        dict.fromkeys([*metrics, *([] if settings.metric == "loss" else [settings.metric])])
    )
    feed, objective = task.feed(dev), task.objective(model)
    face = task.face(model, device, validating=True)

    @torch.inference_mode()
    def validate(limit: int | None) -> dict[str, float]:
        model.eval()
        batches, nll, units = feed.once()[:limit], 0.0, 0
        for numbers in batches:
            batch = feed.batch(numbers)
            doing = f"in the batch with the dev examples {numbers[:8].tolist()} ({batch.shape})"
            with _naming(doing, f"training.batch_tokens (now {settings.batch_tokens})"):
                batch = batch.to(device)
                nll += float(objective.losses(objective.ask(model, batch), batch).nll)
            units += batch.units
        rows = [row for numbers in batches for row in numbers.tolist()]
        with _naming("decoding", face.limit):
            texts = [str(found) for found in face.stream([dev.source_text(row) for row in rows])]
        references = _references(dev, rows)
        scores = {name: METRICS[name](texts, references, bootstrap=0).value for name in measured}
        loss = nll / units
        return {"loss": loss, "perplexity": math.exp(min(loss, 700)), **scores}

    return validate


def best(folder: RunFolder) -> str:
    """The name of a run's best weights, and what makes them the best."""
    name, metric = folder.version.best, folder.recipe.training.metric
    score = folder.version.scores[name][0]  # larger is better: where it is not, it is kept as its negative
    value = -score if metric in {"loss", *LOWER_IS_BETTER} else score
    return f"{name} ({metric} {value:.2f})"


def measured(run: str | Path, metrics: Sequence[str]) -> Sequence[str]:
    """These metrics, or the recipe's own if there are none. RunError for those of another task."""
    recipe = RunFolder.open(run).recipe
    choices = recipe.training.measurable()
    for name in metrics:
        if name not in choices:
            of = next((what for what, names in MEASURES.items() if name in names), None)
            if of is None:
                raise RunError(unknown(name, choices, "metric "))
            raise RunError(
                f"{name} is of {of}; {run} was trained for {recipe.task}: one of {', '.join(choices)}"
            )
    return metrics or recipe.training.metrics


def held_out(run: str | Path, role: Role) -> tuple[list[str], References]:
    """Sources and references of a run's dev or test set."""
    task = reopen(RunFolder.open(run))
    if role == "test" and task.recipe.data.test is None:
        raise RunError("the recipe names no test set: score its dev set with --data dev, or give files")
    return _sides(task.examples(role))


def _sides(examples: Examples) -> tuple[list[str], References]:
    """Sources and references of all examples."""
    rows = range(len(examples))
    return [examples.source_text(row) for row in rows], _references(examples, rows)


def _references(examples: Examples, rows: Sequence[int]) -> References:
    """The references of some examples, as metrics take them."""
    lists = transposed([examples.references(row) for row in rows])
    return lists if len(lists) > 1 else [examples.target_text(row) for row in rows]


def score_pairs(
    face: Face, sources: Sequence[str], references: References, metrics: Sequence[str]
) -> list[Score]:
    """The metrics of a model's translations, with bootstrap intervals."""
    texts = [str(found) for found in face.stream(sources)]
    return score(texts, references, metrics)


def baselines(
    sources: Sequence[str], references: References, metrics: Sequence[str]
) -> dict[str, list[Score]]:
    """What summaries score that need no model, by name."""
    return {
        name: score([summarize(source) for source in sources], references, metrics)
        for name, summarize in BASELINES.items()
    }


def signature(run: str | Path, face: Face, checkpoint: str = "best") -> str:
    """How a score was made, beside the metric's own signature."""
    recipe = RunFolder.open(run).recipe
    made = [f"recipe:{recipe.name}", f"checkpoint:{checkpoint}", face.how, f"seed:{recipe.seed}"]
    return "|".join([*filter(None, made), f"seq2attn:{__version__}"])


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
    model, dev = task.build(), examples(task, "dev", Display())
    learner = Learner(model, task.objective(model), task.recipe.training, place, None)
    average_last(folder, learner, count, validator(task, model, dev, place), Display())
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


@contextlib.contextmanager
def _naming(doing: str, lower: str) -> Iterator[None]:
    """Say where validation was when memory ended, and what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory in validation, {doing}. What was saved before is kept. Lower {lower}"
        ) from error


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
