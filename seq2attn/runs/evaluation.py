"""Scores of a model: on the dev set during training, and on any data afterwards."""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from seq2attn.data import Role
from seq2attn.data.examples import ExampleSet
from seq2attn.data.report import Report
from seq2attn.inference.decoding_options import without_length_warnings
from seq2attn.inference.predictor import Predictor
from seq2attn.inference.search import NotNumbersError
from seq2attn.metrics import METRICS, Score
from seq2attn.pretrained.located import located
from seq2attn.recipe.wording import from_plugins, unknown
from seq2attn.runtime.devices import out_of_memory
from seq2attn.runtime.distributed import ALONE, Group, joined
from seq2attn.tasks.loading import load_with_task
from seq2attn.tasks.task import Evaluation, Task
from seq2attn.training.display import Display, progress_bar
from seq2attn.training.loop import NOT_FINITE, TrainingError, Validate
from seq2attn.training.run_folder import RunError, RunFolder
from seq2attn.training.sharding import gathered
from seq2attn.version import __version__

FEW = 200  # examples that are looked at first for what metrics measure


class GivenTexts(NamedTuple):
    """Sources and references that are read from files, with the names of the files for error messages."""

    name: str  # of the sources
    sources: Sequence[str]
    references: Sequence[tuple[str, Sequence[str]]]  # of each file its name, and a reference for each source


class RunScores(NamedTuple):
    """The scores of a run and of its task's baselines."""

    evaluation: Evaluation
    signature: str  # recipe, checkpoint, decoding options, seed and version
    baselines: dict[str, list[Score]]  # by name


def read_examples(task: Task[Any], role: Role, display: Display) -> ExampleSet:
    """Return the examples of train, dev or test; display how many are read and left out."""
    begun = time.monotonic()

    def progress(report: Report) -> None:
        bar = progress_bar(report.share, time.monotonic() - begun)
        display.show(f"data.{role}: {bar}{report.so_far}")

    examples = task.examples(role, progress)
    if str(examples.report):
        display.say(f"data.{role}: {examples.report}")
    return examples


def validator(
    task: Task[Any], model: nn.Module, dev: ExampleSet, device: torch.device, group: Group = ALONE
) -> Validate:
    """Return a function that scores the model on the dev set: loss, perplexity if the loss is a
    likelihood, and those of the recipe's metrics that have a value there.

    The processes of a group share the work, and all of them get the scores, the same for any number of them.
    """
    settings, metrics = task.recipe.training, validated_metrics(task)
    loader, objective = task.loader(dev), task.objective(model)
    predictor = task.predictor(model, device, validating=True)

    def validate(limit: int | None) -> dict[str, float]:
        with gathered(model), torch.inference_mode():
            return scores_of(limit)

    def scores_of(limit: int | None) -> dict[str, float]:
        model.eval()
        batches, is_likelihood = loader.evaluation_batches()[:limit], False
        sums = dict[int, tuple[float, float]]()  # by the index of the batch: its loss, and what divides it
        for index, indices in group.share(batches):
            batch = loader.batch(indices)
            activity = f"in the batch with the dev examples {indices[:8].tolist()} ({batch.shape})"
            with validation_errors(activity, settings.batch_setting):
                batch = batch.to(device)
                losses = objective.loss(objective.forward(model, batch), batch)
            is_likelihood = losses.nll is not None
            sums[index] = float(losses.whole if losses.nll is None else losses.nll), losses.divisor_in(batch)
        total, divisor = map(sum, zip(*group.merged(sums), strict=True))
        rows = [row for indices in batches for row in indices.tolist()]
        loss = total / max(divisor, 1.0)
        if math.isnan(loss):
            raise TrainingError(f"the loss is nan in validation. {NOT_FINITE}")
        with validation_errors("decoding", predictor.memory_advice), without_length_warnings():
            evaluation = task.evaluate(predictor, dev, metrics, rows, bootstrap=0, group=group)
        values = {name: score.value for name, score in evaluation.scores.items()}
        if limit is None and settings.metric in evaluation.undefined:
            raise TrainingError(_no_best(settings.metric, evaluation.undefined))
        perplexity = {"perplexity": math.exp(min(loss, 700))} if any(group.all(is_likelihood)) else {}
        return {"loss": loss, **perplexity, **values}

    return validate


def validated_metrics(task: Task[Any]) -> list[str]:
    """Return the metrics that a validation measures: the recipe's without slow ones, and the one that chooses
    the best weights."""
    settings = task.recipe.training
    fast = [name for name in settings.metrics if not METRICS[name].slow]
    return list(dict.fromkeys([*fast, *([] if settings.metric == "loss" else [settings.metric])]))


def left_out(task: Task[Any], dev: ExampleSet) -> Iterator[str]:
    """Yield a line for each metric that has no value on the dev set, and is left out of validations.

    RunError if it is the one that chooses the best weights.
    """
    metrics, undefined = validated_metrics(task), dict[str, str]()
    for count in (FEW, len(dev)):  # few examples have what most metrics measure
        undefined = dict(task.undefined(dev, range(min(count, len(dev))), metrics))
        if not undefined:
            return
    if task.recipe.training.metric in undefined:
        raise RunError(_no_best(task.recipe.training.metric, undefined))
    for name, reason in undefined.items():
        yield f"training.metrics: {name} is left out of validations, as it has no value on data.dev: {reason}"


