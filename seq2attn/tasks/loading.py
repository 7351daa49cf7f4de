"""Trained models from run folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

from seq2attn.errors import Seq2attnError
from seq2attn.inference.predictor import COMMANDS
from seq2attn.inference.results import Translation
from seq2attn.inference.translator import Translator
from seq2attn.recipe import (
    AnyRecipe,
    Recipe,
)
from seq2attn.runtime.devices import pick_device
from seq2attn.tasks.labelling_tasks import LabellingTask
from seq2attn.tasks.sequence_tasks import SequenceTask
from seq2attn.tasks.task import AnyPredictor, Task
from seq2attn.training.run_folder import RunFolder, load_weights


def learn(recipe: AnyRecipe) -> Task[Any]:
    """The task of a recipe, its vocabularies learnt from the training data."""
    return SequenceTask.learn(recipe) if isinstance(recipe, Recipe) else LabellingTask.learn(recipe)


def reopen(folder: RunFolder) -> Task[Any]:
    """The task of a run, with its vocabularies."""
    recipe = folder.recipe
    return (
        SequenceTask.open(recipe, folder)
        if isinstance(recipe, Recipe)
        else LabellingTask.open(recipe, folder)
    )


def load(run: str | Path, checkpoint: str = "best", device: str = "auto", precision: str = "fp32") -> Any:
    """The model of a run folder: a Translator, Summarizer, Recognizer or Categorizer, by its task.

    checkpoint: best, last, average, or a file's name below weights/.
    """
    return _load(run, checkpoint, device, precision)


def load_for(
    command: str, run: str | Path, checkpoint: str = "best", device: str = "auto", precision: str = "fp32"
) -> Any:
    """The same for one of COMMANDS; Seq2attnError if the run's task is another's."""
    return _load(run, checkpoint, device, precision, command)


def _load(
    run: str | Path, checkpoint: str, device: str, precision: str, command: str | None = None
) -> AnyPredictor:
    folder = RunFolder.open(run)
    task = reopen(folder)
    name: str = task.recipe.task
    if command not in (None, COMMANDS[name]):
        raise Seq2attnError(f"{run} was trained for {name}: use `seq2attn {COMMANDS[name]}`, not {command}")
    model = task.empty()
    load_weights(model, folder.load_weights(checkpoint), folder.path)
    return task.predictor(model, pick_device(device), precision)


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
    if predictor.task != "translation":
        raise predictor.wrong("translate")
    return predictor.translate(text)
