"""Scores of a model: on the dev set while it trains, and on any texts afterwards."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seq2attn.data import Examples, Role
from seq2attn.inference.baselines import BASELINES
from seq2attn.metrics import METRICS, References, Score, score, transposed
from seq2attn.recipe.wording import unknown
from seq2attn.runtime.devices import out_of_memory
from seq2attn.tasks.loading import reopen
from seq2attn.tasks.task import AnyPredictor, Task
from seq2attn.training.display import Display
from seq2attn.training.loop import (
    TrainingError,
    Validate,
)
from seq2attn.training.run_folder import RunError, RunFolder
from seq2attn.version import __version__


def examples(task: Task[Any], role: Role, display: Display) -> Examples:
    """The tokenised examples of train, dev or test; what was left out is said."""
    found = task.examples(role)
    if str(found.report):
        display.say(f"data.{role}: {found.report}")
    return found


def validator(task: Task[Any], model: nn.Module, dev: Examples, device: torch.device) -> Validate:
    """The scores of a model on the dev set: loss and perplexity per unit, and the recipe's metrics."""
    settings = task.recipe.training
    metrics = [name for name in settings.metrics if not METRICS[name].slow]
    measured: list[str] = list(
        dict.fromkeys([*metrics, *([] if settings.metric == "loss" else [settings.metric])])
    )
    loader, objective = task.loader(dev), task.objective(model)
    predictor = task.predictor(model, device, validating=True)

    @torch.inference_mode()
    def validate(limit: int | None) -> dict[str, float]:
        model.eval()
        batches, nll, units = loader.evaluation_batches()[:limit], 0.0, 0
        for numbers in batches:
            batch = loader.batch(numbers)
            doing = f"in the batch with the dev examples {numbers[:8].tolist()} ({batch.shape})"
            with error_context(doing, f"training.batch_tokens (now {settings.batch_tokens})"):
                batch = batch.to(device)
                nll += float(objective.loss(objective.forward(model, batch), batch).nll)
            units += batch.units
        rows = [row for numbers in batches for row in numbers.tolist()]
        with error_context("decoding", predictor.limit):
            texts = [str(found) for found in predictor.stream([dev.source_text(row) for row in rows])]
        references = _references(dev, rows)
        scores = {name: METRICS[name](texts, references, bootstrap=0).value for name in measured}
        loss = nll / units
        return {"loss": loss, "perplexity": math.exp(min(loss, 700)), **scores}

    return validate


def best(folder: RunFolder) -> str:
    """The name of a run's best weights, and what makes them the best."""
    name, metric = folder.version.best, folder.recipe.training.metric
    score = folder.version.scores[name][0]  # larger is better: where it is not, it is kept as its negative
    value = -score if metric == "loss" or METRICS[metric].lower_is_better else score
    return f"{name} ({metric} {value:.2f})"


def measured(run: str | Path, metrics: Sequence[str]) -> Sequence[str]:
    """These metrics, or the recipe's own if there are none. RunError for those of another task."""
    recipe = RunFolder.open(run).recipe
    choices = recipe.training.measurable()
    for name in metrics:
        if name not in choices:
            if name not in METRICS:
                raise RunError(unknown(name, choices, "metric "))
            raise RunError(
                f"{name} is of {METRICS[name].measures}; {run} was trained for {recipe.task}: one of "
                f"{', '.join(choices)}"
            )
    return metrics or recipe.training.metrics


def held_out(run: str | Path, role: Role) -> tuple[list[str], References]:
    """Sources and references of a run's dev or test set."""
    task = reopen(RunFolder.open(run))
    if role == "test" and task.recipe.data.test is None:
        raise RunError("the recipe names no test set: score its dev set with --data dev, or give files")
    return source_and_references(task.examples(role))


def source_and_references(examples: Examples) -> tuple[list[str], References]:
    """Sources and references of all examples."""
    rows = range(len(examples))
    return [examples.source_text(row) for row in rows], _references(examples, rows)


def _references(examples: Examples, rows: Sequence[int]) -> References:
    """The references of some examples, as metrics take them."""
    lists = transposed([examples.references(row) for row in rows])
    return lists if len(lists) > 1 else [examples.target_text(row) for row in rows]


def score_pairs(
    predictor: AnyPredictor, sources: Sequence[str], references: References, metrics: Sequence[str]
) -> list[Score]:
    """The metrics of a model's translations, with bootstrap intervals."""
    texts = [str(found) for found in predictor.stream(sources)]
    return score(texts, references, metrics)


def baselines(
    sources: Sequence[str], references: References, metrics: Sequence[str]
) -> dict[str, list[Score]]:
    """What summaries score that need no model, by name."""
    return {
        name: score([summarize(source) for source in sources], references, metrics)
        for name, summarize in BASELINES.items()
    }


def signature(run: str | Path, predictor: AnyPredictor, checkpoint: str = "best") -> str:
    """How a score was made, beside the metric's own signature."""
    recipe = RunFolder.open(run).recipe
    made = [f"recipe:{recipe.name}", f"checkpoint:{checkpoint}", predictor.how, f"seed:{recipe.seed}"]
    return "|".join([*filter(None, made), f"seq2attn:{__version__}"])


@contextlib.contextmanager
def error_context(doing: str, lower: str) -> Iterator[None]:
    """Say where validation was when memory ended, and what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory in validation, {doing}. What was saved before is kept. Lower {lower}"
        ) from error