def no_value(undefined: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each metric that has no value, with the reason."""
    yield from (f"{name} has no value: {reason}" for name, reason in undefined.items())


def _no_best(metric: str, undefined: Mapping[str, str]) -> str:
    """Say that the metric which chooses the best weights has no value."""
    return f"training.metric: {metric} has no value on data.dev, so choose another: {undefined[metric]}"


def best(folder: RunFolder) -> str:
    """Return a line with the name of a run's best weights and their score."""
    name, metric = folder.version.best, folder.recipe.training.metric
    score = folder.version.scores[name][0]  # larger is better: metrics where lower is better are negated
    value = -score if metric == "loss" or METRICS[metric].lower_is_better else score
    return f"{name} ({metric} {value:.2f})"


def chosen_metrics(run: str | Path, metrics: Sequence[str]) -> Sequence[str]:
    """Return these metrics, or the recipe's if there are none. RunError for metrics of another task."""
    recipe = RunFolder.open(run).recipe
    choices = recipe.training.measurable()
    for name in metrics:
        if name not in choices:
            if name not in METRICS:
                raise RunError(unknown(name, choices, "metric ", more=from_plugins()))
            raise RunError(
                f"{name} is a metric of {METRICS[name].measures}; {run} was trained for {recipe.task}: "
                f"use one of {', '.join(choices)}"
            )
    return metrics or recipe.training.metrics


def score_run(
    run: str | Path,
    metrics: Sequence[str] = (),
    role: Role = "test",
    given: GivenTexts | None = None,
    options: Mapping[str, Any] | None = None,
    checkpoint: str = "best",
    device: str = "auto",
    features: str | Path | None = None,
    engine: str = "torch",
    quantize: str | None = None,
) -> RunScores:
    """Score a run on its dev or test set, or on `given` sources and references. Processes that torchrun has
    started share the work.

    metrics: the recipe's if empty; options: decoding options that replace the recipe's; features: a run whose
    features generated images are compared by, instead of the recipe's; engine, quantize: see `load`.
    """
    run = located(run)
    metrics = chosen_metrics(run, metrics)
    with joined() as group:
        task, predictor = load_with_task(run, checkpoint, device, engine=engine, quantize=quantize)
        predictor = predictor.configured(options or {})
        task = task if features is None else task.measured_by(str(features))
        if given is None:
            examples = held_out(task, role)
            evaluation = task.evaluate(predictor, examples, metrics, group=group)
            baselines = task.evaluate_baselines(examples, metrics)
        else:
            inputs, references = checked_texts(task, predictor, given)
            evaluation = task.evaluate_texts(predictor, inputs, references, metrics, group=group)
            baselines = task.score_baselines(inputs, references, metrics)
    if not evaluation.scores:
        raise RunError("; ".join(no_value(evaluation.undefined)))
    return RunScores(evaluation, signature(run, predictor, checkpoint), baselines)


def checked_texts(
    task: Task[Any], predictor: Predictor, given: GivenTexts
) -> tuple[list[str], list[Sequence[str]]]:
    """Return sources in the form of the task's data, and lists of references. RunError for a faulty pair."""
    sources = [predictor.example_text(line) for line in given.sources]
    for name, references in given.references:
        for number, (source, text) in enumerate(zip_longest(sources, references, fillvalue=""), 1):
            if (fault := task.pair_fault(source, text)) is not None:
                raise RunError(f"{name}:{number}: {fault.format(source=f'{given.name}:{number}')}")
    return sources, [references for _, references in given.references]


def held_out(task: Task[Any], role: Role) -> ExampleSet:
    """Return the dev or test set of a run's task."""
    if role == "test" and task.recipe.data.test is None:
        raise RunError("the recipe names no test set: score its dev set with --data dev, or give files")
    return task.examples(role)


def signature(run: str | Path, predictor: Predictor, checkpoint: str = "best") -> str:
    """Return the settings that a score was computed with, to be shown with the metric's own signature."""
    recipe = RunFolder.open(run).recipe
    settings = [f"recipe:{recipe.name}", f"checkpoint:{checkpoint}", predictor.signature]
    return "|".join([*filter(None, settings), f"seed:{recipe.seed}", f"seq2attn:{__version__}"])


@contextlib.contextmanager
def validation_errors(activity: str, setting: str) -> Iterator[None]:
    """Re-raise errors of validation with the activity and a remedy: out of memory, and probabilities that are
    not numbers."""
    try:
        yield
    except NotNumbersError as error:  # only while decoding: the loss was a number
        raise TrainingError(f"probabilities are nan in validation, {activity}. {NOT_FINITE}") from error
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(f"out of memory in validation, {activity}. Lower {setting}") from error
