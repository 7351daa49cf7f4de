"""Tasks of recipes and runs, and trained models from run folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

from seq2attn.errors import Seq2attnError
from seq2attn.inference.predictor import Predictor
from seq2attn.inference.results import Translation
from seq2attn.inference.translator import Translator
from seq2attn.recipe import AnyRecipe
from seq2attn.runtime.devices import pick_device
from seq2attn.tasks.registry import TASKS
from seq2attn.tasks.task import Task
from seq2attn.training.run_folder import RunFolder, load_weights


def learn(recipe: AnyRecipe) -> Task[Any]:
    """Return the task of a recipe, with vocabularies learned from the training data."""
    return TASKS[recipe.task].learn(recipe)


def reopen(folder: RunFolder) -> Task[Any]:
    """Return the task of a run, with its vocabularies."""
    recipe = folder.recipe
    return TASKS[recipe.task].open(recipe, folder)


def load(run: str | Path, checkpoint: str = "best", device: str = "auto", precision: str = "fp32") -> Any:
    """Return the model of a run folder: a Translator, Summarizer, Recognizer or Categorizer, by its task.

    checkpoint: best, last, average, or a file's name below weights/.
    """
    return load_with_task(run, checkpoint, device, precision)[1]


def load_with_task(
    run: str | Path, checkpoint: str = "best", device: str = "auto", precision: str = "fp32"
) -> tuple[Task[Any], Any]:
    """Return the task of a run, and its model."""
    task = reopen(folder := RunFolder.open(run))
    model = task.empty()
    load_weights(model, folder.load_weights(checkpoint), folder.path)
    return task, task.predictor(model, pick_device(device), precision)


def load_for(
    command: str, run: str | Path, checkpoint: str = "best", device: str = "auto", precision: str = "fp32"
) -> Any:
    """Do the same for a command. Seq2attnError if the run was trained for another one."""
    task = RunFolder.open(run).recipe.task
    wanted = Predictor.commands[task]
    if command != wanted:
        raise Seq2attnError(f"{run} was trained for {task}: use `seq2attn {wanted}`, not {command}")
    return load(run, checkpoint, device, precision)


@overload
def translate(  # type: ignore[overload-overlap]
    text: str, model: str | Path | Translator
) -> Translation:
    """One in, one out."""


@overload
def translate(text: Sequence[str], model: str | Path | Translator) -> list[Translation]:
    """A list in, a list out."""


def translate(text: str | Sequence[str], model: str | Path | Translator) -> Translation | list[Translation]:
    """Translate with a run's folder (or a loaded model) in one line; a list in, a list out.

    A folder is read at every call: to translate often, `load` it once. Refuses models of other tasks.
    """
    predictor = load(model) if isinstance(model, str | Path) else model
    result: Translation | list[Translation] = predictor.translate(text)
    return result
