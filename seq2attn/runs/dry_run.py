"""A dry run of a recipe: read the data, learn the vocabulary, train a few steps, measure memory and time."""

import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from seq2attn.data.batch_plan import Indices
from seq2attn.data.batches import AnyBatchLoader
from seq2attn.inference.decoding_options import without_length_warnings
from seq2attn.recipe import AnyRecipe
from seq2attn.runs.batch_size import require_gpu, widest, with_batch_size
from seq2attn.runs.evaluation import left_out, validation_errors
from seq2attn.runs.initial_weights import freeze, initial_weights, parts_of, unused_note
from seq2attn.runs.opening import changes
from seq2attn.runs.training_run import require_extras
from seq2attn.runtime.devices import autocast, pick_device
from seq2attn.tasks.loading import learn
from seq2attn.tasks.registry import TASKS
from seq2attn.tasks.task import Task
from seq2attn.text.vocabulary import VocabularyError
from seq2attn.training.advice import advice
from seq2attn.training.display import clock
from seq2attn.training.loop import UpdatePlan, epoch_steps, error_context, total_steps
from seq2attn.training.trainer import Trainer, UpdateStats

TIMED_STEPS = 3  # training steps, after one that is not timed
DECODED_EXAMPLES = 8


def check(recipe: AnyRecipe, pairs: int = 50_000, device: str = "auto") -> Iterator[tuple[str, str]]:
    """Try each part of training, and yield a report: headings, each with its text. A heading may come again.

    pairs: the largest number of examples that are read from each training corpus; all counts and times are of
    these.
    """
    data = recipe.data.model_copy(
        update={
            "train": [
                corpus.model_copy(update={"limit": min(pairs, corpus.limit or pairs)})
                for corpus in recipe.data.train
            ]
        }
    )
    recipe = recipe.model_copy(update={"data": data})
    chosen_device = pick_device(device)
    require_extras(recipe)
    require_gpu(recipe.training, chosen_device)
    autocast(chosen_device, recipe.training.precision)  # both raise now, before data are read
    yield "recipe", f"{recipe.name}: no fault"
    yield from (("note", warning) for warning in TASKS[recipe.task].warnings(recipe))
    initial = initial_weights(recipe)
    try:
        task = learn(recipe) if initial is None else initial.task(recipe)
    except VocabularyError as error:
        raise VocabularyError(f"{error} (check read at most {pairs:,} examples of each corpus)") from error
    yield "vocabulary", task.vocabulary
    training, dev = task.examples("train"), task.examples("dev")
    found = list[str]()
    task = with_batch_size(task, training, chosen_device, found.append).fitted(training)
    settings = task.recipe.training
    yield from (*(("note", line) for line in found), *_fitted(recipe, task.recipe))
    roles = {"train": training, "dev": dev, **({} if data.test is None else {"test": task.examples("test")})}
    for role, examples in roles.items():
        length = f"{task.lengths(examples).mean():.1f} {task.units.lengths}"
        yield f"data.{role}", f"{length}; {examples.report}"
    yield from task.summary(training, dev)
    yield from (("note", line) for line in left_out(task, dev))
    torch.manual_seed(recipe.seed)
    model = task.build()
    if initial is not None:
        yield from (("init", line) for line in initial.give(model, task).lines())
    if frozen := freeze(model, recipe):
        yield "init", f"{len(frozen)} tensors are not trained: {parts_of(frozen, {*model.state_dict()})}"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    yield "model", f"{parameters:,} parameters ({parameters * 4 / 2**20:.0f} MiB in float32)"
    loader, objective = task.loader(training, training=True), task.objective(model, training=True)
    total = total_steps(settings, loader)
    trainer = Trainer(model, objective, settings, chosen_device, total, recipe.seed)
    for line in advice(settings, chosen_device, total, epoch_steps(settings, loader), task.units.examples):
        yield "note", line
    yield from _try_training(task, training, loader, trainer)
    predictor = task.predictor(model, chosen_device, validating=True)
    inputs = task.inputs(training, range(min(DECODED_EXAMPLES, len(training))))
    start = time.monotonic()
    with validation_errors("decoding", predictor.memory_advice), without_length_warnings():
        results = list(predictor.stream(inputs))
    yield "decoding", f"{len(results)} examples in {time.monotonic() - start:.2f} s, untrained"
    peak = _peak_memory(chosen_device)
    yield "memory", f"{peak / 2**20:,.0f} MiB at the peak, with the widest batch"


def _fitted(recipe: AnyRecipe, fitted: AnyRecipe) -> Iterator[tuple[str, str]]:
    """Yield a line with the settings that the recipe leaves to the training data."""
    was, now = recipe.model_dump(mode="json"), fitted.model_dump(mode="json")
    settings = [f"{key} {_number(value)}" for key, _, value in changes(was, now)]
    if settings:
        yield "defaults", f"from the training data: {', '.join(settings)}"


def _number(value: Any) -> str:
    """Return a number, or numbers in a list or by name, as a report has them."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_number(inner)}" for name, inner in value.items())
    return " and ".join(map(_number, value)) if isinstance(value, list) else f"{value:,}"


def _try_training(
    task: Task[Any], examples: Any, loader: AnyBatchLoader, trainer: Trainer
) -> Iterator[tuple[str, str]]:
    """Train on the widest batch and a few random ones; yield the speed and an estimate of the time."""
    batches = loader.epoch(0)

    def update(indices: Indices, step: int) -> UpdateStats:
        plan, batch = UpdatePlan([indices], 0, 0, 0), loader.batch(indices, 0)
        with error_context(step, plan, [batch], trainer):
            return trainer.update([batch], step)

    if unused := update(widest(loader, task.costs(examples)), 1).unused:
        yield "note", unused_note(unused, trainer.model)
    generator = np.random.default_rng(task.recipe.seed)
    count = min(TIMED_STEPS, len(batches))
    timed = [batches[index] for index in generator.choice(len(batches), count, replace=False)]
    start, tokens = time.monotonic(), 0
    for step, indices in enumerate(timed, 2):
        tokens += update(indices, step).tokens
    seconds = (time.monotonic() - start) / count  # per batch
    yield "training", f"{tokens / count / seconds:,.0f} {task.units.targets}/s on {trainer.device}"
    epoch = clock(seconds * len(batches))
    yield "time", f"{epoch} per epoch of these examples ({len(batches):,} batches)"
    if trainer.total is not None:
        training = task.recipe.training
        seconds *= trainer.total * training.accumulate
        steps = f"{trainer.total:,} steps" + ("" if training.max_steps else " on these examples")
        yield "time", f"{clock(seconds)} in total for {steps}, without validation"


def _peak_memory(device: torch.device) -> float:
    """Return the peak of the memory in use, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
