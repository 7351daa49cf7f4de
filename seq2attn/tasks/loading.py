"""Functions that make the task of a recipe or a run, and load trained models from run folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from seq2attn.errors import Seq2attnError, require_type, with_article
from seq2attn.inference.engines.registry import check_engine, make_engine
from seq2attn.inference.predictor import Predictor
from seq2attn.inference.results import Translation
from seq2attn.inference.translator import Translator
from seq2attn.inference.writing_predictor import WritingPredictor
from seq2attn.pretrained.located import located
from seq2attn.recipe import AnyRecipe
from seq2attn.runtime.devices import pick_device
from seq2attn.tasks.registry import TASKS
from seq2attn.tasks.task import Task
from seq2attn.training.run_folder import RunFolder
from seq2attn.training.weights import load_weights

P = TypeVar("P", bound=Predictor)


def learn(recipe: AnyRecipe) -> Task[Any]:
    """Return the task of a recipe, with vocabularies learned from the training data."""
    return TASKS[recipe.task].learn(recipe)


def reopen(folder: RunFolder) -> Task[Any]:
    """Return the task of a run, with its vocabularies."""
    recipe = folder.recipe
    return TASKS[recipe.task].open(recipe, folder)


@overload
def load(
    run: str | Path,
    checkpoint: str = "best",
    device: str = "auto",
    precision: str = "fp32",
    *,
    kind: type[P],
    engine: str = "torch",
    quantize: str | None = None,
) -> P:
    """Return a model of this class."""


@overload
def load(
    run: str | Path,
    checkpoint: str = "best",
    device: str = "auto",
    precision: str = "fp32",
    *,
    engine: str = "torch",
    quantize: str | None = None,
) -> Any:
    """Return a model whose class depends on the run."""


def load(
    run: str | Path,
    checkpoint: str = "best",
    device: str = "auto",
    precision: str = "fp32",
    *,
    kind: type[Predictor] = Predictor,
    engine: str = "torch",
    quantize: str | None = None,
) -> Any:
    """Return the trained model of a run: a Translator, Summarizer, Recognizer or Categorizer, by its task.

    checkpoint: best, last, average, or the name of a file below weights/.
    kind: the class that is expected, so that type checkers and editors know it. Seq2attnError if the model is
        another.
    engine: the program that searches: torch, ctranslate2 (for Transformers) or onnx (for recurrent models).
        Scores and alignments are torch's in any case.
    quantize: int8, for engines other than torch; None: float32.
    """
    if not (isinstance(kind, type) and issubclass(kind, Predictor)):
        raise Seq2attnError(f"expected kind as a class of models, such as Translator, got {kind!r:.60}")
    predictor = load_with_task(run, checkpoint, device, precision, engine, quantize)[1]
    if not isinstance(predictor, kind):
        raise Seq2attnError(
            f"{run} was trained for {predictor.task}: expected {with_article(kind.__name__)}, got "
            f"{with_article(type(predictor).__name__)}"
        )
    return predictor


def load_with_task(
    run: str | Path,
    checkpoint: str = "best",
    device: str = "auto",
    precision: str = "fp32",
    engine: str = "torch",
    quantize: str | None = None,
) -> tuple[Task[Any], Any]:
    """Return the task of a run, and its predictor. Arguments: see `load`."""
    require_type(run, (str, Path), "the path of a run folder, or hf://user/name")
    check_engine(engine, quantize, precision)
    task = reopen(folder := RunFolder.open(located(run)))
    model = task.empty()
    load_weights(model, folder.load_weights(checkpoint), folder.path)
    predictor = task.predictor(model, pick_device(device), precision)
    chosen = folder.version.alignment
    if chosen is not None and isinstance(predictor, WritingPredictor):
        predictor = predictor.with_alignment(chosen.layer, chosen.head, chosen.shift, chosen.method)
    made = make_engine(engine, task.recipe, predictor, quantize)
    return task, predictor if made is None else predictor.with_engine(made)


def load_for(
    command: str,
    run: str | Path,
    checkpoint: str = "best",
    device: str = "auto",
    precision: str = "fp32",
    engine: str = "torch",
    quantize: str | None = None,
    *,
    kind: type[Predictor] | None = None,
) -> Any:
    """Return the trained model of a run for a command. Seq2attnError if its task has another command.

    kind: the class of models of a command that is not that of a single task.
    """
    run = located(run)
    task = RunFolder.open(run).recipe.task
    expected = Predictor.commands[task]
    fits = command == expected if kind is None else issubclass(Predictor.by_task[task], kind)
    if not fits:
        raise Seq2attnError(f"{run} was trained for {task}: use `seq2attn {expected}`, not {command}")
    return load(run, checkpoint, device, precision, engine=engine, quantize=quantize)


def require_same_task(runs: Sequence[str | Path]) -> None:
    """Raise Seq2attnError unless all runs were trained for one task."""
    tasks = {run: RunFolder.open(located(run)).recipe.task for run in runs}
    for run, task in tasks.items():
        if task != tasks[runs[0]]:
            raise Seq2attnError(
                f"{runs[0]} was trained for {tasks[runs[0]]}, and {run} for {task}: compare runs of one task"
            )


@overload
def translate(  # type: ignore[overload-overlap]
    text: str, model: str | Path | Translator
) -> Translation:
    """Return the translation of a text."""


@overload
def translate(text: Sequence[str], model: str | Path | Translator) -> list[Translation]:
    """Return the translations of a list of texts."""


def translate(text: str | Sequence[str], model: str | Path | Translator) -> Translation | list[Translation]:
    """Translate a text, or a list of texts, with a run folder or a loaded model.

    A folder is read at every call: to translate often, `load` it once. Seq2attnError for other tasks' models.
    """
    predictor = load(model) if isinstance(model, str | Path) else model
    result: Translation | list[Translation] = predictor.translate(text)
    return result
