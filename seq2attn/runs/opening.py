"""Open the run of a training: make its folder or resume it, read its data, and lock it."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from seq2attn.data.examples import ExampleSet
from seq2attn.errors import for_caller
from seq2attn.recipe import AnyRecipe
from seq2attn.recipe.wording import shown
from seq2attn.runs.batch_size import require_gpu, with_batch_size
from seq2attn.runs.evaluation import read_examples
from seq2attn.runs.initial_weights import InitialWeights, freeze, initial_weights, parts_of
from seq2attn.runtime.distributed import Group
from seq2attn.runtime.locks import locked
from seq2attn.tasks.loading import learn, reopen
from seq2attn.tasks.registry import TASKS
from seq2attn.tasks.task import Task
from seq2attn.training.display import Display
from seq2attn.training.onlooker import Onlooker
from seq2attn.training.run_folder import LOCK, RunError, RunFolder, require_empty
from seq2attn.training.version_file import Version, environment
from seq2attn.version import __version__

MAX_NAMED = 5  # changed keys in an error message
# The keys of `training` that may change when a run is resumed: those that limit its length.
MAY_CHANGE = ("max_steps", "max_epochs", "max_minutes", "early_stopping")
NO_MATTER = "workers"  # the key of `data` that changes no result


class Opened(NamedTuple):
    """What a training needs of its run and its data."""

    folder: RunFolder
    task: Task[Any]
    training: ExampleSet
    dev: ExampleSet
    test: ExampleSet | None
    start: InitialWeights | None  # of another run, for a new one


@contextlib.contextmanager
def opened(
    path: Path, recipe: AnyRecipe, resume: bool | Literal["auto"], display: Display, device: torch.device
) -> Iterator[Opened]:
    """Make or open the folder of a run, read its data, and lock it until the end of the context."""
    if resume == "auto":
        resume = (path / "version.json").exists()
    with contextlib.ExitStack() as context:
        folder = context.enter_context(_resumable(path, recipe, display)) if resume else None
        if folder is None:
            require_empty(path)
            require_gpu(recipe.training, device)  # now, and not when the data are read
        start = initial_weights(recipe, folder)
        task = _resumed(folder, recipe) if folder else _learned(recipe, start, display)
        training, dev, test = _data(task, display)
        if folder is None:
            task = with_batch_size(task, training, device, display.say).fitted(training)
            folder = context.enter_context(_new_run(path, task, training, display, start))
        else:
            _require_same_data(folder, training)
        yield Opened(folder, task, training, dev, test, start)


@contextlib.contextmanager
def following(path: Path, group: Group, display: Display) -> Iterator[Opened]:
    """Read the data of the run that the first process has made or opened."""
    folder = Onlooker.of(path, group.announced())
    task = reopen(folder)
    yield Opened(folder, task, *_data(task, display), start=None)


def built(task: Task[Any], start: InitialWeights | None, display: Display) -> nn.Module:
    """Return a model with its initial weights; say which of them are from another run, or not trained."""
    model = task.build()
    if start is not None:
        display.say("\n".join(start.give(model, task).lines()))
    if frozen := freeze(model, task.recipe):
        display.say(f"{len(frozen)} tensors are not trained: {parts_of(frozen, {*model.state_dict()})}")
    return model


def _learned(recipe: AnyRecipe, start: InitialWeights | None, display: Display) -> Task[Any]:
    """Return the task of a recipe, with what is learned from the training data, which takes a while, or with
    what the run has that the training starts from."""
    if start is not None:
        return start.task(recipe)
    if made := TASKS[recipe.task].learned(recipe):
        display.show(f"making {made} from data.train")
    return learn(recipe)


def _data(task: Task[Any], display: Display) -> tuple[ExampleSet, ExampleSet, ExampleSet | None]:
    """Return training data, dev set and test set, which is read now so that an unreadable file is reported
    before training."""
    training, dev = read_examples(task, "train", display), read_examples(task, "dev", display)
    return training, dev, None if task.recipe.data.test is None else read_examples(task, "test", display)


@contextlib.contextmanager
def locked_run(path: Path, display: Display) -> Iterator[None]:
    """Lock a run's folder until the end of the context. RunError if it is none."""
    folder = RunFolder.open(path)  # or the lock would be left in a folder that is no run
    with locked(path / LOCK, display.say):
        folder.sweep()
        yield


@contextlib.contextmanager
def _new_run(
    path: Path, task: Task[Any], training: ExampleSet, display: Display, start: InitialWeights | None
) -> Iterator[RunFolder]:
    """Make the folder of a new run, and lock it. It is removed if training fails before anything is saved."""
    version = Version(seq2attn=__version__, data=training.fingerprint, environment=environment())
    version.origin = {} if start is None else start.origin
    folder = RunFolder.create(path, task.recipe, version, task.files())
    with locked_run(path, display):
        try:
            yield folder
        except BaseException:
            if not folder.has_begun():
                shutil.rmtree(path, ignore_errors=True)
            raise


@contextlib.contextmanager
def _resumable(path: Path, recipe: AnyRecipe, display: Display) -> Iterator[RunFolder]:
    """Open and lock a run to be resumed. RunError unless it is complete and was begun with this recipe."""
    with locked_run(path, display):
        folder = RunFolder.open(path)
        _require_same_recipe(folder, recipe)
        folder.require_weights()
        yield folder


def _require_same_recipe(folder: RunFolder, recipe: AnyRecipe) -> None:
    """RunError unless a run was begun with this recipe. MAY_CHANGE and NO_MATTER may differ."""
    path = folder.path
    begun = folder.recipe
    was, now = begun.model_dump(mode="json"), recipe.fitted_as(begun).model_dump(mode="json")
    for tree in (was, now):
        for key in MAY_CHANGE:
            tree["training"].pop(key)
        tree["data"].pop(NO_MATTER, None)
    if changed := [f"{key} was {shown(old)}, now {shown(new)}" for key, old, new in changes(was, now)]:
        others = f"; and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
        own = for_caller(
            f"`seq2attn train {path}/recipe.yaml --run {path} --resume`",
            f"`train('{path}/recipe.yaml', run='{path}', resume=True)`",
        )
        raise RunError(
            f"{path} was begun with another recipe: {'; '.join(changed[:MAX_NAMED])}{others}. Continue with "
            f"{own}, or train in a new folder"
        )


def _resumed(folder: RunFolder, recipe: AnyRecipe) -> Task[Any]:
    """Return the task of a run, with the settings of another recipe that may have changed."""
    task, begun = reopen(folder), folder.recipe
    limits = {key: getattr(recipe.training, key) for key in MAY_CHANGE}
    training, data = begun.training.model_copy(update=limits), begun.data
    if hasattr(data, NO_MATTER):
        data = data.model_copy(update={NO_MATTER: getattr(recipe.data, NO_MATTER)})
    return task.with_recipe(begun.model_copy(update={"training": training, "data": data}))


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
